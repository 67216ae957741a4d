// The CUDA twin of conv2d.h: same formulas, and nothing saved.
//
// A thread computes one place of y, or of dx; its neighbours read neighbours.  A block sums one
// element of dw, or of db, over pictures and places.
#include "common/cuda.h"
#include "conv2d.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kConvThreads = 256;

template <class T>
__global__ void __launch_bounds__(kConvThreads)
    conv2d_forward_places(Conv2dSizes s, int64_t n, const T* __restrict__ x,
                          const T* __restrict__ w, const T* __restrict__ b, T* __restrict__ y) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kConvThreads;
  int64_t at = static_cast<int64_t>(blockIdx.x) * kConvThreads + threadIdx.x;
  for (; at < n; at += stride) {
    const int64_t j = at % s.out_width(), i = at / s.out_width() % s.out_height();
    const int64_t plane = at / (s.out_width() * s.out_height());
    const int64_t o = plane % s.channels, picture = plane / s.channels * s.in_channels;
    Acc<T> sum = b ? load(b[o]) : Acc<T>(0);
    for (int64_t c = 0; c < s.in_channels; ++c) {
      for (int64_t a = 0; a < s.kernel; ++a) {
        const int64_t row = i + a - s.padding;
        if (row < 0 || row >= s.height) continue;
        const T* from = x + ((picture + c) * s.height + row) * s.width;
        const T* weight = w + ((o * s.in_channels + c) * s.kernel + a) * s.kernel;
        for (int64_t e = 0; e < s.kernel; ++e) {
          const int64_t col = j + e - s.padding;
          if (col >= 0 && col < s.width) sum += load(weight[e]) * load(from[col]);
        }
      }
    }
    y[at] = store<T>(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(kConvThreads)
    conv2d_backward_places(Conv2dSizes s, int64_t n, const T* __restrict__ dy,
                           const T* __restrict__ w, T* __restrict__ dx) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kConvThreads;
  int64_t at = static_cast<int64_t>(blockIdx.x) * kConvThreads + threadIdx.x;
  for (; at < n; at += stride) {
    const int64_t j = at % s.width, i = at / s.width % s.height;
    const int64_t plane = at / (s.width * s.height);
    const int64_t c = plane % s.in_channels, picture = plane / s.in_channels * s.channels;
    Acc<T> sum = 0;
    for (int64_t o = 0; o < s.channels; ++o) {
      for (int64_t a = 0; a < s.kernel; ++a) {
        const int64_t row = i - a + s.padding;
        if (row < 0 || row >= s.out_height()) continue;
        const T* from = dy + ((picture + o) * s.out_height() + row) * s.out_width();
        const T* weight = w + ((o * s.in_channels + c) * s.kernel + a) * s.kernel;
        for (int64_t e = 0; e < s.kernel; ++e) {
          const int64_t col = j - e + s.padding;
          if (col >= 0 && col < s.out_width()) sum += load(weight[e]) * load(from[col]);
        }
      }
    }
    dx[at] = store<T>(sum);
  }
}

// Block k sums element k of dw; the blocks behind those, the elements of db.
template <class T>
__global__ void __launch_bounds__(kConvThreads)
    conv2d_backward_weights(Conv2dSizes s, int64_t sums, const T* __restrict__ dy,
                            const T* __restrict__ x, T* __restrict__ dw, T* __restrict__ db) {
  typedef RowReduction<Acc<T>, kConvThreads, 1> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  const int64_t width = s.out_width(), places = s.out_height() * width;
  const int64_t count = s.channels * s.depth();
  for (int64_t k = blockIdx.x; k < sums; k += gridDim.x) {
    const bool bias = k >= count;
    const int64_t o = bias ? k - count : k / s.depth();
    const int64_t e = k % s.kernel - s.padding, a = k / s.kernel % s.kernel - s.padding;
    const int64_t c = bias ? 0 : k / (s.kernel * s.kernel) % s.in_channels;
    Acc<T> total[1] = {0};
    for (int64_t at = threadIdx.x; at < s.batch * places; at += kConvThreads) {
      const int64_t n = at / places, i = at % places;
      const Acc<T> grad = load(dy[(n * s.channels + o) * places + i]);
      if (bias) {
        total[0] += grad;
        continue;
      }
      const int64_t row = i / width + a, col = i % width + e;
      if (row < 0 || row >= s.height || col < 0 || col >= s.width) continue;
      total[0] += grad * load(x[((n * s.in_channels + c) * s.height + row) * s.width + col]);
    }
    reduce(total, Sum());
    if (threadIdx.x == 0) (bias ? db[o] : dw[k]) = store<T>(total[0]);
  }
}

struct Conv2dCuda {
  typedef Conv2dParams Params;
  static constexpr const char* kName = "conv2d";

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor* in = call.inputs;
    const int64_t n = volume(call.outputs[0].shape);
    if (n == 0) return 0;
    return launch_rows(conv2d_forward_places<T>, kConvThreads, kConvThreads, n, resources.stream,
                       conv2d_sizes(params, in[0].shape), n, data<T>(in[0]), data<T>(in[1]),
                       data<T>(in[2]), data<T>(call.outputs[0]));
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    const Tensor *in = call.inputs, *grad = call.grad_inputs;
    const Conv2dSizes s = conv2d_sizes(params, in[0].shape);
    const T* dy = data<T>(call.grad_outputs[0]);
    const int64_t n = volume(in[0].shape);
    if (n > 0) {
      const int status = launch_rows(conv2d_backward_places<T>, kConvThreads, kConvThreads, n,
                                     resources.stream, s, n, dy, data<T>(in[1]), data<T>(grad[0]));
      if (status) return status;
    }
    const int64_t sums = s.channels * s.depth() + (given(grad[2]) ? s.channels : 0);
    if (sums == 0) return 0;
    return launch_rows(conv2d_backward_weights<T>, kConvThreads, 1, sums, resources.stream, s, sums,
                       dy, data<T>(in[0]), data<T>(grad[1]), data<T>(grad[2]));
  }
};

D2L_REGISTER_CUDA_OP(Conv2dCuda);

}  // namespace D2L_ISA
}  // namespace d2l
