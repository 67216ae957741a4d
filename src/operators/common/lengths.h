// Valid lengths: how many of the first entries of a row count.
#ifndef D2L_COMMON_LENGTHS_H_
#define D2L_COMMON_LENGTHS_H_

#include "half.h"

namespace d2l {
inline namespace D2L_ISA {

// valid_len: entry i belongs to rows i * rows_per_length and following.  kAbsent: all entries
// count.
struct Lengths {
  const void* data;
  DType dtype;
  int64_t rows_per_length;
};

// shape: that of the data, (..., cols).
D2L_HOST_DEVICE inline Lengths lengths_of(const Tensor& valid_len, const Shape& shape) {
  if (!given(valid_len)) return {nullptr, DType::kAbsent, 1};
  return {valid_len.data, valid_len.dtype, volume(shape, valid_len.shape.ndim, shape.ndim - 1)};
}

template <class T>
D2L_HOST_DEVICE inline int64_t clipped_length(T value, int64_t cols) {
  if (!(value > T(0))) return 0;
  if (value >= T(cols)) return cols;
  const int64_t whole = static_cast<int64_t>(value);
  return whole + (T(whole) < value ? 1 : 0);
}

// The number of valid entries of a row.
D2L_HOST_DEVICE inline int64_t valid_length(const Lengths& lengths, int64_t row, int64_t cols) {
  const int64_t i = row / lengths.rows_per_length;
  const void* p = lengths.data;
  switch (lengths.dtype) {
    case DType::kFloat32: return clipped_length(static_cast<const float*>(p)[i], cols);
    case DType::kFloat64: return clipped_length(static_cast<const double*>(p)[i], cols);
    case DType::kFloat16: return clipped_length(load(static_cast<const half*>(p)[i]), cols);
    case DType::kInt32: return clipped_length<int64_t>(static_cast<const int32_t*>(p)[i], cols);
    case DType::kInt64: return clipped_length(static_cast<const int64_t*>(p)[i], cols);
    case DType::kInt8: return clipped_length<int64_t>(static_cast<const int8_t*>(p)[i], cols);
    case DType::kUint8: return clipped_length<int64_t>(static_cast<const uint8_t*>(p)[i], cols);
    default: return cols;  // kAbsent; anything else is refused by the rules
  }
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_LENGTHS_H_
