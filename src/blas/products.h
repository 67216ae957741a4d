// Matrix products over several threads, each of which calls a BLAS that uses one.
//
// C is cut into pieces; a thread computes its piece with one call.  Sums are not cut, so that the
// pieces are independent.  The threads are OpenMP's, whose number MXNet sets in each of its own
// threads: there is no second pool beside it, calls from several of MXNet's threads do not wait
// for each other, and inside a parallel region a product keeps to its thread.
#ifndef D2L_BLAS_PRODUCTS_H_
#define D2L_BLAS_PRODUCTS_H_

#include <omp.h>
#include <stdint.h>

#include <cmath>

namespace d2l {

// The values of CBLAS's enumerations.
enum { kRowMajor = 101, kNoTrans = 111, kTrans = 112, kUpper = 121, kLeft = 141 };

// S: how alpha and beta are passed, by value or, where they are complex, by address.
template <class S>
using GemmFunction = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, S alpha,
                              const void* a, int lda, const void* b, int ldb, S beta, void* c,
                              int ldc);
template <class S>
using SyrkFunction = void (*)(int order, int uplo, int trans, int n, int k, S alpha, const void* a,
                              int lda, S beta, void* c, int ldc);
template <class S>
using TrmmFunction = void (*)(int order, int side, int uplo, int trans, int diag, int m, int n,
                              S alpha, const void* a, int lda, void* b, int ldb);

// Most threads for a product: at first what OpenBLAS has buffers for without asking for more.
inline int max_threads = 64;
// Set in the thread that has called fork(), in the child: OpenMP's other threads are gone there,
// and waiting for them hangs.  Threads that the child starts have a pool of their own.
inline thread_local bool has_forked = false;

// Below this many multiplications a thread costs more than it brings.
constexpr double kWorkPerThread = 250000;
// Pieces begin at multiples of this: whole vectors of the kernels, whole cache lines.
constexpr int64_t kStep = 16;

inline int threads_for(double multiplications) {
  const double worth = multiplications / kWorkPerThread;
  if (worth < 2) return 1;
  int threads = omp_get_max_threads();
  if (threads > max_threads) threads = max_threads;
  if (threads <= 1 || omp_in_parallel() || has_forked) return 1;
  return worth < threads ? static_cast<int>(worth) : threads;
}

struct Range {
  int begin, size;
};

// The part of 0 .. n - 1 between two fractions of it.
inline Range range(int n, double from, double to) {
  const auto cut = [n](double fraction) {
    const int64_t steps = static_cast<int64_t>(std::llround(fraction * n / kStep));
    return fraction >= 1 || steps * kStep > n ? n : static_cast<int>(steps * kStep);
  };
  const int begin = cut(from);
  return {begin, cut(to) - begin};
}

inline Range range(int n, int i, int parts) {
  return range(n, static_cast<double>(i) / parts, static_cast<double>(i + 1) / parts);
}

// Element (i, j) of op(X) stands at i * row + j * column.
struct Strides {
  int64_t row, column;
};

inline Strides strides(int order, int trans, int ld) {
  return (order == kRowMajor) == (trans == kNoTrans) ? Strides{ld, 1} : Strides{1, ld};
}

inline const char* shifted(const void* x, int64_t elements, int size) {
  return static_cast<const char*>(x) + elements * size;
}
inline char* shifted(void* x, int64_t elements, int size) {
  return static_cast<char*>(x) + elements * size;
}

// How many rows of pieces: each piece reads its rows of A and its columns of B, few of them if it
// is nearly square.
inline int rows_of_pieces(int m, int n, int threads) {
  int best = 1;
  double least = INFINITY;
  for (int rows = 1; rows <= threads; ++rows) {
    const double read = static_cast<double>(m) / rows + static_cast<double>(n) * rows / threads;
    if (threads % rows == 0 && read < least) {
      least = read;
      best = rows;
    }
  }
  return best;
}

// Calls body(piece) for 0 .. pieces - 1, each in a thread of its own where there are as many.
template <class Body>
inline void parallel(int pieces, const Body& body) {
#pragma omp parallel for num_threads(pieces) schedule(static, 1)
  for (int i = 0; i < pieces; ++i) body(i);
}

// C = alpha op(A) op(B) + beta C; C is m x n, the sums have k terms, elements have `size` bytes.
template <class S>
void gemm(GemmFunction<S> call, int size, int order, int trans_a, int trans_b, int m, int n, int k,
          S alpha, const void* a, int lda, const void* b, int ldb, S beta, void* c, int ldc) {
  const int threads = threads_for(static_cast<double>(m) * n * k);
  if (threads == 1) {
    call(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    return;
  }
  const int rows = rows_of_pieces(m, n, threads), columns = threads / rows;
  const Strides in_a = strides(order, trans_a, lda), in_b = strides(order, trans_b, ldb);
  const Strides in_c = strides(order, kNoTrans, ldc);
  parallel(threads, [&](int piece) {
    const Range i = range(m, piece / columns, rows), j = range(n, piece % columns, columns);
    if (i.size == 0 || j.size == 0) return;
    call(order, trans_a, trans_b, i.size, j.size, k, alpha, shifted(a, i.begin * in_a.row, size),
         lda, shifted(b, j.begin * in_b.column, size), ldb, beta,
         shifted(c, i.begin * in_c.row + j.begin * in_c.column, size), ldc);
  });
}

// One triangle of C = alpha op(A) op(A)^T + beta C; C is n x n.  A piece is some rows of the
// triangle: a smaller triangle at the diagonal and the rectangle beside it.
template <class S>
void syrk(SyrkFunction<S> call, GemmFunction<S> rectangle, int size, int order, int uplo, int trans,
          int n, int k, S alpha, const void* a, int lda, S beta, void* c, int ldc) {
  const int threads = threads_for(static_cast<double>(n) * n / 2 * k);
  if (threads == 1) {
    call(order, uplo, trans, n, k, alpha, a, lda, beta, c, ldc);
    return;
  }
  const int other = trans == kNoTrans ? kTrans : kNoTrans;
  const Strides in_a = strides(order, trans, lda), in_c = strides(order, kNoTrans, ldc);
  const bool upper = uplo == kUpper;
  // The first rows of the lower triangle are its short ones; the upper one is the same reversed.
  const auto border = [&](int i) {
    const double part = static_cast<double>(i) / threads;
    return upper ? 1 - std::sqrt(1 - part) : std::sqrt(part);
  };
  parallel(threads, [&](int piece) {
    const Range i = range(n, border(piece), border(piece + 1));
    if (i.size == 0) return;
    const Range j = upper ? Range{i.begin + i.size, n - i.begin - i.size} : Range{0, i.begin};
    const char* rows = shifted(a, i.begin * in_a.row, size);
    char* row = shifted(c, i.begin * in_c.row, size);
    call(order, uplo, trans, i.size, k, alpha, rows, lda, beta,
         shifted(row, i.begin * in_c.column, size), ldc);
    if (j.size == 0) return;
    rectangle(order, trans, other, i.size, j.size, k, alpha, rows, lda,
              shifted(a, j.begin * in_a.row, size), lda, beta,
              shifted(row, j.begin * in_c.column, size), ldc);
  });
}

// B = alpha op(A) B or alpha B op(A) with a triangular A; B is m x n.
template <class S>
void trmm(TrmmFunction<S> call, int size, int order, int side, int uplo, int trans, int diag, int m,
          int n, S alpha, const void* a, int lda, void* b, int ldb) {
  const bool left = side == kLeft;
  const int pieces = threads_for(static_cast<double>(m) * n * (left ? m : n) / 2);
  if (pieces == 1) {
    call(order, side, uplo, trans, diag, m, n, alpha, a, lda, b, ldb);
    return;
  }
  const Strides in_b = strides(order, kNoTrans, ldb);
  parallel(pieces, [&](int piece) {
    const Range own = range(left ? n : m, piece, pieces);
    if (own.size == 0) return;
    call(order, side, uplo, trans, diag, left ? m : own.size, left ? own.size : n, alpha, a, lda,
         shifted(b, own.begin * (left ? in_b.column : in_b.row), size), ldb);
  });
}

}  // namespace d2l

#endif  // D2L_BLAS_PRODUCTS_H_
