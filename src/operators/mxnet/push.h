// Updates without MXNet's operators, for d2l/ops/_push.py.
#ifndef D2L_MXNET_PUSH_H_
#define D2L_MXNET_PUSH_H_

#include "../common/c_api.h"

#ifdef D2L_CHECK_ABI
#include <mxnet/c_api.h>

#include <type_traits>
#endif

namespace d2l {

struct Update;

// MXEnginePushSyncND, which takes handles of arrays; the context is an mxnet::Context.
typedef int (*PushSync)(void (*run)(void*, void*), void* parameter, void (*finish)(void*),
                        const void* context, void** read, int num_read, void** changed,
                        int num_changed, const void* property, int priority, const char* name);

#ifdef D2L_CHECK_ABI
static_assert(std::is_same<decltype(&MXEnginePushSyncND), PushSync>::value, "MXEnginePushSyncND");
#endif

}  // namespace d2l

// Once, when the library is loaded.
D2L_API void d2l_set_push(d2l::PushSync function);

// The arrays of an update's lists, one after the other: tensors without addresses, and MXNet's
// handles, null for absent arrays.  Null unless each is the whole of an array of its own on a CPU,
// whose memory is there.
D2L_API d2l::Update* d2l_update_new(int index, const d2l::Tensor* tensors, void* const* handles,
                                    int count);

D2L_API void d2l_update_free(d2l::Update* update);

// Pushes a call.  handles: as before; extra: the single inputs, num_singles of them, then the
// outputs, with their handles, null for absent ones.  Returns 0; 1 if the rules refuse the call,
// with their sentence in error; 2 if it must go by MXNet's operator; 3 if MXNet fails.
D2L_API int d2l_update_push(d2l::Update* update, const char* const* keys, const char* const* values,
                            int num_attrs, void* const* handles, const d2l::Tensor* extra,
                            void* const* extra_handles, int num_singles, const void* context,
                            char* error, int error_size);

#endif  // D2L_MXNET_PUSH_H_
