// Sines and cosines of positions (Vaswani et al., 2017, section 3.5).
//
//   y_(i, 2j) = sin(position_i / wavelength_j)     y_(i, 2j + 1) = cos(position_i / wavelength_j)
//   position_i = past + i     wavelength_j = 10000^(2j / cols)
//
// in double, rounded once.
// Layout: y is (steps, cols), row-major; an odd number of columns ends with a sine.
// Saved for backward: nothing.  Gradient: none; of the inputs only the shapes count.
//
// On a CPU rows are copied from a table that grows (common/positions.h): a sine costs as much as
// copying a cache line.
#ifndef D2L_POSITIONAL_ENCODING_H_
#define D2L_POSITIONAL_ENCODING_H_

#include "common/positions.h"

namespace d2l {
inline namespace D2L_ISA {

struct PositionalEncodingParams {
  int64_t num_hiddens = 1;
  DType dtype = DType::kFloat32;
};

// The position of the first row.
inline int64_t past_steps(const Tensor& past) { return given(past) ? past.shape.dim[1] : 0; }

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_POSITIONAL_ENCODING_H_
