// The CUDA twin of multi_lamb.h: same formulas.  One pass makes the moments and, for each block,
// the sums of squares; in the second one, every block adds up the sums of its array, in order.
#include "common/cuda_list.h"
#include "multi_lamb.h"

namespace d2l {
inline namespace D2L_ISA {

template <class A>
struct LambAbout {
  LambRates<A> rates;
  double lr;
};

template <class T, class G>
__global__ void __launch_bounds__(kListThreads)
    multi_lamb_moments(ListPart<5, LambAbout<Acc<T>>> part, double* squares) {
  typedef Acc<T> A;
  typedef RowReduction<double, kListThreads, 2> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  for (int64_t b = blockIdx.x; b < part.first[part.count]; b += gridDim.x) {
    const ListPiece piece = piece_of(part, b);
    const LambRates<A> r = part.about[piece.i].rates;
    const T* w = array_of<T>(part, 0, piece.i);
    T *m = array_of<T>(part, 2, piece.i), *v = array_of<T>(part, 3, piece.i);
    const G* g = array_of<G>(part, 1, piece.i);
    double total[2] = {0, 0};
    for (int64_t e = piece.begin + threadIdx.x; e < piece.end; e += kListThreads) {
      const A grad = clipped(r.rescale * A(load(g[e])), r.bound);
      m[e] = store<T>(r.beta1 * load(m[e]) + r.rest1 * grad);
      v[e] = store<T>(r.beta2 * load(v[e]) + r.rest2 * (grad * grad));
      const double weight = load(w[e]);
      const double u = lamb_update<A>(r, load(w[e]), load(m[e]), load(v[e]));
      total[0] += weight * weight;
      total[1] += u * u;
    }
    reduce(total, Sum());
    if (threadIdx.x == 0) {
      squares[2 * (part.block + b)] = total[0];
      squares[2 * (part.block + b) + 1] = total[1];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kListThreads)
    multi_lamb_weights(ListPart<5, LambAbout<Acc<T>>> part, MultiLambParams p,
                       const double* squares) {
  typedef Acc<T> A;
  typedef RowReduction<double, kListThreads, 2> Reduction;
  D2L_SHARED(scratch, typename Reduction::Scratch);
  Reduction reduce(&scratch);
  for (int64_t b = blockIdx.x; b < part.first[part.count]; b += gridDim.x) {
    const ListPiece piece = piece_of(part, b);
    double total[2] = {0, 0};
    for (int64_t other = part.first[piece.i] + threadIdx.x; other < part.first[piece.i + 1];
         other += kListThreads) {
      total[0] += squares[2 * (part.block + other)];
      total[1] += squares[2 * (part.block + other) + 1];
    }
    reduce(total, Sum());
    const LambRates<A> r = part.about[piece.i].rates;
    const A rate = static_cast<A>(lamb_rate(p, part.about[piece.i].lr, total[0], total[1]));
    T* w = array_of<T>(part, 0, piece.i);
    const T *m = array_of<T>(part, 2, piece.i), *v = array_of<T>(part, 3, piece.i);
    half* rounded = array_of<half>(part, 4, piece.i);
    for (int64_t e = piece.begin + threadIdx.x; e < piece.end; e += kListThreads) {
      const A next = load(w[e]) - rate * lamb_update<A>(r, load(w[e]), load(m[e]), load(v[e]));
      if (rounded) rounded[e] = store<half>(static_cast<float>(next));
      w[e] = store<T>(next);
    }
  }
}

template <class T, class G>
int multi_lamb_update(const MultiLambParams& p, const Tensor* in, double* squares, void* stream) {
  typedef Acc<T> A;
  typedef ListPart<5, LambAbout<A>> Part;
  const auto about = [&](int64_t i) {
    return LambAbout<A>{lamb_rates<A>(p, number_of(p.wds, i), number_of(p.steps, i)),
                        number_of(p.lrs, i)};
  };
  return for_each_part<5, LambAbout<A>>(
      in, p.num_weights, about, [&](const Part& part, int64_t blocks) {
        if (int status = launch_part(multi_lamb_moments<T, G>, part, blocks, stream, squares)) {
          return status;
        }
        return launch_part(multi_lamb_weights<T>, part, blocks, stream, p, squares);
      });
}

struct MultiLambCuda {
  typedef MultiLambParams Params;
  static constexpr const char* kName = "multi_lamb";
  static constexpr bool kUpdates = true;

  static int64_t workspace(const Params& p, const Tensor* in, bool) {
    return 16 * blocks_of(in, p.num_weights);
  }

  template <class T>
  static int forward(const Params& p, const Call& call, const Resources& resources) {
    if (int status = zero(call.outputs[0], resources.stream)) return status;
    double* squares = static_cast<double*>(resources.workspace);
    if (given(call.inputs[4 * p.num_weights])) {
      return multi_lamb_update<float, half>(p, call.inputs, squares, resources.stream);
    }
    return multi_lamb_update<T, T>(p, call.inputs, squares, resources.stream);
  }
};

D2L_REGISTER_CUDA_OP(MultiLambCuda);

}  // namespace D2L_ISA
}  // namespace d2l
