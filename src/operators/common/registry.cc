#include "registry.h"

#include <stdlib.h>
#include <string.h>

namespace d2l {
namespace {

constexpr int kMaxOps = 512;
const char* const kTargets[] = {"v2", "v3", "v4"};

// Filled by static constructors, so both must be usable before any constructor has run.
Op ops[kMaxOps];
int num_ops;

}  // namespace

void register_op(const Op& op) {
  if (num_ops == kMaxOps || find_op(op.name, op.target)) abort();  // a mistake in our own sources
  ops[num_ops++] = op;
}

int op_count() { return num_ops; }
const Op* op_at(int index) { return &ops[index]; }

const Op* find_op(const char* name, const char* target) {
  for (int i = 0; i < num_ops; ++i) {
    if (strcmp(ops[i].name, name) == 0 && strcmp(ops[i].target, target) == 0) return &ops[i];
  }
  return nullptr;
}

const char* const* built_targets() {
  static const char* built[sizeof kTargets / sizeof kTargets[0] + 1];
  int n = 0;
  for (const char* target : kTargets) {
    for (int i = 0; i < num_ops; ++i) {
      if (strcmp(ops[i].target, target) == 0) {
        built[n++] = target;
        break;
      }
    }
  }
  built[n] = nullptr;
  return built;
}

bool cpu_supports(const char* target) {
  __builtin_cpu_init();
  const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  const bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (strcmp(target, "v2") == 0) return v2;
  if (strcmp(target, "v3") == 0) return v3;
  return strcmp(target, "v4") == 0 && v4;
}

const char* active_target(Error* error) {
  const char* forced = getenv("D2L_ISA");
  const char* best = nullptr;
  for (const char* const* built = built_targets(); *built; ++built) {
    if (!cpu_supports(*built)) continue;
    if (forced && strcmp(forced, *built) == 0) return *built;
    best = *built;
  }
  if (forced && *forced) {
    fail(error,
         "D2L_ISA must name an instruction set that was built and that this processor has "
         "(v2: SSE4.2, v3: AVX2 and FMA, v4: AVX-512; the best here is %s), got %s",
         best ? best : "none", forced);
    return nullptr;
  }
  if (!best) fail(error, "d2l's operators need a processor with SSE4.2");
  return best;
}

void expect_shape(Shape* shape, const Shape& want, const char* op, const char* argument,
                  Error* error) {
  bool fits = shape->ndim < 0 || shape->ndim == want.ndim;
  for (int i = 0; fits && i < shape->ndim; ++i) {
    fits = shape->dim[i] < 0 || want.dim[i] < 0 || shape->dim[i] == want.dim[i];
  }
  if (!fits) {
    fail(error, "%s: %s must have shape %s, got %s", op, argument, ShapeText(want).text,
         ShapeText(*shape).text);
    return;
  }
  *shape = want;
}

bool expect_ndim(const Shape& shape, int low, const char* op, const char* argument, Error* error) {
  if (shape.ndim >= low) return true;
  fail(error, "%s: %s must have at least %d ax%s, got shape %s", op, argument, low,
       low == 1 ? "is" : "es", ShapeText(shape).text);
  return false;
}

void expect_same_float(DType* dtypes, const char* const* names, int count, const char* op,
                       Error* error) {
  DType known = DType::kUnknown;
  for (int i = 0; i < count && known == DType::kUnknown; ++i) known = dtypes[i];
  if (known == DType::kUnknown) known = DType::kFloat32;
  for (int i = 0; i < count; ++i) {
    if (dtypes[i] == DType::kUnknown) dtypes[i] = known;
    if (dtypes[i] != DType::kFloat16 && dtypes[i] != DType::kFloat32 &&
        dtypes[i] != DType::kFloat64) {
      fail(error, "%s: %s must have dtype float16, float32 or float64, got %s", op, names[i],
           name_of(dtypes[i]));
    } else if (dtypes[i] != known) {
      fail(error, "%s: %s must have the dtype of %s, %s, got %s", op, names[i], names[0],
           name_of(known), name_of(dtypes[i]));
    }
  }
}

void expect_number(DType* dtype, const char* op, const char* argument, Error* error) {
  if (*dtype == DType::kUnknown) *dtype = DType::kFloat32;
  if (size_of(*dtype) == 0) {
    fail(error, "%s: %s must have a floating-point or integer dtype, got %s", op, argument,
         name_of(*dtype));
  }
}

void clear(const Tensor& tensor) {
  if (!given(tensor)) return;
  const int64_t bytes = volume(tensor.shape) * size_of(tensor.dtype);
  if (bytes > 0) memset(tensor.data, 0, bytes);  // an empty array may have no address
}

}  // namespace d2l
