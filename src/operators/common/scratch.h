// Room for a number of items that is known only at run time: on the stack as long as it is small.
// For the adapters, which see calls with hundreds of arrays; kernels get a workspace instead.
#ifndef D2L_COMMON_SCRATCH_H_
#define D2L_COMMON_SCRATCH_H_

#include <stdlib.h>

#include "tensor.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : items_(count <= kSmall ? small_ : static_cast<T*>(malloc(count * sizeof(T)))) {
    if (!items_) abort();  // a few kilobytes: nothing would go on without them
  }
  ~Scratch() {
    if (items_ != small_) free(items_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  operator T*() { return items_; }

 private:
  static constexpr int64_t kSmall = 48;
  T small_[kSmall];
  T* items_;
};

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_SCRATCH_H_
