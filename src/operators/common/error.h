// Errors of the rules: the first one wins, and its text is what the caller reads.
#ifndef D2L_COMMON_ERROR_H_
#define D2L_COMMON_ERROR_H_

#include "tensor.h"

namespace d2l {

struct Error {
  bool set;
  char text[512];
};

// printf into the error, unless it holds one already.  Text: "<op>: <argument> must ..., got ...".
void fail(Error* error, const char* format, ...) __attribute__((format(printf, 2, 3)));

// A shape as NumPy prints it, an unknown size as "?".
struct ShapeText {
  explicit ShapeText(const Shape& shape);
  char text[160];
};

const char* name_of(DType dtype);
int size_of(DType dtype);  // bytes of an element, 0 for a dtype that no operator takes

}  // namespace d2l

#endif  // D2L_COMMON_ERROR_H_
