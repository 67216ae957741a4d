// A dense layer: every row of data times a matrix, plus a bias, through an activation function.
//
//   y = f(x w^T + b),  f one of common/activations.h whose derivative follows from y, or none
//
// Layout: x (rows, in), w (units, in), b (units,), y (rows, units), row-major.  b is optional.
// Saved for backward: nothing besides x, w and y.
// Gradient, with g = f'(y) * dy:  dx = g w,  dw = g^T x,  db = sum over rows of g, as
// common/rows.h says.
//
// The product is rounded to T before bias and activation are applied, though not in the CUDA twin.
// As f is nowhere steeper than 1, y is wrong by no more than u |x w^T| + u |y| and what summing in
// float32 or float64 costs, u being T's unit roundoff: 2^-11 of float16.
//
// Rows of g that are all zero, as padding and tokens without a loss leave them, are on the CPU no
// part of large products: dx is zero there, whatever w, and dw does not depend on x there, be it
// infinite or NaN.  (Where y is NaN, g of sigmoid and tanh is no zero.)
//
// The products are those of common/products.h; bias and activation are applied to rows while these
// are in a cache.  A product with few rows, as one step of decoding makes it, reads w where it
// stands.
#ifndef D2L_DENSE_H_
#define D2L_DENSE_H_

#include "common/activations.h"
#include "common/nonzero_rows.h"
#include "common/products.h"
#include "common/rows.h"

namespace d2l {
inline namespace D2L_ISA {

struct DenseParams {
  int64_t units = 1;
  bool activates = false;
  Activation act_type = Activation::kRelu;
};

// f(x) = x.
struct Linear {
  static constexpr bool kFromInput = false;
  template <class A>
  static D2L_HOST_DEVICE A apply(A x) {
    return x;
  }
  template <class A>
  static D2L_HOST_DEVICE A gradient(A, A dy) {
    return dy;
  }
};

template <class Run>
inline auto run_dense(const DenseParams& params, const Run& run) {
  if (!params.activates) return run.template with<Linear>();
  return run_activation(params.act_type, run);
}

template <class T>
struct DenseArrays {
  int64_t rows, in, units;
  const T *x, *w, *b;  // b may be null
  T *y, *g;            // g: room for (rows, units), where there is an activation

  Factor<T> data() const { return {x, rows, in, false}; }
  Factor<T> weight() const { return {w, units, in, false}; }
};

// in: data, weight, bias.
template <class T>
inline DenseArrays<T> dense_arrays(const Tensor* in) {
  return {rows_of(in[0].shape),
          cols_of(in[0].shape),
          in[1].shape.dim[0],
          data<T>(in[0]),
          data<T>(in[1]),
          data<T>(in[2]),
          nullptr,
          nullptr};
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

namespace d2l {
inline namespace D2L_ISA {

// Rows first .. first + n - 1 of the result: bias and activation.
template <class F, class T>
inline void dense_finish(const T* b, int64_t n, int64_t units, T* y) {
  for (int64_t r = 0; r < n; ++r, y += units) {
    if (b) {
#pragma omp simd
      for (int64_t i = 0; i < units; ++i) y[i] = store<T>(F::apply(load(y[i]) + load(b[i])));
    } else {
#pragma omp simd
      for (int64_t i = 0; i < units; ++i) y[i] = store<T>(F::apply(load(y[i])));
    }
  }
}

template <class T>
struct DenseForward {
  const DenseArrays<T>& on;
  void* workspace;

  template <class F>
  void with() const {
    const T* b = on.b;
    const int64_t units = on.units;
    constexpr bool kNothing = std::is_same<F, Linear>::value;
    multiply(1, on.data(), on.weight().flipped(), on.y, workspace, [=](int64_t, int64_t n, T* y) {
      if (b || !kNothing) dense_finish<F>(b, n, units, y);
    });
  }
};

// g and its sums over the rows.  workspace: row_blocks(rows) * units sums.
template <class T>
struct DenseOutputGradient {
  const DenseArrays<T>& on;
  const T* dy;
  T* db;  // may be null
  Acc<T>* workspace;

  template <class F>
  void with() const {
    typedef Acc<T> A;
    constexpr bool kNothing = std::is_same<F, Linear>::value;
    const int64_t units = on.units;
    const auto row = [dy = dy, y = on.y, g = on.g, units](int64_t r, A* sums) {
      const T *dyr = dy + r * units, *yr = y + r * units;
      T* gr = kNothing ? nullptr : g + r * units;
#pragma omp simd
      for (int64_t i = 0; i < units; ++i) {
        const A d = kNothing ? load(dyr[i]) : F::gradient(load(yr[i]), load(dyr[i]));
        if (!kNothing) gr[i] = store<T>(d);
        if (sums) sums[i] += d;
      }
    };
    if (db) {
      sum_over_rows<A>(on.rows, units, 1, kActivationCost * units, workspace, row,
                       [db = db](int64_t i, A total) { db[i] = store<T>(total); });
    } else if (!kNothing) {
      parallel_for(on.rows, kActivationCost * units, [=](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) row(r, nullptr);
      });
    }
  }
};

// So many rows are looked through for zeros, where their products take time.
template <class T>
inline int64_t searched_rows(const DenseArrays<T>& on) {
  const bool large = on.in > 1 && on.units > 1 && on.rows * on.in * on.units >= kLargeProduct;
  return large ? on.rows : 0;
}

// The parts of backward's workspace, in bytes.
template <class T>
struct DenseSpace {
  int64_t gradient, sums, places, product;

  DenseSpace(const DenseParams& params, const DenseArrays<T>& on, bool has_bias) {
    gradient = params.activates ? line_bytes<T>(on.rows * on.units) : 0;
    sums = has_bias ? line_bytes<Acc<T>>(row_blocks(on.rows) * on.units) : 0;
    places = line_bytes<int64_t>(searched_rows(on));
    Factor<T> g = {nullptr, on.rows, on.units, false}, x = on.data();
    product = of_products(g, on.weight(), x);
    if (places == 0) return;
    static const int64_t kSome = 0;
    g.places = x.places = &kSome;
    product = at_least(product, of_products(g, on.weight(), x));
  }

  static int64_t of_products(const Factor<T>& g, const Factor<T>& w, const Factor<T>& x) {
    return at_least(product_workspace(1, g, w), product_workspace(1, g.flipped(), x));
  }
};

template <class T>
inline int64_t dense_workspace(const DenseParams& params, const DenseArrays<T>& on, bool has_bias,
                               bool backward) {
  if (!backward) return product_workspace(1, on.data(), on.weight().flipped());
  const DenseSpace<T> space(params, on, has_bias);
  return space.gradient + space.sums + space.places + space.product;
}

// db may be null.  on.y: the result of forward.
template <class T>
inline void dense_backward(const DenseParams& params, DenseArrays<T> on, const T* dy, T* dx, T* dw,
                           T* db, void* workspace) {
  const DenseSpace<T> space(params, on, db != nullptr);
  char* next = static_cast<char*>(workspace);
  if (params.activates) on.g = reinterpret_cast<T*>(next);
  next += space.gradient;
  run_dense(params, DenseOutputGradient<T>{on, dy, db, reinterpret_cast<Acc<T>*>(next)});
  next += space.sums;
  Factor<T> g = {params.activates ? on.g : dy, on.rows, on.units, false}, x = on.data();
  int64_t* places = reinterpret_cast<int64_t*>(next);
  next += space.places;
  const int64_t count = nonzero_rows(g.data, searched_rows(on), on.units, places);
  const Factor<T> some = {g.data, count, on.units, false, places};
  const Factor<T> those = {x.data, count, on.in, false, places};
  if (skips_rows(count, searched_rows(on)) &&
      space.of_products(some, on.weight(), those) <= space.product) {
    g = some;
    x = those;
  }
  multiply(1, g, on.weight(), dx, next);
  if (g.places) spread_rows(places, count, on.rows, on.in, dx);
  multiply(1, g.flipped(), x, dw, next);
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_DENSE_H_
