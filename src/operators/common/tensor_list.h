// Lists of arrays, worked on as if they were one: all elements are cut into blocks, the last block
// of an array being shorter, and threads share the blocks.  The cut depends on the shapes alone.
#ifndef D2L_COMMON_TENSOR_LIST_H_
#define D2L_COMMON_TENSOR_LIST_H_

#include "half.h"
#include "op.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int64_t kListBlock = 16384;

D2L_HOST_DEVICE inline int64_t blocks_of(int64_t size) {
  return (size + kListBlock - 1) / kListBlock;
}

inline int64_t blocks_of(const Tensor* list, int64_t n) {
  int64_t blocks = 0;
  for (int64_t i = 0; i < n; ++i) blocks += blocks_of(volume(list[i].shape));
  return blocks;
}

// Gradients are often limited to -bound .. bound; NaN stays NaN.
template <class A>
D2L_HOST_DEVICE inline A clipped(A value, A bound) {
  const A below = value > bound ? bound : value;
  return below < -bound ? -bound : below;
}

// Master weights: the weights are float32, and float16 copies of them take part in the model, whose
// gradients are float16 as well.
struct ListDTypes {
  DType grads;    // of the gradients
  DType rounded;  // of the copies, kAbsent without them
};

// Rules that lists of weights share.  in: lists of n each, the weights first and the gradients
// second, then num_states states, all of them of the weights' dtype, then the rounded weights.
inline void expect_list_dtypes(DType* in, const char* const* names, int num_states, int64_t n,
                               const char* op, Error* error) {
  const int num_lists = 2 + num_states;
  DType* rounded = in + num_lists * n;
  const bool mixed = given(rounded[0]);
  const DType weights = in[0];
  if (mixed ? weights != DType::kFloat32
            : weights != DType::kFloat16 && weights != DType::kFloat32 &&
                  weights != DType::kFloat64) {
    fail(error, "%s: %s must have dtype %s, got %s", op, names[0],
         mixed ? "float32 beside rounded ones" : "float16, float32 or float64", name_of(weights));
    return;
  }
  for (int64_t i = 0; i < (num_lists + 1) * n && !error->set; ++i) {
    const int64_t list = i / n;
    const bool low = mixed && (list == 1 || list == num_lists);
    const DType want = low ? DType::kFloat16 : weights;
    if (given(in[i]) && in[i] != want) {
      fail(error, "%s: %s[%lld] must have dtype %s, got %s", op, names[list],
           static_cast<long long>(i % n), name_of(want), name_of(in[i]));
    }
  }
}

// All lists have the shapes of the first one.
inline void expect_list_shapes(const Shape* in, const char* const* names, int num_lists, int64_t n,
                               const char* op, Error* error) {
  for (int64_t i = n; i < num_lists * n && !error->set; ++i) {
    const Shape &want = in[i % n], &shape = in[i];
    bool fits = !given(shape) || shape.ndim == want.ndim;
    for (int axis = 0; fits && axis < shape.ndim; ++axis) {
      fits = shape.dim[axis] == want.dim[axis];
    }
    if (!fits) {
      fail(error, "%s: %s[%lld] must have shape %s, got %s", op, names[i / n],
           static_cast<long long>(i % n), ShapeText(want).text, ShapeText(shape).text);
    }
  }
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include "parallel.h"

namespace d2l {
inline namespace D2L_ISA {

// Calls body(i, begin, end, block) for the elements begin .. end - 1 of array i, which are the
// block of this number.  cost: element operations of one element.  first: room for n + 1 numbers;
// those of the first block of each array stand there afterwards, and the number of all blocks.
template <class Body>
inline void for_each_block(const Tensor* list, int64_t n, int64_t cost, int64_t* first,
                           const Body& body) {
  int64_t elements = 0;
  first[0] = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t size = volume(list[i].shape);
    first[i + 1] = first[i] + blocks_of(size);
    elements += size;
  }
  const int64_t blocks = first[n];
  if (blocks == 0) return;
  parallel_for(blocks, elements * cost / blocks, [=](int64_t b, int64_t last) {
    int64_t i = 0;
    while (first[i + 1] <= b) ++i;
    for (; b < last; ++b) {
      while (first[i + 1] <= b) ++i;
      const int64_t size = volume(list[i].shape), begin = (b - first[i]) * kListBlock;
      body(i, begin, begin + kListBlock < size ? begin + kListBlock : size, b);
    }
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_COMMON_TENSOR_LIST_H_
