// Rows of a table, scaled, plus rows for positions and segments: the inputs of a Transformer
// (Vaswani et al., 2017, sections 3.4 and 3.5) and of BERT (Devlin et al., 2018, figure 2).
//
//   y_r = scale * weight[data_r] + position[r % steps] + segment_weight[segments_r]
//
// The last two are optional.  An index outside of its table counts as the nearest inside (a kernel
// cannot fail, and MXNet's Embedding does the same), a fraction is dropped.
// Layout: y, dy are (rows, cols), row-major, steps rows after one another making an example; weight
// (vocab, cols), position (max_steps, cols) with max_steps >= steps, segment_weight (count, cols).
// Saved for backward: nothing.
// Gradient: dweight_v = scale * sum of dy_r over the r with data_r = v, in this order, and 0 for a
// v that does not occur; dsegment_weight likewise; dposition_t = sum of dy_r over r % steps = t.
//
// A gradient is zeroed as one block of memory, and only rows that occur are touched after that:
// each of them is read through the list of its r and written once.  The threads share out the
// columns, so the order of a sum, which is in double, does not depend on how many there are.
#ifndef D2L_EMBEDDING_H_
#define D2L_EMBEDDING_H_

#include "common/indices.h"
#include "common/rows.h"

namespace d2l {
inline namespace D2L_ISA {

struct EmbeddingParams {
  double scale = 1;
};

// position and segment_weight are null where they are not given.
template <class T>
struct EmbeddingInputs {
  const T* weight;
  Indices data;
  int64_t vocab;
  const T* position;
  int64_t max_steps;
  const T* segment_weight;
  Indices segments;
  int64_t num_segments;
  int64_t rows, steps, cols;
  Acc<T> scale;
};

template <class T>
inline EmbeddingInputs<T> embedding_inputs(const EmbeddingParams& params, const Tensor* in) {
  const Shape& shape = in[1].shape;
  EmbeddingInputs<T> inputs;
  inputs.weight = data<T>(in[0]);
  inputs.vocab = in[0].shape.dim[0];
  inputs.cols = in[0].shape.dim[1];
  inputs.data = {in[1].data, in[1].dtype};
  inputs.rows = volume(shape);
  inputs.steps = cols_of(shape);
  inputs.position = data<T>(in[2]);
  inputs.max_steps = given(in[2]) ? in[2].shape.dim[1] : 0;
  inputs.segment_weight = data<T>(in[3]);
  inputs.num_segments = given(in[3]) ? in[3].shape.dim[0] : 0;
  inputs.segments = {in[4].data, in[4].dtype};
  inputs.scale = static_cast<Acc<T>>(params.scale);
  return inputs;
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include <string.h>

#include "common/parallel.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T, bool kPosition, bool kSegment>
inline void embedding_row(const T* weight, const T* position, const T* segment, Acc<T> scale,
                          int64_t cols, T* y) {
#pragma omp simd
  for (int64_t i = 0; i < cols; ++i) {
    Acc<T> value = load(weight[i]) * scale;
    if (kPosition) value += load(position[i]);
    if (kSegment) value += load(segment[i]);
    y[i] = store<T>(value);
  }
}

template <class T, bool kPosition, bool kSegment>
inline void embedding_rows(const EmbeddingInputs<T>& in, T* y) {
  parallel_for(in.rows, in.cols, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* weight = in.weight + in.data.at(r, in.vocab) * in.cols;
      const T* position = kPosition ? in.position + r % in.steps * in.cols : nullptr;
      const T* segment =
          kSegment ? in.segment_weight + in.segments.at(r, in.num_segments) * in.cols : nullptr;
      embedding_row<T, kPosition, kSegment>(weight, position, segment, in.scale, in.cols,
                                            y + r * in.cols);
    }
  });
}

template <class T>
inline void embedding_forward(const EmbeddingInputs<T>& in, T* y) {
  if (in.position) {
    in.segment_weight ? embedding_rows<T, true, true>(in, y)
                      : embedding_rows<T, true, false>(in, y);
  } else {
    in.segment_weight ? embedding_rows<T, false, true>(in, y)
                      : embedding_rows<T, false, false>(in, y);
  }
}

// out = scale * the sum of rows first, next(first), ... of dy until next is negative, in columns
// begin .. end - 1.
template <class T, class Next>
inline void sum_linked_rows(const T* dy, int64_t cols, int64_t first, const Next& next,
                            Acc<T> scale, int64_t begin, int64_t end, T* out) {
  typedef Acc<T> A;
  if (next(first) < 0) {
    const T* row = dy + first * cols;
#pragma omp simd
    for (int64_t c = begin; c < end; ++c) out[c] = store<T>(load(row[c]) * scale);
    return;
  }
  constexpr int kTile = 128;
  for (int64_t c = begin; c < end; c += kTile) {
    const int width = static_cast<int>(end - c < kTile ? end - c : kTile);
    double sums[kTile];
    for (int i = 0; i < width; ++i) sums[i] = 0;
    for (int64_t r = first; r >= 0; r = next(r)) {
      const T* row = dy + r * cols + c;
#pragma omp simd
      for (int i = 0; i < width; ++i) sums[i] += load(row[i]);
    }
    for (int i = 0; i < width; ++i) out[c + i] = store<T>(static_cast<A>(sums[i] * scale));
  }
}

constexpr int64_t kColsOfThread = 32;  // whole cache lines, or nearly

// Calls body(begin, end) for pieces of the columns; cost: element operations of one column.
template <class Body>
inline void parallel_columns(int64_t cols, int64_t cost, const Body& body) {
  parallel_for((cols + kColsOfThread - 1) / kColsOfThread, kColsOfThread * cost,
               [=](int64_t begin, int64_t end) {
                 const int64_t last = end * kColsOfThread;
                 body(begin * kColsOfThread, last < cols ? last : cols);
               });
}

// Bytes as whole cache lines, so that no two threads write into the same one.
inline void zero_rows(void* p, int64_t bytes) {
  constexpr int64_t kPiece = 4096;
  parallel_for((bytes + kPiece - 1) / kPiece, kPiece / 64, [=](int64_t begin, int64_t end) {
    const int64_t last = end * kPiece < bytes ? end * kPiece : bytes;
    memset(static_cast<char*>(p) + begin * kPiece, 0, last - begin * kPiece);
  });
}

// The 32-bit integers that table_gradient needs.
inline int64_t table_workspace(int64_t rows, int64_t count) { return count + 2 * rows; }

// The gradient of a table of count rows from which row index.at(r, count) was taken for each r.
template <class T>
inline void table_gradient(const T* dy, const Indices& index, int64_t rows, int64_t cols,
                           int64_t count, Acc<T> scale, T* dtable, int32_t* workspace) {
  if (count * cols == 0) return;
  // For each row of the table a list of its r in rising order: first, then next.
  int32_t *first = workspace, *next = first + count, *used = next + rows;
  int64_t num_used = 0;
  memset(first, 0xff, count * sizeof(int32_t));  // -1: empty
  for (int64_t r = rows - 1; r >= 0; --r) {
    const int64_t v = index.at(r, count);
    if (first[v] < 0) used[num_used++] = static_cast<int32_t>(v);
    next[r] = first[v];
    first[v] = static_cast<int32_t>(r);
  }
  zero_rows(dtable, count * cols * sizeof(T));
  parallel_columns(cols, rows, [=](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < num_used; ++i) {
      const int64_t v = used[i];
      sum_linked_rows(
          dy, cols, first[v], [=](int64_t r) { return int64_t{next[r]}; }, scale, begin, end,
          dtable + v * cols);
    }
  });
}

template <class T>
inline void position_gradient(const T* dy, int64_t rows, int64_t steps, int64_t cols,
                              int64_t max_steps, T* dposition) {
  const int64_t summed = rows > 0 ? steps : 0;
  zero_rows(dposition + summed * cols, (max_steps - summed) * cols * sizeof(T));
  parallel_for(summed, rows / (steps > 0 ? steps : 1) * cols, [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      sum_linked_rows(
          dy, cols, t, [=](int64_t r) { return r + steps < rows ? r + steps : -1; }, Acc<T>(1), 0,
          cols, dposition + t * cols);
    }
  });
}

// dposition and dsegment_weight may be null.  workspace: table_workspace() of the larger table.
template <class T>
inline void embedding_backward(const EmbeddingInputs<T>& in, const T* dy, T* dweight, T* dposition,
                               T* dsegment_weight, int32_t* workspace) {
  table_gradient(dy, in.data, in.rows, in.cols, in.vocab, in.scale, dweight, workspace);
  if (dposition) {
    position_gradient(dy, in.rows, in.steps, in.cols, in.max_steps, dposition);
  }
  if (dsegment_weight) {
    table_gradient(dy, in.segments, in.rows, in.cols, in.num_segments, Acc<T>(1), dsegment_weight,
                   workspace);
  }
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_EMBEDDING_H_
