// Two or three dense layers of the same data, as attention makes queries, keys and values.
//
//   y_i = x w_i^T + b_i
//
// Layout: x (rows, in), w_i (units, in), b_i (units,), y_i (rows, units), row-major.
// The third layer and each b_i are optional; without a third layer y_2 is a single zero.
// Saved for backward: nothing besides x and the w_i.
// Gradient: that of dense.h for each layer, of which dx is the sum, in the order of the layers.
// As there, rows of dy_i that are all zero are on the CPU no part of large products.
#ifndef D2L_MULTI_DENSE_H_
#define D2L_MULTI_DENSE_H_

#include "dense.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kMostLayers = 3;

struct MultiDenseParams {
  int64_t units = 1;
};

// The places of a layer's arrays among all inputs.
constexpr int weight_of(int layer) { return 1 + layer; }
constexpr int bias_of(int layer) { return 1 + kMostLayers + layer; }

inline int num_layers(const Tensor* in) {
  return given(in[weight_of(kMostLayers - 1)]) ? kMostLayers : kMostLayers - 1;
}

template <class T>
inline DenseArrays<T> arrays_of_layer(const Tensor* in, int layer) {
  const Tensor own[] = {in[0], in[weight_of(layer)], in[bias_of(layer)]};
  return dense_arrays<T>(own);
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

namespace d2l {
inline namespace D2L_ISA {

template <class T>
inline int64_t multi_dense_workspace(const Tensor* in, bool backward) {
  int64_t bytes = 0;
  for (int i = 0; i < num_layers(in); ++i) {
    const DenseArrays<T> on = arrays_of_layer<T>(in, i);
    bytes = at_least(bytes, dense_workspace(DenseParams(), on, given(in[bias_of(i)]), backward) +
                                (backward ? line_bytes<T>(on.rows * on.in) : 0));
  }
  return bytes;
}

template <class T>
inline void multi_dense_forward(const Tensor* in, const Tensor* out, void* workspace) {
  const int layers = num_layers(in);
  for (int i = 0; i < layers; ++i) {
    DenseArrays<T> on = arrays_of_layer<T>(in, i);
    on.y = data<T>(out[i]);
    DenseForward<T>{on, workspace}.template with<Linear>();
  }
  if (layers < kMostLayers) *data<T>(out[layers]) = store<T>(Acc<T>(0));
}

// dx += part.
template <class T>
inline void add_part(int64_t count, const T* part, T* dx) {
  parallel_for(count, 1, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dx[i] = store<T>(load(dx[i]) + load(part[i]));
  });
}

// grad: of all inputs, in their order.
template <class T>
inline void multi_dense_backward(const Tensor* in, const Tensor* dy, const Tensor* grad,
                                 void* workspace) {
  T *dx = data<T>(grad[0]), *part = static_cast<T*>(workspace);
  for (int i = 0; i < num_layers(in); ++i) {
    const DenseArrays<T> on = arrays_of_layer<T>(in, i);
    const int64_t count = on.rows * on.in;
    dense_backward(DenseParams(), on, data<T>(dy[i]), i > 0 ? part : dx,
                   data<T>(grad[weight_of(i)]), data<T>(grad[bias_of(i)]),
                   static_cast<char*>(workspace) + line_bytes<T>(count));
    if (i > 0) add_part(count, part, dx);
  }
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_MULTI_DENSE_H_
