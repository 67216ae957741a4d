// Whether gradients are fresh, of many arrays in one call, for d2l/train/_updater.py.
#ifndef D2L_MXNET_FRESH_H_
#define D2L_MXNET_FRESH_H_

#include "../common/c_api.h"

#ifdef D2L_CHECK_ABI
#include <mxnet/c_api.h>

#include <type_traits>
#endif

namespace d2l {

// MXNDArrayGetGradState and MXNDArraySetGradState.
typedef int (*GetGradState)(void* array, int* fresh);
typedef int (*SetGradState)(void* array, int fresh);

#ifdef D2L_CHECK_ABI
static_assert(std::is_same<decltype(&MXNDArrayGetGradState), GetGradState>::value,
              "MXNDArrayGetGradState");
static_assert(std::is_same<decltype(&MXNDArraySetGradState), SetGradState>::value,
              "MXNDArraySetGradState");
#endif

}  // namespace d2l

// Once, when the library is loaded.
D2L_API void d2l_set_grad_state(d2l::GetGradState get, d2l::SetGradState set);

// Notes of each array that its gradient, which backward has made, is used.  Returns 0; 1, with no
// note made, if backward has not made one of them since the last note, or if MXNet fails.
D2L_API int d2l_take_fresh(void* const* arrays, int count);

#endif  // D2L_MXNET_FRESH_H_
