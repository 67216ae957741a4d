// Indices in an array of any dtype: labels, tokens.
//
// What a kernel makes of them is always in range, whatever the array holds: kernels cannot fail.
#ifndef D2L_COMMON_INDICES_H_
#define D2L_COMMON_INDICES_H_

#include "half.h"

namespace d2l {
inline namespace D2L_ISA {

// The fraction is dropped, the rest clipped to 0 .. count - 1; 0 for NaN.  This is what MXNet's
// pick and Embedding do.
template <class T>
D2L_HOST_DEVICE inline int64_t clipped_index(T value, int64_t count) {
  if (!(value > T(0))) return 0;
  return value >= T(count) ? count - 1 : static_cast<int64_t>(value);
}

struct Indices {
  const void* data;
  DType dtype;

  // Entry i, of a table with count >= 1 rows.
  D2L_HOST_DEVICE int64_t at(int64_t i, int64_t count) const {
    switch (dtype) {
      case DType::kFloat32: return clipped_index(static_cast<const float*>(data)[i], count);
      case DType::kFloat64: return clipped_index(static_cast<const double*>(data)[i], count);
      case DType::kFloat16: return clipped_index(load(static_cast<const half*>(data)[i]), count);
      case DType::kInt32:
        return clipped_index<int64_t>(static_cast<const int32_t*>(data)[i], count);
      case DType::kInt64: return clipped_index(static_cast<const int64_t*>(data)[i], count);
      case DType::kInt8: return clipped_index<int64_t>(static_cast<const int8_t*>(data)[i], count);
      case DType::kUint8:
        return clipped_index<int64_t>(static_cast<const uint8_t*>(data)[i], count);
      default: return 0;  // refused by the rules
    }
  }
};

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_INDICES_H_
