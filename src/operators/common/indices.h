// Numbers of rows and columns that a caller passes in an array: any dtype, any value.
//
// What a kernel makes of them is always in range, whatever the array holds: kernels cannot fail.
#ifndef D2L_COMMON_INDICES_H_
#define D2L_COMMON_INDICES_H_

#include "half.h"

namespace d2l {
inline namespace D2L_ISA {

// use(value) of entry i of an array, where an integer is an int64_t.
template <class Use>
D2L_HOST_DEVICE inline int64_t with_entry(const void* p, DType dtype, int64_t i, const Use& use) {
  switch (dtype) {
    case DType::kFloat32: return use(static_cast<const float*>(p)[i]);
    case DType::kFloat64: return use(static_cast<const double*>(p)[i]);
    case DType::kFloat16: return use(load(static_cast<const half*>(p)[i]));
    case DType::kInt32: return use(int64_t{static_cast<const int32_t*>(p)[i]});
    case DType::kInt64: return use(static_cast<const int64_t*>(p)[i]);
    case DType::kInt8: return use(int64_t{static_cast<const int8_t*>(p)[i]});
    case DType::kUint8: return use(int64_t{static_cast<const uint8_t*>(p)[i]});
    default: return 0;  // refused by the rules
  }
}

// A number of entries: rounded up, clipped to 0 .. most, 0 for NaN.
struct ClippedLength {
  int64_t most;

  template <class T>
  D2L_HOST_DEVICE int64_t operator()(T value) const {
    if (!(value > T(0))) return 0;
    if (value >= T(most)) return most;
    const int64_t whole = static_cast<int64_t>(value);
    return whole + (T(whole) < value ? 1 : 0);
  }
};

// The number of an entry: the fraction dropped, clipped to 0 .. count - 1, 0 for NaN.  This is what
// MXNet's pick and Embedding do.
struct ClippedIndex {
  int64_t count;

  template <class T>
  D2L_HOST_DEVICE int64_t operator()(T value) const {
    if (!(value > T(0))) return 0;
    return value >= T(count) ? count - 1 : static_cast<int64_t>(value);
  }
};

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

// The number of valid entries of a row, of which there are most at most.
D2L_HOST_DEVICE inline int64_t valid_length(const Lengths& lengths, int64_t row, int64_t most) {
  if (lengths.dtype == DType::kAbsent) return most;
  return with_entry(lengths.data, lengths.dtype, row / lengths.rows_per_length,
                    ClippedLength{most});
}

// Labels or tokens.
struct Indices {
  const void* data;
  DType dtype;

  D2L_HOST_DEVICE int64_t at(int64_t i, int64_t count) const {
    return with_entry(data, dtype, i, ClippedIndex{count});
  }
};

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_INDICES_H_
