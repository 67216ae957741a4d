// Calls of operators without MXNet's extension interface, for d2l/ops/_library.py.
#ifndef D2L_MXNET_DIRECT_H_
#define D2L_MXNET_DIRECT_H_

#include "../common/c_api.h"
#include "layout.h"

#ifdef D2L_CHECK_ABI
#include <mxnet/c_api.h>

#include <type_traits>
#endif

namespace d2l {

// Functions of MXNet.  The last three are null where it was built without oneDNN.
struct DirectFunctions {
  const Any* (*attr_map)(const OldString& name);        // nnvm::Op::GetAttrMap
  int (*data)(void* array, void** data);                // MXNDArrayGetData
  bool (*is_onednn)(const Chunk* chunk);                // NDArray::Chunk::IsMKLDNN
  void (*reordered)(Array* result, const Array* from);  // NDArray::Reorder2Default
  void (*destroy)(Array* array);                        // NDArray::~NDArray
};

#ifdef D2L_CHECK_ABI
static_assert(std::is_same<decltype(&MXNDArrayGetData), decltype(DirectFunctions::data)>::value,
              "MXNDArrayGetData");
#endif

}  // namespace d2l

// Once for each operator, when the library is loaded: its kernels for CPUs are called directly from
// now on.  forward, backward: MXNet's handles.  Returns 0; 1, with nothing changed, if MXNet is not
// one that we know.
D2L_API int d2l_direct_install(const d2l::DirectFunctions* functions, const char* name,
                               void* forward, void* backward);

// Off: every call goes MXNet's way.  For tests.
D2L_API void d2l_direct_set(int on);

// The number of calls that went directly.
D2L_API int64_t d2l_direct_count();

#endif  // D2L_MXNET_DIRECT_H_
