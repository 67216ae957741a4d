// Cross-correlation of pictures with a few square kernels, plus a bias: a convolution of stride 1.
//
//   y[n, o, i, j] = b[o] + sum over c, a, e of w[o, c, a, e] x[n, c, i + a - p, j + e - p]
//
// where x counts as 0 outside of its height and width.
// Layout: x (batch, in_channels, height, width), w (channels, in_channels, k, k), b (channels,) or
// absent, y (batch, channels, height + 2 p - k + 1, width + 2 p - k + 1).
// Saved for backward: nothing besides x and w.
// Gradient: dw[o, c, a, e] = sum over n, i, j of dy[n, o, i, j] x[n, c, i + a - p, j + e - p];
//   db[o] = sum over n, i, j of dy[n, o, i, j];
//   dx[n, c, i + a - p, j + e - p] = sum over o, a, e of w[o, c, a, e] dy[n, o, i, j].
//
// A picture is copied with its zeros into rows of one pitch.  There a step to a neighbour is the
// same distance everywhere, so a row of kernels works on the picture as on one long row: vectors
// run over places, and no axis has to be a multiple of anything.  At the ends of rows it computes
// places that nobody reads.  MXNet's own (oneDNN) vectors run over channels, of which it wants
// multiples of 16.
#ifndef D2L_CONV2D_H_
#define D2L_CONV2D_H_

#include "common/rows.h"

namespace d2l {
inline namespace D2L_ISA {

struct Conv2dParams {
  int64_t channels = 1;
  int64_t kernel_size = 1;
  int64_t padding = 0;
};

struct Conv2dSizes {
  int64_t batch, in_channels, height, width, channels, kernel, padding;

  D2L_HOST_DEVICE int64_t out_height() const { return height + 2 * padding - kernel + 1; }
  D2L_HOST_DEVICE int64_t out_width() const { return width + 2 * padding - kernel + 1; }
  D2L_HOST_DEVICE int64_t depth() const { return in_channels * kernel * kernel; }
};

inline Conv2dSizes conv2d_sizes(const Conv2dParams& params, const Shape& x) {
  return {x.dim[0],        x.dim[1],           x.dim[2],      x.dim[3],
          params.channels, params.kernel_size, params.padding};
}

template <class T>
struct Conv2dGradients {
  const T *dy, *x, *w;
  T *dx, *dw, *db;  // db: null where there is no bias
};

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include "common/tasks.h"

namespace d2l {
inline namespace D2L_ISA {

// Planes that are read at all places of a kernel: rows of pitch values, and after each plane zeros
// up to what its last vector may touch.
template <class A>
struct Grid {
  int64_t planes, rows, pitch;

  int64_t plane() const { return padded_to_vector<A>(rows * pitch) + kVectorLanes<A>; }
  int64_t size() const { return planes * plane(); }
  // Values from the first place of a height x width part of a plane to the last, in whole vectors.
  int64_t span(int64_t height, int64_t width) const {
    return padded_to_vector<A>((height - 1) * pitch + width);
  }
};

// to: the planes of from (planes, rows, cols), margin rows and columns into the grid, in zeros.
template <class T>
inline void place(const T* from, int64_t rows, int64_t cols, int64_t margin,
                  const Grid<Acc<T>>& grid, Acc<T>* to) {
  for (int64_t p = 0; p < grid.planes; ++p, to += grid.plane()) {
    fill(to, grid.plane(), Acc<T>(0));
    Acc<T>* row = to + margin * (grid.pitch + 1);
    for (int64_t r = 0; r < rows; ++r, row += grid.pitch, from += cols) {
#pragma omp simd
      for (int64_t c = 0; c < cols; ++c) row[c] = load(from[c]);
    }
  }
}

template <class A, int kRows, int kVectors>
inline void correlate_tile(const Grid<A>& x_grid, int64_t kernel, const A* w, const A* x, A* y,
                           int64_t span) {
  typedef typename Vector<A>::type V;
  const int64_t plane = x_grid.plane(), depth = x_grid.planes * kernel * kernel;
  V sum[kRows][kVectors] = {};
  for (int64_t c = 0; c < x_grid.planes; ++c) {
    for (int64_t a = 0; a < kernel; ++a) {
      const A* at = x + c * plane + a * x_grid.pitch;
      for (int64_t e = 0; e < kernel; ++e, ++at, ++w) {
        V row[kVectors];
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) {
          row[j] = *reinterpret_cast<const V*>(at + j * kVectorLanes<A>);
        }
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
          const A weight = w[i * depth];
#pragma GCC unroll 8
          for (int j = 0; j < kVectors; ++j) sum[i][j] += weight * row[j];
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      *reinterpret_cast<V*>(y + i * span + j * kVectorLanes<A>) = sum[i][j];
    }
  }
}

// Vectors in a tile of so many rows: its sums, a column of vectors and one more fill the registers.
constexpr int tile_vectors(int rows) {
#if defined(__AVX512F__)
  return rows > 6 ? 2 : rows > 2 ? 4 : 8;
#else
  return rows > 2 ? 2 : 4;
#endif
}

// kRows channels of y, from column 0 on.
template <class A, int kRows, int kVectors>
__attribute__((noinline)) void correlate_columns(const Grid<A>& x_grid, int64_t kernel, const A* w,
                                                 const A* x, A* y, int64_t span, int64_t j) {
  constexpr int kCols = kVectors * kVectorLanes<A>;
  for (; j + kCols <= span; j += kCols) {
    correlate_tile<A, kRows, kVectors>(x_grid, kernel, w, x + j, y + j, span);
  }
  if constexpr (kVectors > 1) {
    if (j < span) correlate_columns<A, kRows, kVectors / 2>(x_grid, kernel, w, x, y, span, j);
  }
}

// y (channels, span): the values of y at consecutive places of x's grid.
template <class A, int kRows = kTileRows>
inline void correlate(const Grid<A>& x_grid, int64_t kernel, const A* w, const A* x,
                      int64_t channels, A* y, int64_t span) {
  const int64_t depth = x_grid.planes * kernel * kernel;
  for (; channels >= kRows; channels -= kRows, w += kRows * depth, y += kRows * span) {
    correlate_columns<A, kRows, tile_vectors(kRows)>(x_grid, kernel, w, x, y, span, 0);
  }
  if constexpr (kRows > 1) {
    correlate<A, (kRows > 4 ? kRows - 2 : kRows / 2)>(x_grid, kernel, w, x, channels, y, span);
  }
}

template <class A>
inline A add_all(typename Vector<A>::type v) {
  constexpr int n = kVectorLanes<A>;
#pragma GCC unroll 4
  for (int width = n / 2; width; width /= 2) {
    typename Interleave<A>::Mask moved;
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) moved[i] = (i + width) % n;
    v += __builtin_shuffle(v, moved);
  }
  return v[0];
}

// sums[i * depth + e] += the products of plane i of dy with x moved by e columns, over pictures.
template <class A, int kRows, int kCols>
inline void weights_tile(int64_t pictures, const Grid<A>& dy_grid, const Grid<A>& x_grid,
                         const A* dy, const A* x, int64_t span, A* sums, int64_t depth) {
  typedef typename Vector<A>::type V;
  const int64_t plane = dy_grid.plane();
  V sum[kRows][kCols] = {};
  for (int64_t n = 0; n < pictures; ++n, dy += dy_grid.size(), x += x_grid.size()) {
    for (int64_t k = 0; k < span; k += kVectorLanes<A>) {
      V col[kCols];
#pragma GCC unroll 8
      for (int e = 0; e < kCols; ++e) col[e] = *reinterpret_cast<const V*>(x + k + e);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        const V row = *reinterpret_cast<const V*>(dy + i * plane + k);
#pragma GCC unroll 8
        for (int e = 0; e < kCols; ++e) sum[i][e] += row * col[e];
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int e = 0; e < kCols; ++e) sums[i * depth + e] += add_all<A>(sum[i][e]);
  }
}

#if defined(__AVX512F__)
constexpr int kTileShifts = 5;
#else
constexpr int kTileShifts = 3;
#endif

// One row of the kernels of kRows channels.
template <class A, int kRows, int kCols = kTileShifts>
__attribute__((noinline)) void weights_row(int64_t shifts, int64_t pictures, const Grid<A>& dy_grid,
                                           const Grid<A>& x_grid, const A* dy, const A* x,
                                           int64_t span, A* sums, int64_t depth) {
  for (; shifts >= kCols; shifts -= kCols, x += kCols, sums += kCols) {
    weights_tile<A, kRows, kCols>(pictures, dy_grid, x_grid, dy, x, span, sums, depth);
  }
  if constexpr (kCols > 1) {
    if (shifts == 0) return;
    weights_row<A, kRows, (kCols + 1) / 2>(shifts, pictures, dy_grid, x_grid, dy, x, span, sums,
                                           depth);
  }
}

// sums (channels, in_channels, kernel, kernel) += the gradient of w by some pictures.
template <class A, int kRows = 4>
inline void add_weights(int64_t kernel, int64_t pictures, const Grid<A>& dy_grid,
                        const Grid<A>& x_grid, const A* dy, const A* x, int64_t channels,
                        int64_t span, A* sums) {
  const int64_t depth = x_grid.planes * kernel * kernel;
  for (; channels >= kRows; channels -= kRows, dy += kRows * dy_grid.plane()) {
    for (int64_t c = 0; c < x_grid.planes; ++c) {
      for (int64_t a = 0; a < kernel; ++a) {
        weights_row<A, kRows>(kernel, pictures, dy_grid, x_grid, dy,
                              x + c * x_grid.plane() + a * x_grid.pitch, span,
                              sums + (c * kernel + a) * kernel, depth);
      }
    }
    sums += kRows * depth;
  }
  if constexpr (kRows > 1) {
    add_weights<A, kRows / 2>(kernel, pictures, dy_grid, x_grid, dy, x, channels, span, sums);
  }
}

// dx (on the grid of x) += w (channels, in_channels, kernel, kernel) times dy, of one picture.
// products: kernel^2 * span.
template <class A>
inline void add_data(int64_t kernel, const Grid<A>& dy_grid, const Grid<A>& x_grid, const A* w,
                     const A* dy, int64_t span, A* products, A* dx) {
  const int64_t square = kernel * kernel, depth = x_grid.planes * square;
  for (int64_t c = 0; c < x_grid.planes; ++c, w += square, dx += x_grid.plane()) {
    gemm<true>(square, span, dy_grid.planes, A(1), w, depth, panels_of_rows(dy, dy_grid.plane()),
               products, span, false);
    for (int64_t a = 0; a < kernel; ++a) {
      for (int64_t e = 0; e < kernel; ++e) {
        A* to = dx + a * x_grid.pitch + e;
        const A* from = products + (a * kernel + e) * span;
#pragma omp simd
        for (int64_t i = 0; i < span; ++i) to[i] += from[i];
      }
    }
  }
}

template <class A>
struct Conv2dForwardPlan {
  explicit Conv2dForwardPlan(const Conv2dSizes& s)
      : size(s),
        x{s.in_channels, s.height + 2 * s.padding, s.width + 2 * s.padding},
        span(x.span(s.out_height(), s.out_width())) {}

  Conv2dSizes size;
  Grid<A> x;
  int64_t span;
};

template <class A>
struct Conv2dForwardBuffers {
  Conv2dForwardBuffers(const Conv2dForwardPlan<A>& plan, Arena* arena)
      : x(arena->take<A>(plan.x.size())), y(arena->take<A>(plan.size.channels * plan.span)) {}

  A *x, *y;
};

// The pictures whose products are summed before they leave the registers, and how many values of
// them there may be: then they stay in a cache.
constexpr int64_t kPicturesAtOnce = 16, kValuesAtOnce = 1 << 17;

template <class A>
struct Conv2dBackwardPlan {
  explicit Conv2dBackwardPlan(const Conv2dSizes& s)
      : size(s),
        x{s.in_channels, s.height + 2 * s.padding, s.width + 2 * s.padding},
        dy{s.channels, s.out_height(), x.pitch},
        span(x.span(s.out_height(), s.out_width())),
        at_once(at_least(at_most(at_most(at_least(s.batch / 16, 4), kPicturesAtOnce),
                                 kValuesAtOnce / (x.size() + dy.size() + 1)),
                         1)),
        block(at_least(at_once, blocks_of(s.batch, 256))) {}

  int64_t blocks() const { return blocks_of(size.batch, block); }
  int64_t weights() const { return size.channels * size.depth(); }
  // Sums of one block: of the weights, then of the biases.
  int64_t sums() const { return weights() + size.channels; }

  Conv2dSizes size;
  Grid<A> x, dy;
  int64_t span, at_once, block;  // block: pictures of one task
};

template <class A>
struct Conv2dBackwardBuffers {
  Conv2dBackwardBuffers(const Conv2dBackwardPlan<A>& plan, Arena* arena)
      : x(arena->take<A>(plan.at_once * plan.x.size())),
        dy(arena->take<A>(plan.at_once * plan.dy.size())),
        products(arena->take<A>(plan.size.kernel * plan.size.kernel * plan.span)),
        dx(arena->take<A>(plan.x.size())) {}

  A *x, *dy, *products, *dx;
};

template <class A>
inline int64_t conv2d_workspace(const Conv2dSizes& size, bool backward) {
  const int64_t weights = line_bytes<A>(size.channels * size.depth());
  if (!backward) {
    const Conv2dForwardPlan<A> plan(size);
    return weights + lanes_of<Conv2dForwardBuffers<A>>(plan, size.batch) *
                         bytes_of<Conv2dForwardBuffers<A>>(plan);
  }
  const Conv2dBackwardPlan<A> plan(size);
  return weights + line_bytes<A>(plan.blocks() * plan.sums()) +
         lanes_of<Conv2dBackwardBuffers<A>>(plan, plan.blocks()) *
             bytes_of<Conv2dBackwardBuffers<A>>(plan);
}

// b: null where there is no bias.
template <class T>
inline void conv2d_forward(const Conv2dSizes& s, const T* x, const T* w, const T* b, T* y,
                           void* workspace) {
  typedef Acc<T> A;
  const int64_t height = s.out_height(), width = s.out_width(), count = s.channels * s.depth();
  Arena arena = {reinterpret_cast<uintptr_t>(workspace)};
  A* weights = arena.take<A>(count);
  copy_rows(w, count, 1, count, weights, count);
  const Conv2dForwardPlan<A> plan(s);
  for_tasks<Conv2dForwardBuffers<A>>(
      plan, s.batch, count * height * width, reinterpret_cast<void*>(arena.next),
      [=](int64_t n, const Conv2dForwardBuffers<A>& buffers) {
        place(x + n * s.in_channels * s.height * s.width, s.height, s.width, s.padding, plan.x,
              buffers.x);
        correlate(plan.x, s.kernel, weights, buffers.x, s.channels, buffers.y, plan.span);
        T* out = y + n * s.channels * height * width;
        for (int64_t o = 0; o < s.channels; ++o) {
          const A bias = b ? load(b[o]) : A(0);
          const A* row = buffers.y + o * plan.span;
          for (int64_t i = 0; i < height; ++i, row += plan.x.pitch, out += width) {
#pragma omp simd
            for (int64_t j = 0; j < width; ++j) out[j] = store<T>(row[j] + bias);
          }
        }
      });
}

// The pictures first .. last - 1, at most at_once: their dx, and their part of the sums.
template <class T>
inline void conv2d_backward_pictures(const Conv2dBackwardPlan<Acc<T>>& plan,
                                     const Conv2dGradients<T>& to, const Acc<T>* w, int64_t first,
                                     int64_t last, const Conv2dBackwardBuffers<Acc<T>>& buffers,
                                     Acc<T>* sums) {
  typedef Acc<T> A;
  const Conv2dSizes& s = plan.size;
  const int64_t places = s.out_height() * s.out_width(), picture = s.height * s.width;
  for (int64_t n = first; n < last; ++n) {
    const T* dy = to.dy + n * s.channels * places;
    A* grid = buffers.dy + (n - first) * plan.dy.size();
    place(to.x + n * s.in_channels * picture, s.height, s.width, s.padding, plan.x,
          buffers.x + (n - first) * plan.x.size());
    place(dy, s.out_height(), s.out_width(), 0, plan.dy, grid);
    for (int64_t o = 0; o < s.channels; ++o) {
      const T* row = dy + o * places;
      sums[plan.weights() + o] += sum<A>(places, [row](int64_t i) { return load(row[i]); });
    }
    fill(buffers.dx, plan.x.size(), A(0));
    add_data(s.kernel, plan.dy, plan.x, w, grid, plan.span, buffers.products, buffers.dx);
    for (int64_t c = 0; c < s.in_channels; ++c) {
      store_rows(buffers.dx + c * plan.x.plane() + s.padding * (plan.x.pitch + 1), plan.x.pitch,
                 s.height, s.width, to.dx + (n * s.in_channels + c) * picture, s.width);
    }
  }
  add_weights(s.kernel, last - first, plan.dy, plan.x, buffers.dy, buffers.x, s.channels, plan.span,
              sums);
}

template <class T>
inline void conv2d_backward(const Conv2dSizes& s, const Conv2dGradients<T>& to, void* workspace) {
  typedef Acc<T> A;
  const Conv2dBackwardPlan<A> plan(s);
  const int64_t count = plan.weights();
  Arena arena = {reinterpret_cast<uintptr_t>(workspace)};
  A* weights = arena.take<A>(count);
  A* sums = arena.take<A>(plan.blocks() * plan.sums());
  copy_rows(to.w, count, 1, count, weights, count);
  for_tasks<Conv2dBackwardBuffers<A>>(
      plan, plan.blocks(), 2 * plan.block * count * s.out_height() * s.out_width(),
      reinterpret_cast<void*>(arena.next),
      [=](int64_t task, const Conv2dBackwardBuffers<A>& buffers) {
        fill(sums + task * plan.sums(), plan.sums(), A(0));
        const int64_t end = at_most((task + 1) * plan.block, s.batch);
        for (int64_t n = task * plan.block; n < end; n += plan.at_once) {
          conv2d_backward_pictures(plan, to, weights, n, at_most(n + plan.at_once, end), buffers,
                                   sums + task * plan.sums());
        }
      });
  parallel_for(plan.sums(), plan.blocks(), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double total = 0;
      for (int64_t block = 0; block < plan.blocks(); ++block) {
        total += sums[block * plan.sums() + i];
      }
      if (i < count) {
        to.dw[i] = store<T>(static_cast<A>(total));
      } else if (to.db) {
        to.db[i - count] = store<T>(static_cast<A>(total));
      }
    }
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_CONV2D_H_
