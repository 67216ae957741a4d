// How MXNet 1.9.1 lays out what we read of it, as far as its headers tell; a test compiles them and
// compares.  Its wheels have the strings of GCC before 5, by which the symbols are named that
// d2l/ops/_library.py looks for: another build of MXNet lacks them and keeps its own way.
#ifndef D2L_MXNET_LAYOUT_H_
#define D2L_MXNET_LAYOUT_H_

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace d2l {

// mxnet::NDArray::Chunk: the memory of one array or of several.
struct Chunk {
  char* data;  // null until it is needed
  size_t size;
};

// mxnet::TShape.
struct ArrayShape {
  int ndim, num_heap_allocated;
  int64_t on_stack[4];
  int64_t* on_heap;

  const int64_t* dims() const { return ndim <= 4 ? on_stack : on_heap; }
};

// mxnet::NDArray; a handle points to one.
struct Array {
  std::shared_ptr<Chunk> chunk;
  ArrayShape shape;
  size_t byte_offset;
  int dtype;
  bool reuse;
  int storage_type;  // 0 for a dense array
  char rest[136];    // what autograd knows of it, and a copy of the above
};

// An std::string of GCC before 5: a pointer to the characters, before which their number stands,
// that of the places, and a count of owners.
struct OldString {
  const char* text;
};

// nnvm::NodeAttrs: the attributes of a call, in a list that a hash map keeps.
struct NodeAttrs {
  struct Item {
    const Item* next;
    OldString key, value;
  };

  const void* op;
  OldString name;
  const void* buckets;
  size_t num_buckets;
  const Item* items;
  size_t count;
};

// nnvm::Op; the index is that of its values in every OpMap.
struct Operator {
  char before[152];
  uint32_t index;
};

// nnvm::OpMap: a value for each operator, and with which priority it was set, 0 if it was not.
template <class Value>
struct OpMap {
  OldString name;
  std::vector<std::pair<Value, int>> values;
};

// dmlc::any that holds something too large to stand in it, such as an OpMap.
struct Any {
  const void* type;
  void* held;
};

// mxnet::FComputeEx; the requests (write, add...) are integers.  All arguments are references, as
// there: std::function hands values over in another way.
struct Context;
typedef std::function<void(const NodeAttrs& attrs, const Context& context,
                           const std::vector<Array>& inputs, const std::vector<int>& requests,
                           const std::vector<Array>& outputs)>
    Compute;

// nnvm::NodeEntry: an output of a node of a graph.
struct NodeEntry {
  std::shared_ptr<void> node;
  uint32_t index, version;
};

// nnvm::FGradient: from an operator's node and the gradients of its outputs those of its inputs.
typedef std::function<std::vector<NodeEntry>(const std::shared_ptr<void>& node,
                                             const std::vector<NodeEntry>& out_grads)>
    Gradient;

// NDArray::Chunk::Reorder2Default, null where MXNet was built without oneDNN.
extern void (*reorder_to_default)(Chunk*);

}  // namespace d2l

#endif  // D2L_MXNET_LAYOUT_H_
