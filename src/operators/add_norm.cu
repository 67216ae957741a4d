// The CUDA twin of add_norm.h: the same mask, from the same numbers; the kernels are those of
// common/norm_cuda.h.
#include "add_norm.h"
#include "common/norm_cuda.h"

namespace d2l {
inline namespace D2L_ISA {

// Rows of x + dropout(y); see norm_cuda.h.
template <class T>
struct SumRows {
  typedef Acc<T> A;
  static constexpr int kRegisters = 2;
  const T *x, *y;
  const float* state;  // null: nothing is dropped
  double p;
  T *dx, *dy;
  Dropout dropout;

  bool aligned_to(int bytes) const { return aligned(bytes, {x, y, dx, dy}); }
  __device__ void start() {
    if (!state) return;
    D2L_SHARED(shared, Dropout);
    if (threadIdx.x == 0 && threadIdx.y == 0) shared = dropout_of(state, p);
    __syncthreads();
    dropout = shared;
  }
  __device__ A factor(int64_t row, int64_t c) const {
    return dropout_factor<A>(dropout, row, static_cast<uint32_t>(c));
  }
  template <class Plan>
  __device__ void load(int64_t row, int cols, A fill, A (&item)[Plan::kItems]) const {
    A other[Plan::kItems];
    load_row<Plan>(x + row * cols, cols, fill, item);
    load_row<Plan>(y + row * cols, cols, A(0), other);
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) {
      item[i] += dropped(other[i], factor(row, Plan::column(i)));
    }
  }
  __device__ A at(int64_t row, int64_t c, int64_t cols) const {
    const int64_t i = row * cols + c;
    return ::d2l::load(x[i]) + dropped(::d2l::load(y[i]), factor(row, c));
  }
  template <class Plan>
  __device__ void store(A (&item)[Plan::kItems], int64_t row, int cols) const {
    store_row<Plan>(item, cols, dx + row * cols);
#pragma unroll
    for (int i = 0; i < Plan::kItems; ++i) {
      item[i] = dropped(item[i], factor(row, Plan::column(i)));
    }
    store_row<Plan>(item, cols, dy + row * cols);
  }
  __device__ void put(A value, int64_t row, int64_t c, int64_t cols) const {
    dx[row * cols + c] = ::d2l::store<T>(value);
    dy[row * cols + c] = ::d2l::store<T>(dropped(value, factor(row, c)));
  }
};

struct AddNormCuda {
  typedef AddNormParams Params;
  static constexpr const char* kName = "add_norm";

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    return backward ? layer_norm_workspace(in[0].shape, in[0].dtype) : 0;
  }

  template <class T>
  static SumRows<T> source(const Params& params, const Tensor* in, T* dx, T* dy) {
    const float* state = given(in[4]) ? data<float>(in[4]) : nullptr;
    return {data<T>(in[0]), data<T>(in[1]), state, params.p, dx, dy, Dropout()};
  }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *out = call.outputs;
    return layer_norm_forward<T>(source<T>(params, in, nullptr, nullptr), data<T>(in[2]),
                                 data<T>(in[3]), rows_of(in[0].shape), cols_of(in[0].shape),
                                 static_cast<Acc<T>>(params.eps), data<T>(out[0]),
                                 data<Acc<T>>(out[1]), data<Acc<T>>(out[2]), resources.stream);
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *out = call.outputs, *grad = call.grad_inputs;
    if (given(grad[4])) {
      if (int status = zero(grad[4], resources.stream)) return status;
    }
    return layer_norm_backward<T>(source<T>(params, in, data<T>(grad[0]), data<T>(grad[1])),
                                  data<T>(call.grad_outputs[0]), data<T>(in[2]),
                                  data<Acc<T>>(out[1]), data<Acc<T>>(out[2]), rows_of(in[0].shape),
                                  cols_of(in[0].shape), data<T>(grad[2]), data<T>(grad[3]),
                                  static_cast<Acc<T>*>(resources.workspace), resources.stream);
  }
};

D2L_REGISTER_CUDA_OP(AddNormCuda);

}  // namespace D2L_ISA
}  // namespace d2l
