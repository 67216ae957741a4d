// What MXNet 1.9.1 keeps of an array, as far as its ndarray.h tells.
#ifndef D2L_MXNET_CHUNK_H_
#define D2L_MXNET_CHUNK_H_

#include <stddef.h>

namespace d2l {

// A handle points to an NDArray, which begins with a shared pointer to its Chunk, and a Chunk
// begins with address and size of the memory.
struct Chunk {
  char* data;
  size_t size;
};

// NDArray::Chunk::Reorder2Default, null where MXNet was built without oneDNN.
extern void (*reorder_to_default)(Chunk*);

}  // namespace d2l

#endif  // D2L_MXNET_CHUNK_H_
