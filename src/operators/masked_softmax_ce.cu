// The CUDA twin of masked_softmax_ce.h: same formulas, layout, labels and lengths.
//
// Rows of up to 8192 columns stay in registers, so that forward and backward read x once; longer
// rows, and doubles, are read several times (from the cache, mostly).  Steps that do not count are
// not read.  exp is CUDA's own, within 2 ulp.
#include <math.h>

#include "common/cuda.h"
#include "masked_softmax_ce.h"

namespace d2l {
inline namespace D2L_ISA {

// What forward makes of a row.
template <class A>
struct MaskedSoftmaxCERows {
  A *loss, *m, *z;

  __device__ void set(int64_t row, A row_loss, A row_m, A row_z) const {
    loss[row] = row_loss;
    m[row] = row_m;
    z[row] = row_z;
  }
};

template <class T, class Plan>
__global__ void __launch_bounds__(Plan::kBlock, Plan::blocks(2))
    masked_softmax_ce_forward_rows(MaskedSoftmaxCEInputs<T> in, MaskedSoftmaxCERows<Acc<T>> out) {
  typedef Acc<T> A;
  typedef RowReduction<A, Plan::kThreads, 2> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  const int cols = static_cast<int>(in.vocab);
  for (int64_t row = Plan::first_row(); row < in.rows(); row += Plan::row_step()) {
    // All threads of a row go the same way, and all of the block where they meet at barriers.
    if (!in.valid(row)) {
      if (Plan::thread() == 0) out.set(row, 0, 0, 0);
      continue;
    }
    const T* xr = in.x + row * cols;
    A item[Plan::kItems];
    load_row<Plan>(xr, cols, A(-INFINITY), item);
    A m[1] = {A(-INFINITY)}, sums[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) m[0] = fmax(m[0], item[i]);
    reduce(m, Maximum());
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) {
      if (Plan::column(i) >= cols) continue;
      sums[0] += exp(item[i] - m[0]);
      sums[1] += item[i] - m[0];
    }
    reduce(sums, Sum());
    if (Plan::thread() == 0) {
      const A x_label = load(xr[in.label.at(row, cols)]);
      out.set(row, masked_softmax_ce_loss(sums[0], sums[1], x_label, m[0], in.smoothing, A(cols)),
              m[0], sums[0]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kLongThreads)
    masked_softmax_ce_forward_long(MaskedSoftmaxCEInputs<T> in, MaskedSoftmaxCERows<Acc<T>> out) {
  typedef Acc<T> A;
  typedef RowReduction<A, kLongThreads, 2> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  for (int64_t row = blockIdx.x; row < in.rows(); row += gridDim.x) {
    if (!in.valid(row)) {
      if (threadIdx.x == 0) out.set(row, 0, 0, 0);
      continue;
    }
    const T* xr = in.x + row * in.vocab;
    A m[1] = {A(-INFINITY)}, sums[2] = {0, 0};
    for (int64_t c = threadIdx.x; c < in.vocab; c += kLongThreads) m[0] = fmax(m[0], load(xr[c]));
    reduce(m, Maximum());
    for (int64_t c = threadIdx.x; c < in.vocab; c += kLongThreads) {
      const A centered = load(xr[c]) - m[0];
      sums[0] += exp(centered);
      sums[1] += centered;
    }
    reduce(sums, Sum());
    if (threadIdx.x == 0) {
      const A x_label = load(xr[in.label.at(row, in.vocab)]);
      out.set(row,
              masked_softmax_ce_loss(sums[0], sums[1], x_label, m[0], in.smoothing, A(in.vocab)),
              m[0], sums[0]);
    }
  }
}

constexpr int kExampleThreads = 128;

// A thread for each example: its losses are few, and were written just now.
template <class T>
__global__ void __launch_bounds__(kExampleThreads)
    masked_softmax_ce_mean(const Acc<T>* __restrict__ losses, int64_t batch, int64_t steps,
                           T* __restrict__ loss) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kExampleThreads;
  int64_t b = static_cast<int64_t>(blockIdx.x) * kExampleThreads + threadIdx.x;
  for (; b < batch; b += stride) {
    double total = 0;
    for (int64_t t = 0; t < steps; ++t) total += losses[b * steps + t];
    loss[b] = store<T>(static_cast<Acc<T>>(steps > 0 ? total / steps : 0));
  }
}

// The gradient of one entry.
template <class A>
struct MaskedSoftmaxCERow {
  A m, scale, others, on_label;
  int64_t label;

  __device__ A operator()(A x, int64_t column) const {
    return exp(x - m) * scale - others - (column == label ? on_label : A(0));
  }
};

template <class T>
__device__ inline MaskedSoftmaxCERow<Acc<T>> masked_softmax_ce_row(
    const MaskedSoftmaxCEInputs<T>& in, const T* dloss, const Acc<T>* m, const Acc<T>* z,
    int64_t row) {
  typedef Acc<T> A;
  const A g = load(dloss[row / in.steps]) / A(in.steps);
  return {m[row], g / z[row], g * in.share, g * (1 - in.smoothing), in.label.at(row, in.vocab)};
}

template <class T, class Plan>
__global__ void __launch_bounds__(Plan::kBlock, Plan::blocks(3))
    masked_softmax_ce_backward_rows(MaskedSoftmaxCEInputs<T> in, const T* __restrict__ dloss,
                                    const Acc<T>* __restrict__ m, const Acc<T>* __restrict__ z,
                                    T* __restrict__ dx) {
  typedef Acc<T> A;
  const int cols = static_cast<int>(in.vocab);
  for (int64_t row = Plan::first_row(); row < in.rows(); row += Plan::row_step()) {
    const bool valid = in.valid(row);
    A item[Plan::kItems];
    load_row<Plan>(in.x + row * cols, valid ? cols : 0, A(0), item);
    if (valid) {
      const MaskedSoftmaxCERow<A> gradient = masked_softmax_ce_row(in, dloss, m, z, row);
#pragma unroll
      for (int i = 0; i < Plan::kItems; ++i) item[i] = gradient(item[i], Plan::column(i));
    }
    store_row<Plan>(item, cols, dx + row * cols);
  }
}

template <class T>
__global__ void __launch_bounds__(kLongThreads, 2)
    masked_softmax_ce_backward_long(MaskedSoftmaxCEInputs<T> in, const T* __restrict__ dloss,
                                    const Acc<T>* __restrict__ m, const Acc<T>* __restrict__ z,
                                    T* __restrict__ dx) {
  typedef Acc<T> A;
  for (int64_t row = blockIdx.x; row < in.rows(); row += gridDim.x) {
    T* dxr = dx + row * in.vocab;
    if (!in.valid(row)) {
      for (int64_t c = threadIdx.x; c < in.vocab; c += kLongThreads) dxr[c] = store<T>(A(0));
      continue;
    }
    const T* xr = in.x + row * in.vocab;
    const MaskedSoftmaxCERow<A> gradient = masked_softmax_ce_row(in, dloss, m, z, row);
    for (int64_t c = threadIdx.x; c < in.vocab; c += kLongThreads) {
      dxr[c] = store<T>(gradient(load(xr[c]), c));
    }
  }
}

template <class T>
struct MaskedSoftmaxCEForward {
  MaskedSoftmaxCEInputs<T> in;
  MaskedSoftmaxCERows<Acc<T>> out;
  void* stream;

  bool aligned_to(int bytes) const { return aligned(bytes, {in.x}); }

  template <class Plan>
  int short_rows() const {
    return launch_rows(masked_softmax_ce_forward_rows<T, Plan>, Plan::kBlock, Plan::kRows,
                       in.rows(), stream, in, out);
  }
  int long_rows() const {
    return launch_rows(masked_softmax_ce_forward_long<T>, kLongThreads, 1, in.rows(), stream, in,
                       out);
  }
};

template <class T>
struct MaskedSoftmaxCEBackward {
  MaskedSoftmaxCEInputs<T> in;
  const T* dloss;
  const Acc<T>* m;
  const Acc<T>* z;
  T* dx;
  void* stream;

  bool aligned_to(int bytes) const { return aligned(bytes, {in.x, dx}); }

  template <class Plan>
  int short_rows() const {
    return launch_rows(masked_softmax_ce_backward_rows<T, Plan>, Plan::kBlock, Plan::kRows,
                       in.rows(), stream, in, dloss, m, z, dx);
  }
  int long_rows() const {
    return launch_rows(masked_softmax_ce_backward_long<T>, kLongThreads, 1, in.rows(), stream, in,
                       dloss, m, z, dx);
  }
};

struct MaskedSoftmaxCECuda {
  typedef MaskedSoftmaxCEParams Params;
  static constexpr const char* kName = "masked_softmax_ce";

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    return masked_softmax_ce_workspace(in, backward);
  }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    typedef Acc<T> A;
    const MaskedSoftmaxCEInputs<T> in = masked_softmax_ce_inputs<T>(params, call.inputs);
    if (in.batch == 0) return 0;
    A* losses = static_cast<A*>(resources.workspace);
    if (in.steps > 0) {
      const MaskedSoftmaxCERows<A> rows = {losses, data<A>(call.outputs[1]),
                                           data<A>(call.outputs[2])};
      const int status =
          run_by_row<T>(in.vocab, MaskedSoftmaxCEForward<T>{in, rows, resources.stream});
      if (status) return status;
    }
    return launch_rows(masked_softmax_ce_mean<T>, kExampleThreads, kExampleThreads, in.batch,
                       resources.stream, losses, in.batch, in.steps, data<T>(call.outputs[0]));
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    typedef Acc<T> A;
    const MaskedSoftmaxCEInputs<T> in = masked_softmax_ce_inputs<T>(params, call.inputs);
    for (int i = 1; i < 3; ++i) {
      if (int status = zero(call.grad_inputs[i], resources.stream)) return status;
    }
    if (in.rows() == 0) return 0;
    return run_by_row<T>(
        in.vocab, MaskedSoftmaxCEBackward<T>{in, data<T>(call.grad_outputs[0]),
                                             data<A>(call.outputs[1]), data<A>(call.outputs[2]),
                                             data<T>(call.grad_inputs[0]), resources.stream});
  }
};

D2L_REGISTER_CUDA_OP(MaskedSoftmaxCECuda);

}  // namespace D2L_ISA
}  // namespace d2l
