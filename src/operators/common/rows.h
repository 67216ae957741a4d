// Arrays seen as (rows, cols), the last axis being a row, and sums over the rows of such arrays.
//
// The rows are summed in blocks, and the blocks then in order, by a rule that looks at their number
// only: the result is the same for any number of threads.
#ifndef D2L_COMMON_ROWS_H_
#define D2L_COMMON_ROWS_H_

#include "half.h"

namespace d2l {
inline namespace D2L_ISA {

D2L_HOST_DEVICE inline int64_t rows_of(const Shape& shape) {
  return volume(shape, 0, shape.ndim - 1);
}

// A single number is a row of its own.
D2L_HOST_DEVICE inline int64_t cols_of(const Shape& shape) {
  return shape.ndim > 0 ? shape.dim[shape.ndim - 1] : 1;
}

// The shape of an array with one entry for each row.  MXNet's legacy arrays have no shape (), so
// the entry of a single row has shape (1,).
inline Shape shape_of_rows(Shape shape) {
  if (--shape.ndim == 0) shape = {1, {1}};
  return shape;
}

// Bytes of the type in which values of dtype are summed.
D2L_HOST_DEVICE inline int64_t acc_size(DType dtype) {
  return dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
}

// The rows of one block: at least 32, and never more than 256 blocks.
D2L_HOST_DEVICE inline int64_t rows_per_block(int64_t rows) {
  const int64_t even = (rows + 255) / 256;
  return even < 32 ? 32 : even;
}

D2L_HOST_DEVICE inline int64_t row_blocks(int64_t rows) {
  return (rows + rows_per_block(rows) - 1) / rows_per_block(rows);
}

}  // namespace D2L_ISA
}  // namespace d2l

#ifdef D2L_CPU_KERNELS

#include "parallel.h"

namespace d2l {
inline namespace D2L_ISA {

template <class T>
inline void fill(T* y, int64_t n, T value) {
  for (int64_t i = 0; i < n; ++i) y[i] = value;
}

// count sums of cols entries each over the rows.  add(r, sums) adds row r to the count * cols sums;
// finish(i, total) gets the total of sum i.  cost: element operations of one row.  workspace:
// row_blocks(rows) * count * cols values of A.
template <class A, class Add, class Finish>
inline void sum_over_rows(int64_t rows, int64_t cols, int count, int64_t cost, A* workspace,
                          const Add& add, const Finish& finish) {
  const int64_t block = rows_per_block(rows), blocks = row_blocks(rows), width = count * cols;
  parallel_for(blocks, block * cost, [=](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      A* sums = workspace + b * width;
      for (int64_t i = 0; i < width; ++i) sums[i] = 0;
      const int64_t last = (b + 1) * block < rows ? (b + 1) * block : rows;
      for (int64_t r = b * block; r < last; ++r) add(r, sums);
    }
  });
  // Double costs nothing here and keeps the error of many blocks that of a single one.
  parallel_for(width, blocks, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double total = 0;
      for (int64_t b = 0; b < blocks; ++b) total += workspace[b * width + i];
      finish(i, static_cast<A>(total));
    }
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_CPU_KERNELS

#endif  // D2L_COMMON_ROWS_H_
