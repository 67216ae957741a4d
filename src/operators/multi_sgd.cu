// The CUDA twin of multi_sgd.h: same formulas, every element read and written once.
#include "common/cuda_list.h"
#include "multi_sgd.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T, class G>
__global__ void __launch_bounds__(kListThreads)
    multi_sgd_kernel(ListPart<4, SgdRates<Acc<T>>> part) {
  typedef Acc<T> A;
  for (int64_t b = blockIdx.x; b < part.first[part.count]; b += gridDim.x) {
    const ListPiece piece = piece_of(part, b);
    const SgdRates<A> r = part.about[piece.i];
    T *w = array_of<T>(part, 0, piece.i), *m = array_of<T>(part, 2, piece.i);
    const G* g = array_of<G>(part, 1, piece.i);
    half* rounded = array_of<half>(part, 3, piece.i);
    for (int64_t e = piece.begin + threadIdx.x; e < piece.end; e += kListThreads) {
      const A step = sgd_step<A>(r, load(w[e]), load(g[e]), m ? A(load(m[e])) : A(0));
      const A next = load(w[e]) + step;
      if (m) m[e] = store<T>(step);
      if (rounded) rounded[e] = store<half>(static_cast<float>(next));
      w[e] = store<T>(next);
    }
  }
}

template <class T, class G>
int multi_sgd_update(const MultiSgdParams& p, const Tensor* in, void* stream) {
  typedef SgdRates<Acc<T>> Rates;
  return for_each_part<4, Rates>(
      in, p.num_weights,
      [&](int64_t i) { return sgd_rates<Acc<T>>(p, number_of(p.lrs, i), number_of(p.wds, i)); },
      [&](const ListPart<4, Rates>& part, int64_t blocks) {
        return launch_part(multi_sgd_kernel<T, G>, part, blocks, stream);
      });
}

struct MultiSgdCuda {
  typedef MultiSgdParams Params;
  static constexpr const char* kName = "multi_sgd";
  static constexpr bool kUpdates = true;

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static int forward(const Params& p, const Call& call, const Resources& resources) {
    if (int status = zero(call.outputs[0], resources.stream)) return status;
    if (given(call.inputs[3 * p.num_weights])) {
      return multi_sgd_update<float, half>(p, call.inputs, resources.stream);
    }
    return multi_sgd_update<T, T>(p, call.inputs, resources.stream);
  }
};

D2L_REGISTER_CUDA_OP(MultiSgdCuda);

}  // namespace D2L_ISA
}  // namespace d2l
