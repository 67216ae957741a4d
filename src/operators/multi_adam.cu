// The CUDA twin of multi_adam.h: same formulas, every element read and written once.
#include "common/cuda_list.h"
#include "multi_adam.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T, class G>
__global__ void __launch_bounds__(kListThreads)
    multi_adam_kernel(ListPart<5, AdamRates<Acc<T>>> part) {
  typedef Acc<T> A;
  for (int64_t b = blockIdx.x; b < part.first[part.count]; b += gridDim.x) {
    const ListPiece piece = piece_of(part, b);
    const AdamRates<A> r = part.about[piece.i];
    T *w = array_of<T>(part, 0, piece.i), *m = array_of<T>(part, 2, piece.i),
      *v = array_of<T>(part, 3, piece.i);
    const G* g = array_of<G>(part, 1, piece.i);
    half* rounded = array_of<half>(part, 4, piece.i);
    for (int64_t e = piece.begin + threadIdx.x; e < piece.end; e += kListThreads) {
      A mean = load(m[e]), variance = load(v[e]);
      const A next = adam_element<A>(r, load(w[e]), load(g[e]), &mean, &variance);
      m[e] = store<T>(mean);
      v[e] = store<T>(variance);
      if (rounded) rounded[e] = store<half>(static_cast<float>(next));
      w[e] = store<T>(next);
    }
  }
}

template <class T, class G>
int multi_adam_update(const MultiAdamParams& p, const Tensor* in, void* stream) {
  typedef AdamRates<Acc<T>> Rates;
  return for_each_part<5, Rates>(
      in, p.num_weights,
      [&](int64_t i) {
        return adam_rates<Acc<T>>(p, number_of(p.lrs, i), number_of(p.wds, i),
                                  number_of(p.steps, i));
      },
      [&](const ListPart<5, Rates>& part, int64_t blocks) {
        return launch_part(multi_adam_kernel<T, G>, part, blocks, stream);
      });
}

struct MultiAdamCuda {
  typedef MultiAdamParams Params;
  static constexpr const char* kName = "multi_adam";
  static constexpr bool kUpdates = true;

  static int64_t workspace(const Params&, const Tensor*, bool) { return 0; }

  template <class T>
  static int forward(const Params& p, const Call& call, const Resources& resources) {
    if (int status = zero(call.outputs[0], resources.stream)) return status;
    if (given(call.inputs[4 * p.num_weights])) {
      return multi_adam_update<float, half>(p, call.inputs, resources.stream);
    }
    return multi_adam_update<T, T>(p, call.inputs, resources.stream);
  }
};

D2L_REGISTER_CUDA_OP(MultiAdamCuda);

}  // namespace D2L_ISA
}  // namespace d2l
