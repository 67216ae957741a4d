// The CUDA twin of masked_softmax.h: same formulas, layout and lengths.
//
// Rows of up to 8192 columns stay in registers: x is read once, and only as far as the row's
// length, and y written once.  Longer rows, and doubles, are read several times (from the cache,
// mostly).  exp is CUDA's own, within 2 ulp: it has an instruction for the hard part, which
// fast_exp does without.
#include <math.h>

#include "common/cuda.h"
#include "masked_softmax.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T, class Plan>
__global__ void __launch_bounds__(Plan::kBlock, Plan::blocks(2))
    masked_softmax_forward_rows(const T* __restrict__ x, Lengths lengths, int64_t rows, int cols,
                                T* __restrict__ y) {
  typedef Acc<T> A;
  typedef RowReduction<A, Plan::kThreads, 1> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  for (int64_t row = Plan::first_row(); row < rows; row += Plan::row_step()) {
    const int n = static_cast<int>(valid_length(lengths, row, cols));
    A item[Plan::kItems];
    load_row<Plan>(x + row * cols, n, A(-INFINITY), item);
    A m[1] = {A(-INFINITY)}, total[1] = {0};
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) m[0] = fmax(m[0], item[i]);
    reduce(m, Maximum());
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) {
      item[i] = exp(item[i] - m[0]);
      total[0] += item[i];
    }
    reduce(total, Sum());
    const A scale = A(1) / total[0], uniform = A(1) / A(cols);
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) {
      item[i] = n == 0 ? uniform : (Plan::column(i) < n ? item[i] * scale : A(0));
    }
    store_row<Plan>(item, cols, y + row * cols);
  }
}

template <class T>
__global__ void __launch_bounds__(kLongThreads)
    masked_softmax_forward_long(const T* __restrict__ x, Lengths lengths, int64_t rows,
                                int64_t cols, T* __restrict__ y) {
  typedef Acc<T> A;
  typedef RowReduction<A, kLongThreads, 1> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t n = valid_length(lengths, row, cols);
    const T* xr = x + row * cols;
    A m[1] = {A(-INFINITY)}, total[1] = {0};
    for (int64_t c = threadIdx.x; c < n; c += kLongThreads) m[0] = fmax(m[0], load(xr[c]));
    reduce(m, Maximum());
    for (int64_t c = threadIdx.x; c < n; c += kLongThreads) total[0] += exp(load(xr[c]) - m[0]);
    reduce(total, Sum());
    const A scale = A(1) / total[0], rest = n == 0 ? A(1) / A(cols) : A(0);
    for (int64_t c = threadIdx.x; c < cols; c += kLongThreads) {
      y[row * cols + c] = store<T>(c < n ? exp(load(xr[c]) - m[0]) * scale : rest);
    }
  }
}

template <class T, class Plan>
__global__ void __launch_bounds__(Plan::kBlock, Plan::blocks(3))
    masked_softmax_backward_rows(const T* __restrict__ dy, const T* __restrict__ y, Lengths lengths,
                                 int64_t rows, int cols, T* __restrict__ dx) {
  typedef Acc<T> A;
  typedef RowReduction<A, Plan::kThreads, 1> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  for (int64_t row = Plan::first_row(); row < rows; row += Plan::row_step()) {
    const int n = static_cast<int>(valid_length(lengths, row, cols));
    A g[Plan::kItems], p[Plan::kItems];
    load_row<Plan>(dy + row * cols, n, A(0), g);
    load_row<Plan>(y + row * cols, n, A(0), p);
    A total[1] = {0};
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) total[0] += p[i] * g[i];
    reduce(total, Sum());
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) {
      p[i] = Plan::column(i) < n ? masked_softmax_dx(p[i], g[i], total[0]) : A(0);
    }
    store_row<Plan>(p, cols, dx + row * cols);
  }
}

template <class T>
__global__ void __launch_bounds__(kLongThreads)
    masked_softmax_backward_long(const T* __restrict__ dy, const T* __restrict__ y, Lengths lengths,
                                 int64_t rows, int64_t cols, T* __restrict__ dx) {
  typedef Acc<T> A;
  typedef RowReduction<A, kLongThreads, 1> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t n = valid_length(lengths, row, cols);
    const T *dyr = dy + row * cols, *yr = y + row * cols;
    A total[1] = {0};
    for (int64_t c = threadIdx.x; c < n; c += kLongThreads) total[0] += load(yr[c]) * load(dyr[c]);
    reduce(total, Sum());
    for (int64_t c = threadIdx.x; c < cols; c += kLongThreads) {
      dx[row * cols + c] =
          store<T>(c < n ? masked_softmax_dx(load(yr[c]), load(dyr[c]), total[0]) : A(0));
    }
  }
}

template <class T>
struct MaskedSoftmaxForward {
  const T* x;
  Lengths lengths;
  int64_t rows, cols;
  T* y;
  void* stream;

  bool aligned_to(int bytes) const { return aligned(bytes, {x, y}); }

  template <class Plan>
  int short_rows() const {
    return launch_rows(masked_softmax_forward_rows<T, Plan>, Plan::kBlock, Plan::kRows, rows,
                       stream, x, lengths, rows, cols, y);
  }
  int long_rows() const {
    return launch_rows(masked_softmax_forward_long<T>, kLongThreads, 1, rows, stream, x, lengths,
                       rows, cols, y);
  }
};

template <class T>
struct MaskedSoftmaxBackward {
  const T *dy, *y;
  Lengths lengths;
  int64_t rows, cols;
  T* dx;
  void* stream;

  bool aligned_to(int bytes) const { return aligned(bytes, {dy, y, dx}); }

  template <class Plan>
  int short_rows() const {
    return launch_rows(masked_softmax_backward_rows<T, Plan>, Plan::kBlock, Plan::kRows, rows,
                       stream, dy, y, lengths, rows, cols, dx);
  }
  int long_rows() const {
    return launch_rows(masked_softmax_backward_long<T>, kLongThreads, 1, rows, stream, dy, y,
                       lengths, rows, cols, dx);
  }
};

template <class T>
int masked_softmax_forward(const T* x, const Lengths& lengths, int64_t rows, int64_t cols, T* y,
                           void* stream) {
  if (rows == 0 || cols == 0) return 0;
  return run_by_row<T>(cols, MaskedSoftmaxForward<T>{x, lengths, rows, cols, y, stream});
}

template <class T>
int masked_softmax_backward(const T* dy, const T* y, const Lengths& lengths, int64_t rows,
                            int64_t cols, T* dx, void* stream) {
  if (rows == 0 || cols == 0) return 0;
  return run_by_row<T>(cols, MaskedSoftmaxBackward<T>{dy, y, lengths, rows, cols, dx, stream});
}

struct MaskedSoftmaxCuda {
  typedef MaskedSoftmaxParams Params;
  static constexpr const char* kName = "masked_softmax";

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static int forward(const Params&, const Call& call, const Resources& resources) {
    const Shape& shape = call.inputs[0].shape;
    return masked_softmax_forward<T>(data<T>(call.inputs[0]), lengths_of(call.inputs[1], shape),
                                     rows_of(shape), cols_of(shape), data<T>(call.outputs[0]),
                                     resources.stream);
  }

  template <class T>
  static int backward(const Params&, const Call& call, const Resources& resources) {
    const Shape& shape = call.inputs[0].shape;
    const Tensor& none = call.grad_inputs[1];
    if (given(none)) {
      if (int status = zero(none, resources.stream)) return status;
    }
    return masked_softmax_backward<T>(
        data<T>(call.grad_outputs[0]), data<T>(call.outputs[0]), lengths_of(call.inputs[1], shape),
        rows_of(shape), cols_of(shape), data<T>(call.grad_inputs[0]), resources.stream);
  }
};

D2L_REGISTER_CUDA_OP(MaskedSoftmaxCuda);

}  // namespace D2L_ISA
}  // namespace d2l
