// Activation functions and their gradients, of one element and for every target.
//
// apply(x) is y.  gradient(saved, dy) is dx, where saved is x if kFromInput and y otherwise: the
// derivatives of all but gelu follow from the result.
//
//   exp      y = e^x                dx = dy * y
//   gelu     y = x * P(X <= x)      dx = dy * (P(X <= x) + x * p(x)),  X standard normal, p its
//            density (Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, section 2)
//   relu     y = max(x, 0)          dx = dy where y > 0, else 0
//   sigmoid  y = 1 / (1 + e^-x)     dx = dy * y * (1 - y)
//   tanh     y = tanh(x)            dx = dy * (1 - y * y)
#ifndef D2L_COMMON_ACTIVATIONS_H_
#define D2L_COMMON_ACTIVATIONS_H_

#include "params.h"
#include "vec_math.h"

namespace d2l {

enum class Activation : int { kExp, kGelu, kRelu, kSigmoid, kTanh };

inline namespace D2L_ISA {

struct Exp {
  static constexpr bool kFromInput = false;
  template <class A>
  static D2L_HOST_DEVICE A apply(A x) {
    return fast_exp(x);
  }
  template <class A>
  static D2L_HOST_DEVICE A gradient(A y, A dy) {
    return dy * y;
  }
};

struct Gelu {
  static constexpr bool kFromInput = true;
  template <class A>
  static D2L_HOST_DEVICE A apply(A x) {
    return x * fast_normal(x).cdf;
  }
  template <class A>
  static D2L_HOST_DEVICE A gradient(A x, A dy) {
    const Normal<A> normal = fast_normal(x);
    return dy * (normal.cdf + x * normal.pdf);
  }
};

struct Relu {
  static constexpr bool kFromInput = false;
  template <class A>
  static D2L_HOST_DEVICE A apply(A x) {
    return x < 0 ? A(0) : x;  // NaN remains
  }
  template <class A>
  static D2L_HOST_DEVICE A gradient(A y, A dy) {
    return y > 0 ? dy : A(0);
  }
};

struct Sigmoid {
  static constexpr bool kFromInput = false;
  template <class A>
  static D2L_HOST_DEVICE A apply(A x) {
    return fast_sigmoid(x);
  }
  template <class A>
  static D2L_HOST_DEVICE A gradient(A y, A dy) {
    return dy * (y * (1 - y));
  }
};

struct Tanh {
  static constexpr bool kFromInput = false;
  template <class A>
  static D2L_HOST_DEVICE A apply(A x) {
    return fast_tanh(x);
  }
  template <class A>
  static D2L_HOST_DEVICE A gradient(A y, A dy) {
    return dy * (1 - y * y);
  }
};

// The gradient of one element of x in y = f(x + b).
template <class F, class A>
D2L_HOST_DEVICE inline A bias_activation_dx(A dy, A x, A b, A y) {
  return F::gradient(F::kFromInput ? x + b : y, dy);
}

// The result of run.with<F>(), F being the struct of the activation.
template <class Run>
inline auto run_activation(Activation activation, const Run& run) {
  switch (activation) {
    case Activation::kExp: return run.template with<Exp>();
    case Activation::kGelu: return run.template with<Gelu>();
    case Activation::kSigmoid: return run.template with<Sigmoid>();
    case Activation::kTanh: return run.template with<Tanh>();
    default: return run.template with<Relu>();
  }
}

// Attribute act_type.
inline void read_activation(ParamReader* reader, Activation* activation) {
  static constexpr const char* kNames[] = {"exp", "gelu", "relu", "sigmoid", "tanh"};
  int index = static_cast<int>(*activation);
  reader->choice("act_type", kNames, 5, &index);
  *activation = static_cast<Activation>(index);
}

// Element operations of one activation, for parallel_for.
constexpr int64_t kActivationCost = 8;

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_ACTIVATIONS_H_
