#include "error.h"

#include <stdarg.h>
#include <stdio.h>

namespace d2l {

void fail(Error* error, const char* format, ...) {
  if (error->set) return;
  error->set = true;
  va_list args;
  va_start(args, format);
  const int length = vsnprintf(error->text, sizeof error->text, format, args);
  va_end(args);
  if (length < static_cast<int>(sizeof error->text)) return;
  // The text was cut; in UTF-8 not within a character, or Python could not read it.
  char* end = error->text + sizeof error->text - 1;
  while (end > error->text && (end[-1] & 0xc0) == 0x80) --end;
  if (end > error->text && (end[-1] & 0x80)) --end;
  *end = 0;
}

ShapeText::ShapeText(const Shape& shape) {
  if (shape.ndim < 0) {
    snprintf(text, sizeof text, "an unknown shape");
    return;
  }
  int n = snprintf(text, sizeof text, "(");
  for (int i = 0; i < shape.ndim && n < static_cast<int>(sizeof text) - 24; ++i) {
    const char* separator = i ? ", " : "";
    if (shape.dim[i] < 0) {
      n += snprintf(text + n, sizeof text - n, "%s?", separator);
    } else {
      n += snprintf(text + n, sizeof text - n, "%s%lld", separator,
                    static_cast<long long>(shape.dim[i]));
    }
  }
  snprintf(text + n, sizeof text - n, shape.ndim == 1 ? ",)" : ")");
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return "float32";
    case DType::kFloat64: return "float64";
    case DType::kFloat16: return "float16";
    case DType::kUint8: return "uint8";
    case DType::kInt32: return "int32";
    case DType::kInt8: return "int8";
    case DType::kInt64: return "int64";
    case DType::kUnknown: return "an unknown dtype";
    case DType::kAbsent: return "no dtype";
  }
  return "an unsupported dtype";
}

int size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
    case DType::kInt64: return 8;
    case DType::kFloat32:
    case DType::kInt32: return 4;
    case DType::kFloat16: return 2;
    case DType::kUint8:
    case DType::kInt8: return 1;
    case DType::kUnknown:
    case DType::kAbsent: return 0;
  }
  return 0;
}

}  // namespace d2l
