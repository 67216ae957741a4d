// Sines and cosines of positions, which Transformers add to their inputs; the formula stands in
// positional_encoding.h.
#ifndef D2L_COMMON_POSITIONS_H_
#define D2L_COMMON_POSITIONS_H_

#include <math.h>

#include "half.h"

namespace d2l {

// Writes the rows of positions first .. first + steps - 1, of num_hiddens columns each, for
// float16, float32 or float64.
//
// The rows are copied from a table that the process keeps and lengthens as they are asked for; any
// number of threads may ask at a time.  One library computes them for all instruction sets, so
// that they get the same numbers.
void write_codes(DType dtype, int64_t num_hiddens, int64_t first, int64_t steps, void* out);

inline namespace D2L_ISA {

// What columns 2 * pair and 2 * pair + 1 are sine and cosine of is position / wavelength.
D2L_HOST_DEVICE inline double wavelength(int64_t pair, int64_t num_hiddens) {
  return pow(10000.0, 2.0 * pair / num_hiddens);
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_POSITIONS_H_
