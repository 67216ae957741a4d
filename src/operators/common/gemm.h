// Matrix products inside operators: a micro-kernel that keeps a tile of the result in registers,
// and the packing that it reads.
//
//   C = alpha * A B  (or added to C),  A (rows, depth), B (depth, cols), C (rows, cols)
//
// B is read as panels of kPanel columns, so that the inner loop reads consecutive memory; A is read
// an element at a time, by rows (lda between rows) or, transposed, by columns (lda between those).
// Columns come in whole vectors: whoever owns B and C pads them (padded_to_vector), B with zeros.
// Every element of C is one sum in the order of depth, whatever the tile, so a result does not
// depend on how rows are split into calls.  Source: Goto and van de Geijn, Anatomy of
// High-Performance Matrix Multiplication, 2008.
#ifndef D2L_COMMON_GEMM_H_
#define D2L_COMMON_GEMM_H_

#include "reduce.h"
#include "stream.h"

namespace d2l {
inline namespace D2L_ISA {

// The rows of a tile: with two vectors of columns its sums fill most registers.
#if defined(__AVX512F__)
constexpr int kTileRows = 8;
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 4;
#endif

template <class A>
struct Vector {
  typedef A type __attribute__((vector_size(kVectorBytes), aligned(sizeof(A)), may_alias));
};
template <class A>
constexpr int kVectorLanes = kVectorBytes / static_cast<int>(sizeof(A));
template <class A>
constexpr int kPanel = 2 * kVectorLanes<A>;

template <class A>
inline int64_t padded_to_vector(int64_t cols) {
  return (cols + kVectorLanes<A> - 1) / kVectorLanes<A> * kVectorLanes<A>;
}

// Bytes of count values of A, in whole cache lines.
template <class A>
inline int64_t line_bytes(int64_t count) {
  return (count * static_cast<int64_t>(sizeof(A)) + 63) / 64 * 64;
}

// Element (k, j) of B stands at data[(j / kPanel) * panel + k * ld + j % kPanel].
template <class A>
struct Panels {
  const A* data;
  int64_t ld;
  int64_t panel;
};

// A row-major array with rows of ld values as it is.
template <class A>
inline Panels<A> panels_of_rows(const A* data, int64_t ld) {
  return {data, ld, kPanel<A>};
}

// What pack_transposed has written.
template <class A>
inline Panels<A> packed_panels(const A* data, int64_t depth) {
  return {data, kPanel<A>, kPanel<A> * depth};
}

template <class A, int kRows, int kVectors, bool kTransposed>
inline void gemm_tile(int64_t depth, A alpha, const A* a, int64_t lda, const A* b, int64_t ldb,
                      A* c, int64_t ldc, bool add) {
  typedef typename Vector<A>::type V;
  V sum[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    V row[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      row[j] = *reinterpret_cast<const V*>(b + j * kVectorLanes<A>);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const A x = kTransposed ? a[i] : a[i * lda];
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sum[i][j] += x * row[j];
    }
    a += kTransposed ? lda : 1;
    b += ldb;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      V* out = reinterpret_cast<V*>(c + i * ldc + j * kVectorLanes<A>);
      *out = add ? *out + alpha * sum[i][j] : alpha * sum[i][j];
    }
  }
}

// A tile of rows rows, at most kRows.
template <class A, int kRows, int kVectors, bool kTransposed>
inline __attribute__((always_inline)) void gemm_rows(int64_t rows, int64_t depth, A alpha,
                                                     const A* a, int64_t lda, const A* b,
                                                     int64_t ldb, A* c, int64_t ldc, bool add) {
  if (rows == kRows) {
    gemm_tile<A, kRows, kVectors, kTransposed>(depth, alpha, a, lda, b, ldb, c, ldc, add);
  } else if constexpr (kRows > 1) {
    gemm_rows<A, kRows - 1, kVectors, kTransposed>(rows, depth, alpha, a, lda, b, ldb, c, ldc, add);
  }
}

// The rows of one panel, in as few tiles as will do, all of about the same size: small ones wait
// for their own sums.  A function of its own: where it is inlined, the loops around it take
// registers from the tiles.
template <class A, int kVectors, bool kTransposed>
__attribute__((noinline)) void gemm_panel(int64_t rows, int64_t depth, A alpha, const A* a,
                                          int64_t lda, const A* b, int64_t ldb, A* c, int64_t ldc,
                                          bool add) {
  for (int64_t tiles = (rows + kTileRows - 1) / kTileRows; tiles > 0; --tiles) {
    const int64_t n = (rows + tiles - 1) / tiles;
    gemm_rows<A, kTileRows, kVectors, kTransposed>(n, depth, alpha, a, lda, b, ldb, c, ldc, add);
    rows -= n;
    a += kTransposed ? n : n * lda;
    c += n * ldc;
  }
}

// cols is a multiple of kVectorLanes.  C and B may not overlap.
template <bool kTransposed, class A>
inline void gemm(int64_t rows, int64_t cols, int64_t depth, A alpha, const A* a, int64_t lda,
                 const Panels<A>& b, A* c, int64_t ldc, bool add) {
  int64_t j = 0;
  for (; j + kPanel<A> <= cols; j += kPanel<A>) {
    gemm_panel<A, 2, kTransposed>(rows, depth, alpha, a, lda, b.data + j / kPanel<A> * b.panel,
                                  b.ld, c + j, ldc, add);
  }
  if (j < cols) {
    gemm_panel<A, 1, kTransposed>(rows, depth, alpha, a, lda, b.data + j / kPanel<A> * b.panel,
                                  b.ld, c + j, ldc, add);
  }
}

constexpr int64_t kFetchedRows = 8;  // before the one that is copied

// to (rows, ld) = from (rows, cols; rows are stride apart), zeros in the columns up to ld.
template <class T>
inline void copy_rows(const T* from, int64_t stride, int64_t rows, int64_t cols, Acc<T>* to,
                      int64_t ld) {
  for (int64_t r = 0; r < rows; ++r) {
    if (r + kFetchedRows < rows) fetch_row(from + (r + kFetchedRows) * stride, cols);
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c) to[r * ld + c] = load(from[r * stride + c]);
    for (int64_t c = cols; c < ld; ++c) to[r * ld + c] = 0;
  }
}

// to (rows, cols; rows are stride apart) = from (rows, ld); streamed as in store_row.
template <class T>
inline void store_rows(const Acc<T>* from, int64_t ld, int64_t rows, int64_t cols, T* to,
                       int64_t stride, bool streamed = false) {
  for (int64_t r = 0; r < rows; ++r) {
    const Acc<T>* row = from + r * ld;
    store_row(cols, to + r * stride, streamed, [=](int64_t c) { return row[c]; });
  }
}

template <class A>
struct Interleave {
  typedef typename Vector<A>::type V;
  typedef decltype(V{} < V{}) Mask;

  // The first (or last) half of a's lanes, each followed by b's.
  static inline __attribute__((always_inline)) void zip(V* a, V* b) {
    constexpr int n = kVectorLanes<A>;
    Mask low, high;
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      low[i] = i / 2 + (i % 2) * n;
      high[i] = low[i] + n / 2;
    }
    const V first = __builtin_shuffle(*a, *b, low), last = __builtin_shuffle(*a, *b, high);
    *a = first;
    *b = last;
  }
};

// A square of kVectorLanes rows in place.  log2(kVectorLanes) times, row i is interleaved with the
// row half of them below and the two results become rows 2 i and 2 i + 1.
template <class A>
inline void transpose_square(typename Vector<A>::type* rows) {
  typedef typename Vector<A>::type V;
  constexpr int n = kVectorLanes<A>;
#pragma GCC unroll 4
  for (int step = 1; step < n; step *= 2) {
    V next[n];
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = rows[i];
      next[2 * i + 1] = rows[i + n / 2];
      Interleave<A>::zip(&next[2 * i], &next[2 * i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) rows[i] = next[i];
  }
}

// The transpose of from (cols, depth; rows are stride apart) as packed_panels, columns up to
// padded_to_vector(cols) zero.  to: packed_size(cols, depth) values.
template <class T>
inline void pack_transposed(const T* from, int64_t stride, int64_t cols, int64_t depth,
                            Acc<T>* to) {
  typedef Acc<T> A;
  typedef typename Vector<A>::type V;
  constexpr int n = kVectorLanes<A>;
  for (int64_t j = 0; j < cols; j += n) {
    A* panel = to + j / kPanel<A> * kPanel<A> * depth + j % kPanel<A>;
    const int64_t width = cols - j < n ? cols - j : n;
    for (int64_t r = j + n; r < j + 2 * n && r < cols; ++r) fetch_row(from + r * stride, depth);
    for (int64_t k = 0; k < depth; k += n) {
      const int64_t height = depth - k < n ? depth - k : n;
      V square[n] = {};
      for (int64_t r = 0; r < width; ++r) {
        const T* row = from + (j + r) * stride + k;
        if (height == n) {
#pragma omp simd
          for (int i = 0; i < n; ++i) square[r][i] = load(row[i]);
        } else {
          for (int i = 0; i < height; ++i) square[r][i] = load(row[i]);
        }
      }
      transpose_square<A>(square);
      for (int64_t i = 0; i < height; ++i) {
        *reinterpret_cast<V*>(panel + (k + i) * kPanel<A>) = square[i];
      }
    }
  }
}

template <class A>
inline int64_t packed_size(int64_t cols, int64_t depth) {
  return (cols + kPanel<A> - 1) / kPanel<A> * kPanel<A> * depth;
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_GEMM_H_
