// Products of batches of matrices, of transposed factors or not: out[n] = A[n] B[n].
//
// On the CPU a product goes by the micro-kernel of gemm.h.  What it can read where it stands is not
// copied: factors of float32 or float64 that fit into the first cache.  A right factor that several
// tasks read is packed once for all of them.  Everything is cut by shapes alone, so results do not
// depend on the number of threads.
#ifndef D2L_COMMON_PRODUCTS_H_
#define D2L_COMMON_PRODUCTS_H_

#include "op.h"

namespace d2l {
inline namespace D2L_ISA {

struct ProductSizes {
  int64_t batch, rows, cols, depth;
};

// One side of the products: a matrix (rows, cols) of each example, stored by columns if transposed.
// If there are places, the matrix is made of some rows of the array: of its rows, or of its columns
// if it is transposed.  Only for a left factor or one that is not transposed, of a single example,
// and not in the CUDA twins.
template <class T>
struct Factor {
  const T* data;
  int64_t rows, cols;
  bool transposed;
  const int64_t* places = nullptr;

  D2L_HOST_DEVICE int64_t stride() const { return transposed ? rows : cols; }
  D2L_HOST_DEVICE const T* at(int64_t example, int64_t row, int64_t col) const {
    return data + example * rows * cols + (transposed ? col * rows + row : row * cols + col);
  }
  // The same array, whose matrices are taken for their transposes.
  Factor flipped() const { return {data, cols, rows, !transposed, places}; }
};

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include "tasks.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int64_t kDepthBlock = 256;
constexpr int64_t kColBlock = 256;
constexpr int64_t kRowBlock = 8 * kTileRows;
constexpr int64_t kProductTasks = 16;          // at least, if there are enough rows
constexpr int64_t kLeastRows = 8 * kTileRows;  // of a task whose example is shared
constexpr int64_t kFirstCache = 1 << 15;       // bytes
constexpr int64_t kLastCache = 1 << 23;        // beyond it the next example is fetched ahead
constexpr int64_t kFetchedAhead = 1 << 18;     // bytes, at most
constexpr int64_t kRowsWorthACopy = 32;        // by how many B is read
constexpr int64_t kMostShared = 1 << 26;       // bytes of right factors that are packed at once

// How products are cut and what of them is copied.
template <class T>
struct ProductPlan {
  typedef Acc<T> A;
  static constexpr bool kInPlace = sizeof(T) == sizeof(A);
  ProductSizes size;
  bool a_transposed, copies_a, copies_b, shares_b;
  int64_t range, chunk;  // rows of a task, and of those that meet all columns in turn
  int64_t col_block, depth_block, result_cols;

  ProductPlan(int64_t batch, const Factor<T>& a, const Factor<T>& b)
      : size({batch, a.rows, b.cols, a.cols}),
        a_transposed(a.transposed),
        range(rows_of_task(size)),
        col_block(at_most(kColBlock, padded_to_vector<A>(size.cols))),
        depth_block(at_most(kDepthBlock, size.depth)) {
    const bool fits = depth_block * col_block * static_cast<int64_t>(sizeof(A)) <= kFirstCache;
    chunk = fits && size.rows >= 4 * kTileRows ? kTileRows : 8 * kTileRows;
    copies_a =
        !kInPlace || a.places ||
        (a_transposed && depth_block * size.rows * static_cast<int64_t>(sizeof(A)) > kFirstCache);
    copies_b = !kInPlace || b.places || b.transposed ||
               (range >= kRowsWorthACopy &&
                depth_block * size.cols * static_cast<int64_t>(sizeof(A)) > kFirstCache);
    const int64_t shared_bytes = shared() * static_cast<int64_t>(sizeof(A));
    shares_b = copies_b && ranges() > 1 && shared_bytes > 0 && shared_bytes <= kMostShared;
    result_cols = !kInPlace ? col_block : size.cols % kVectorLanes<A> ? kVectorLanes<A> : 0;
  }

  // Where B is not shared, each task packs what it needs of it.
  static int64_t rows_of_task(const ProductSizes& size) {
    const int64_t pieces = blocks_of(kProductTasks, at_least(1, size.batch));
    const int64_t share = at_least(kLeastRows, blocks_of(size.rows, pieces));
    return at_least(
        1, at_most(size.rows, at_most(kRowBlock, blocks_of(share, kTileRows) * kTileRows)));
  }
  int64_t ranges() const { return blocks_of(size.rows, range); }
  // Values of all right factors as panels.
  int64_t shared() const { return size.batch * packed_size<A>(size.cols, size.depth); }
  // Where among them those of an example begin, from a row on that is the first of a block of
  // depth, and from a column on that is the first of a block of columns, which cols there are of.
  int64_t shared_at(int64_t example, int64_t k, int64_t col, int64_t cols) const {
    return packed_size<A>(size.cols, size.depth) * example + col * size.depth +
           packed_size<A>(cols, k);
  }
};

template <class T>
struct ProductBuffers {
  typedef Acc<T> A;
  A *a, *b, *c;

  ProductBuffers(const ProductPlan<T>& plan, Arena* arena) {
    const int64_t cols = plan.shares_b ? 0 : plan.copies_b ? plan.col_block : kVectorLanes<A>;
    a = arena->take<A>(plan.copies_a ? plan.range * plan.depth_block : 0);
    b = arena->take<A>(packed_size<A>(cols, plan.depth_block));
    c = arena->take<A>(plan.range * plan.result_cols);
  }
};

// What the next task reads comes into the cache while this one computes, a share at a time.
class Ahead {
 public:
  Ahead(const void* from, int64_t bytes, int64_t shares)
      : next_(static_cast<const char*>(from)),
        end_(next_ + (bytes <= kFetchedAhead ? bytes : 0)),
        share_(line_bytes<char>(blocks_of(bytes, at_least(1, shares)))) {}

  void fetch() {
    const char* until = end_ - next_ < share_ ? end_ : next_ + share_;
    for (; next_ < until; next_ += 64) __builtin_prefetch(next_, 0, 2);
    next_ = until;
  }

 private:
  const char *next_, *end_;
  int64_t share_;
};

// One task: some rows of one product.
template <class T>
struct ProductTask {
  const ProductPlan<T>& plan;
  const ProductBuffers<T>& buf;
  const Factor<T>&a, &b;
  const Acc<T>* shared;
  int64_t example, row, rows;
  T* out;
  Ahead *ahead_a, *ahead_b;
};

// Rows and columns of the array of a factor's example, whose columns begin at from.
template <class T>
inline void copy_part(const Factor<T>& factor, const T* from, int64_t row, int64_t rows,
                      int64_t cols, Acc<T>* to, int64_t ld) {
  const int64_t stride = factor.stride(), *places = factor.places;
  if (!places) return copy_rows(from + row * stride, stride, rows, cols, to, ld);
  for (int64_t r = 0; r < rows; ++r) {
    if (r + kFetchedRows < rows) fetch_row(from + places[row + r + kFetchedRows] * stride, cols);
    copy_rows(from + places[row + r] * stride, stride, 1, cols, to + r * ld, ld);
  }
}

// Rows of the left factor, and where gemm finds them.
template <class T>
inline const Acc<T>* left_rows(const ProductTask<T>& task, int64_t k, int64_t depth,
                               int64_t* stride) {
  const Factor<T>& a = task.a;
  if constexpr (ProductPlan<T>::kInPlace) {
    *stride = a.stride();
    if (!task.plan.copies_a) return a.at(task.example, task.row, k);
  }
  const int64_t row = a.transposed ? k : task.row, col = a.transposed ? task.row : k;
  *stride = a.transposed ? task.rows : depth;
  copy_part(a, a.data + task.example * a.rows * a.cols + col, row, a.transposed ? depth : task.rows,
            *stride, task.buf.a, *stride);
  return task.buf.a;
}

// Some rows and columns of a right factor as packed_panels.
template <class T>
inline void pack_right(const Factor<T>& b, int64_t example, int64_t k, int64_t depth, int64_t col,
                       int64_t cols, Acc<T>* to) {
  typedef Acc<T> A;
  if (b.transposed) return pack_transposed(b.at(example, k, col), b.stride(), cols, depth, to);
  const T* from = b.at(example, 0, col);
  for (int64_t j = 0; j < cols; j += kPanel<A>) {
    copy_part(b, from + j, k, depth, at_most(kPanel<A>, cols - j), to + j * depth, kPanel<A>);
  }
}

// All right factors, by which every task finds its blocks.
template <class T>
inline void pack_shared(const ProductPlan<T>& plan, const Factor<T>& b, Acc<T>* shared) {
  const ProductSizes& size = plan.size;
  const int64_t across = blocks_of(size.cols, plan.col_block);
  const int64_t down = blocks_of(size.depth, plan.depth_block);
  const int64_t cost = plan.col_block * plan.depth_block / 4;
  parallel_for(size.batch * across * down, cost, [=, &plan](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t example = t / down / across, k = t % down * plan.depth_block;
      const int64_t col = t / down % across * plan.col_block;
      const int64_t cols = at_most(plan.col_block, plan.size.cols - col);
      pack_right(b, example, k, at_most(plan.depth_block, plan.size.depth - k), col, cols,
                 shared + plan.shared_at(example, k, col, cols));
    }
  });
}

// Columns of the right factor in panels.
template <class T>
inline Panels<Acc<T>> right_panels(const ProductTask<T>& task, int64_t k, int64_t depth,
                                   int64_t col, int64_t cols) {
  typedef Acc<T> A;
  const Factor<T>& b = task.b;
  if (task.shared) {
    return packed_panels(task.shared + task.plan.shared_at(task.example, k, col, cols), depth);
  }
  if constexpr (ProductPlan<T>::kInPlace) {
    // The last vector of a row may go on into the next row, but not past the array.
    const T *from = b.at(task.example, k, col),
            *end = b.data + task.plan.size.batch * b.rows * b.cols;
    const int64_t reach = (depth - 1) * b.stride() + padded_to_vector<A>(cols);
    if (!task.plan.copies_b && reach <= end - from) return panels_of_rows(from, b.stride());
  }
  pack_right(b, task.example, k, depth, col, cols, task.buf.b);
  return packed_panels(task.buf.b, depth);
}

// c = or += some rows by panels.
template <class A>
inline void add_product(bool a_transposed, int64_t rows, int64_t cols, int64_t depth, const A* a,
                        int64_t lda, const Panels<A>& b, A* c, int64_t ldc, bool add) {
  if (a_transposed) {
    gemm<true>(rows, cols, depth, A(1), a, lda, b, c, ldc, add);
  } else {
    gemm<false>(rows, cols, depth, A(1), a, lda, b, c, ldc, add);
  }
}

// The panels from column col on, which is the first of a vector.
template <class A>
inline Panels<A> from_column(const Panels<A>& panels, int64_t col) {
  return {panels.data + col / kPanel<A> * panels.panel + col % kPanel<A>, panels.ld, panels.panel};
}

// Columns col .. col + cols - 1.  The whole vectors of a row are summed up where they belong, the
// rest (all, if T is not what is summed) in the buffer.
template <class T>
inline void multiply_block(const ProductTask<T>& task, int64_t col, int64_t cols) {
  typedef Acc<T> A;
  const ProductPlan<T>& plan = task.plan;
  const int64_t whole = ProductPlan<T>::kInPlace ? cols / kVectorLanes<A> * kVectorLanes<A> : 0;
  const int64_t rest = padded_to_vector<A>(cols - whole), width = plan.size.cols;
  T* out = task.out + col;
  int64_t k = 0;
  do {  // once even without depth, which makes zeros
    const int64_t depth = at_most(plan.depth_block, plan.size.depth - k);
    int64_t lda;
    const A* left = left_rows(task, k, depth, &lda);
    // Where rows are read in place, the last ones of all may have to be copied for the rest.
    const bool apart = !plan.copies_b && rest > 0;
    Panels<A> right = right_panels(task, k, depth, col, apart ? whole : cols);
    const Panels<A> last =
        apart ? right_panels(task, k, depth, col + whole, cols - whole) : from_column(right, whole);
    int64_t i = 0;
    for (int64_t chunks = blocks_of(task.rows, plan.chunk); chunks > 0; --chunks) {
      const int64_t rows = blocks_of(task.rows - i, chunks);
      const A* from = left + (plan.a_transposed ? i : i * lda);
      task.ahead_a->fetch();
      task.ahead_b->fetch();
      if constexpr (ProductPlan<T>::kInPlace) {
        add_product(plan.a_transposed, rows, whole, depth, from, lda, right, out + i * width, width,
                    k > 0);
      }
      add_product(plan.a_transposed, rows, rest, depth, from, lda, last, task.buf.c + i * rest,
                  rest, k > 0);
      i += rows;
    }
    k += plan.depth_block;
  } while (k < plan.size.depth);
  store_rows(task.buf.c, rest, task.rows, cols - whole, out + whole, width);
}

// One row by a matrix that is stored by columns: sums over consecutive memory, of four columns at
// a time.
template <class T>
inline void multiply_row(const Factor<T>& b, const T* row, int64_t example, T* out) {
  typedef Acc<T> A;
  int64_t j = 0;
  for (; j + 4 <= b.cols; j += 4) {
    const T *p = b.at(example, 0, j), *q = p + b.rows, *r = q + b.rows, *s = r + b.rows;
    A x0 = 0, x1 = 0, x2 = 0, x3 = 0;
#pragma omp simd reduction(+ : x0, x1, x2, x3)
    for (int64_t k = 0; k < b.rows; ++k) {
      const A x = load(row[k]);
      x0 += x * load(p[k]);
      x1 += x * load(q[k]);
      x2 += x * load(r[k]);
      x3 += x * load(s[k]);
    }
    out[j] = store<T>(x0);
    out[j + 1] = store<T>(x1);
    out[j + 2] = store<T>(x2);
    out[j + 3] = store<T>(x3);
  }
  for (; j < b.cols; ++j) {
    const T* p = b.at(example, 0, j);
    A x = 0;
#pragma omp simd reduction(+ : x)
    for (int64_t k = 0; k < b.rows; ++k) x += load(row[k]) * load(p[k]);
    out[j] = store<T>(x);
  }
}

// Rows and columns of a tile of dot products, whose sums are whole vectors.
#if defined(__AVX512F__)
constexpr int kDotRows = 4;
#else
constexpr int kDotRows = 2;
#endif
constexpr int kDotCols = 4;
constexpr int64_t kFewRows = 32;    // so few do not pay for packing a right factor
constexpr int64_t kLongRow = 1024;  // bytes: a shorter sum is not worth adding up vectors

// sums[i * kDotCols + j] = <rows[i], cols[j]>, over consecutive memory.
template <class A>
inline void dot_tile(const A* const* rows, const A* const* cols, int64_t depth, A* sums) {
  typedef typename Vector<A>::type V;
  constexpr int n = kVectorLanes<A>, kSums = kDotRows * kDotCols;
  static_assert(kSums % n == 0, "the sums are whole squares");
  V sum[kSums] = {};
  int64_t k = 0;
  for (; k + n <= depth; k += n) {
    V col[kDotCols];
#pragma GCC unroll 4
    for (int j = 0; j < kDotCols; ++j) col[j] = *reinterpret_cast<const V*>(cols[j] + k);
#pragma GCC unroll 4
    for (int i = 0; i < kDotRows; ++i) {
      const V row = *reinterpret_cast<const V*>(rows[i] + k);
#pragma GCC unroll 4
      for (int j = 0; j < kDotCols; ++j) sum[i * kDotCols + j] += row * col[j];
    }
  }
#pragma GCC unroll 16
  for (int first = 0; first < kSums; first += n) {
    transpose_square<A>(sum + first);
    V total = sum[first];
    for (int i = 1; i < n; ++i) total += sum[first + i];
    *reinterpret_cast<V*>(sums + first) = total;
  }
  for (; k < depth; ++k) {
    for (int i = 0; i < kSums; ++i) sums[i] += rows[i / kDotCols][k] * cols[i % kDotCols][k];
  }
}

template <class T>
inline bool has_few_rows(const ProductSizes& size, const Factor<T>& a, const Factor<T>& b) {
  return ProductPlan<T>::kInPlace && size.rows > 1 && size.rows <= kFewRows && !a.places &&
         !a.transposed && b.transposed && size.depth * static_cast<int64_t>(sizeof(T)) >= kLongRow;
}

// Few rows by matrices that are stored by columns: nothing is packed.
template <class A>
inline void multiply_few_rows(const ProductSizes& size, const Factor<A>& a, const Factor<A>& b,
                              A* out) {
  const int64_t groups = blocks_of(size.cols, kDotCols);
  const int64_t cost = kDotCols * size.rows * (size.depth / 8 + 1);
  parallel_for(size.batch * groups, cost, [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t example = t / groups, j = t % groups * kDotCols;
      const A *rows[kDotRows], *cols[kDotCols];
      for (int c = 0; c < kDotCols; ++c) cols[c] = b.at(example, 0, at_most(j + c, size.cols - 1));
      for (int64_t i = 0; i < size.rows; i += kDotRows) {
        for (int r = 0; r < kDotRows; ++r) {
          rows[r] = a.at(example, at_most(i + r, size.rows - 1), 0);
        }
        A sums[kDotRows * kDotCols];
        dot_tile(rows, cols, size.depth, sums);
        A* to = out + (example * size.rows + i) * size.cols + j;
        for (int64_t r = 0; r < kDotRows && i + r < size.rows; ++r) {
          for (int64_t c = 0; c < kDotCols && j + c < size.cols; ++c) {
            to[r * size.cols + c] = sums[r * kDotCols + c];
          }
        }
      }
    }
  });
}

// A single column is a single row of the transposed product.
template <class T>
inline bool is_column(const Factor<T>& a, const Factor<T>& b) {
  return b.cols == 1 && a.rows > 1;
}

// Bytes of workspace that multiply needs.
template <class T>
inline int64_t product_workspace(int64_t batch, const Factor<T>& a, const Factor<T>& b) {
  if (is_column(a, b)) return product_workspace(batch, b.flipped(), a.flipped());
  const ProductPlan<T> plan(batch, a, b);
  return (plan.shares_b ? line_bytes<Acc<T>>(plan.shared()) : 0) +
         lanes_of<ProductBuffers<T>>(plan, batch * plan.ranges()) *
             bytes_of<ProductBuffers<T>>(plan);
}

// As multiply, but for single columns.
template <class T, class Finish>
inline void multiply_rows(int64_t batch, const Factor<T>& a, const Factor<T>& b, T* out,
                          void* workspace, const Finish& finish) {
  const ProductSizes size = {batch, a.rows, b.cols, a.cols};
  if constexpr (ProductPlan<T>::kInPlace) {
    if (has_few_rows(size, a, b)) {
      multiply_few_rows(size, a, b, out);
      return finish(int64_t{0}, batch * size.rows, out);
    }
  }
  const ProductPlan<T> plan(batch, a, b);
  Acc<T>* shared = nullptr;
  if (plan.shares_b) {
    shared = static_cast<Acc<T>*>(workspace);
    workspace = static_cast<char*>(workspace) + line_bytes<Acc<T>>(plan.shared());
    pack_shared(plan, b, shared);
  }
  const bool far =
      batch * (a.rows + b.cols) * a.cols > kLastCache / static_cast<int64_t>(sizeof(T));
  const int64_t ranges = plan.ranges(), cost = plan.range * size.cols * (size.depth / 8 + 1);
  for_tasks<ProductBuffers<T>>(
      plan, batch * ranges, cost, workspace, [=](int64_t t, const ProductBuffers<T>& buf) {
        const int64_t example = t / ranges, row = t % ranges * plan.range;
        const int64_t rows = at_most(plan.range, size.rows - row),
                      place = example * size.rows + row;
        T* to = out + place * size.cols;
        if (size.rows == 1 && b.transposed) {
          multiply_row(b, a.at(example, 0, 0), example, to);
          return finish(place, rows, to);
        }
        // Of the next example: small ones have one task each.
        const int64_t bytes = far && example + 1 < batch ? sizeof(T) : 0;
        const int64_t shares = blocks_of(size.rows, plan.chunk);
        Ahead ahead_a(a.data + (example + 1) * a.rows * a.cols, bytes * a.rows * a.cols, shares);
        Ahead ahead_b(b.data + (example + 1) * b.rows * b.cols, bytes * b.rows * b.cols, shares);
        const ProductTask<T> task = {plan, buf,  a,  b,        shared,  example,
                                     row,  rows, to, &ahead_a, &ahead_b};
        for (int64_t col = 0; col < size.cols; col += plan.col_block) {
          multiply_block(task, col, at_most(plan.col_block, size.cols - col));
        }
        finish(place, rows, to);
      });
}

// out (batch, a.rows, b.cols) = a b.  finish(row, rows, out) gets rows of the result that are
// done and still in a cache; row counts those of all examples.
template <class T, class Finish>
inline void multiply(int64_t batch, const Factor<T>& a, const Factor<T>& b, T* out, void* workspace,
                     const Finish& finish) {
  if (!is_column(a, b)) return multiply_rows(batch, a, b, out, workspace, finish);
  multiply_rows(batch, b.flipped(), a.flipped(), out, workspace,
                [=](int64_t example, int64_t, T* to) { finish(example * a.rows, a.rows, to); });
}

template <class T>
inline void multiply(int64_t batch, const Factor<T>& a, const Factor<T>& b, T* out,
                     void* workspace) {
  multiply(batch, a, b, out, workspace, [](int64_t, int64_t, T*) {});
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_COMMON_PRODUCTS_H_
