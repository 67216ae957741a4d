// The CUDA twin of global_norm_clip.h: same formulas.  One pass makes the sums of squares of each
// block, one block adds them up, and the second pass reads the norm on the device.
#include "common/cuda_list.h"
#include "global_norm_clip.h"

namespace d2l {
inline namespace D2L_ISA {

struct Nothing {};
typedef ListPart<1, Nothing> GradPart;

template <class T>
__device__ inline double sum_of_squares(const T* g, const ListPiece& piece) {
  double total = 0;
  for (int64_t e = piece.begin + threadIdx.x; e < piece.end; e += kListThreads) {
    const double value = load(g[e]);
    total += value * value;
  }
  return total;
}

template <class T>
__device__ inline void scale_piece(T* g, const ListPiece& piece, Acc<T> factor) {
  for (int64_t e = piece.begin + threadIdx.x; e < piece.end; e += kListThreads) {
    g[e] = store<T>(load(g[e]) * factor);
  }
}

__global__ void __launch_bounds__(kListThreads) clip_squares(GradPart part, double* squares) {
  typedef RowReduction<double, kListThreads, 1> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  for (int64_t b = blockIdx.x; b < part.first[part.count]; b += gridDim.x) {
    const ListPiece piece = piece_of(part, b);
    const DType dtype = static_cast<DType>(part.dtype[piece.i]);
    double total[1];
    if (dtype == DType::kFloat32) {
      total[0] = sum_of_squares(array_of<float>(part, 0, piece.i), piece);
    } else if (dtype == DType::kFloat64) {
      total[0] = sum_of_squares(array_of<double>(part, 0, piece.i), piece);
    } else {
      total[0] = sum_of_squares(array_of<half>(part, 0, piece.i), piece);
    }
    reduce(total, Sum());
    if (threadIdx.x == 0) squares[part.block + b] = total[0];
  }
}

__global__ void __launch_bounds__(kListThreads)
    clip_norm(const double* squares, int64_t blocks, double* norm) {
  typedef RowReduction<double, kListThreads, 1> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  double total[1] = {0};
  for (int64_t b = threadIdx.x; b < blocks; b += kListThreads) total[0] += squares[b];
  reduce(total, Sum());
  if (threadIdx.x == 0) *norm = sqrt(total[0]);
}

__global__ void __launch_bounds__(kListThreads)
    clip_scale(GradPart part, double theta, const double* divisor, const double* norm) {
  const double factor = clipping_factor(*norm, theta) / (divisor ? *divisor : 1.0);
  if (factor == 1) return;
  for (int64_t b = blockIdx.x; b < part.first[part.count]; b += gridDim.x) {
    const ListPiece piece = piece_of(part, b);
    const DType dtype = static_cast<DType>(part.dtype[piece.i]);
    if (dtype == DType::kFloat32) {
      scale_piece(array_of<float>(part, 0, piece.i), piece, static_cast<float>(factor));
    } else if (dtype == DType::kFloat64) {
      scale_piece(array_of<double>(part, 0, piece.i), piece, factor);
    } else {
      scale_piece(array_of<half>(part, 0, piece.i), piece, static_cast<float>(factor));
    }
  }
}

struct GlobalNormClipCuda {
  typedef GlobalNormClipParams Params;
  static constexpr const char* kName = "global_norm_clip";
  static constexpr bool kUpdates = true;

  static int64_t workspace(const Params& p, const Tensor* in, bool) {
    return 8 * blocks_of(in, p.num_weights);
  }

  template <class T>
  static int forward(const Params& p, const Call& call, const Resources& resources) {
    const int64_t n = p.num_weights;
    double* squares = static_cast<double*>(resources.workspace);
    double* norm = data<double>(call.outputs[0]);
    const double* divisor =
        given(call.inputs[n]) ? data<double>(call.inputs[n]) : static_cast<double*>(nullptr);
    void* stream = resources.stream;
    const auto nothing = [](int64_t) { return Nothing(); };
    int status = for_each_part<1, Nothing>(
        call.inputs, n, nothing, [&](const GradPart& part, int64_t blocks) {
          return launch_part(clip_squares, part, blocks, stream, squares);
        });
    if (status) return status;
    status = launch(clip_norm, 1, kListThreads, stream, squares, blocks_of(call.inputs, n), norm);
    if (status) return status;
    return for_each_part<1, Nothing>(
        call.inputs, n, nothing, [&](const GradPart& part, int64_t blocks) {
          return launch_part(clip_scale, part, blocks, stream, p.theta, divisor, norm);
        });
  }
};

D2L_REGISTER_CUDA_OP(GlobalNormClipCuda);

}  // namespace D2L_ISA
}  // namespace d2l
