// The CUDA twin of embedding.h: same formulas, layout and indices.
//
// For the gradient of a table the r are sorted by their index, stably and without atomics (a radix
// sort by 8 bits at a time), so that the r of a row stand in a run and in rising order; a block
// then adds up a run and writes the row once.  The longest run decides how long that takes.
#include "common/cuda.h"
#include "embedding.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kEmbeddingThreads = 256;

template <class T, int kVector>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_forward_packs(EmbeddingInputs<T> in, int64_t packs, T* __restrict__ y) {
  typedef Acc<T> A;
  typedef Pack<T, kVector> P;
  const int64_t in_row = in.cols / kVector;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kEmbeddingThreads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kEmbeddingThreads + threadIdx.x;
  for (; i < packs; i += stride) {
    const int64_t r = i / in_row, c = i % in_row * kVector;
    const P token = *reinterpret_cast<const P*>(in.weight + in.data.at(r, in.vocab) * in.cols + c);
    A sum[kVector];
#pragma unroll
    for (int k = 0; k < kVector; ++k) sum[k] = load(token.value[k]) * in.scale;
    if (in.position) {
      const P added = *reinterpret_cast<const P*>(in.position + r % in.steps * in.cols + c);
#pragma unroll
      for (int k = 0; k < kVector; ++k) sum[k] += load(added.value[k]);
    }
    if (in.segment_weight) {
      const int64_t segment = in.segments.at(r, in.num_segments);
      const P added = *reinterpret_cast<const P*>(in.segment_weight + segment * in.cols + c);
#pragma unroll
      for (int k = 0; k < kVector; ++k) sum[k] += load(added.value[k]);
    }
    P result;
#pragma unroll
    for (int k = 0; k < kVector; ++k) result.value[k] = store<T>(sum[k]);
    *reinterpret_cast<P*>(y + i * kVector) = result;
  }
}

template <class T, int kVector>
int launch_embedding_forward(const EmbeddingInputs<T>& in, T* y, void* stream) {
  const int64_t packs = in.rows * in.cols / kVector;
  return launch_rows(embedding_forward_packs<T, kVector>, kEmbeddingThreads, kEmbeddingThreads,
                     packs, stream, in, packs, y);
}

template <class T>
int embedding_forward(const EmbeddingInputs<T>& in, T* y, void* stream) {
  if (in.rows * in.cols == 0) return 0;
  constexpr int kWide = 16 / sizeof(T);
  if (in.cols % kWide == 0 && aligned(16, {in.weight, in.position, in.segment_weight, y})) {
    return launch_embedding_forward<T, kWide>(in, y, stream);
  }
  return launch_embedding_forward<T, 1>(in, y, stream);
}

// ---- Sorting 0 .. n - 1 by the row of a table of count rows that each of them names ----

constexpr int kDigits = 256;  // also the threads of a block, and the numbers in its tile

struct SortPass {
  Indices index;
  int64_t n, count;
  int shift;             // the digit in this pass: bits shift .. shift + 7
  const int32_t* order;  // from the pass before; null in the first
  int32_t* places;       // (kDigits, tiles): how many of a tile have a digit, then where they go
  int64_t tiles;

  __device__ int32_t at(int64_t i) const { return order ? order[i] : static_cast<int32_t>(i); }
  // -1 past the end.
  __device__ int digit(int64_t i) const {
    return i < n ? static_cast<int>(index.at(at(i), count) >> shift) % kDigits : -1;
  }
};

typedef int DigitTile[kDigits];

__global__ void __launch_bounds__(kDigits) sort_count(SortPass pass) {
  D2L_SHARED(digit, DigitTile);
  const int t = threadIdx.x;
  digit[t] = pass.digit(static_cast<int64_t>(blockIdx.x) * kDigits + t);
  __syncthreads();
  int total = 0;
  for (int i = 0; i < kDigits; ++i) total += digit[i] == t;
  pass.places[t * pass.tiles + blockIdx.x] = total;
}

// One block.
__global__ void __launch_bounds__(kDigits) sort_places(SortPass pass) {
  D2L_SHARED(total, DigitTile);
  int32_t* place = pass.places + threadIdx.x * pass.tiles;
  int sum = 0;
  for (int64_t tile = 0; tile < pass.tiles; ++tile) sum += place[tile];
  total[threadIdx.x] = sum;
  __syncthreads();
  int next = 0;
  for (int d = 0; d < static_cast<int>(threadIdx.x); ++d) next += total[d];
  for (int64_t tile = 0; tile < pass.tiles; ++tile) {
    const int own = place[tile];
    place[tile] = next;
    next += own;
  }
}

__global__ void __launch_bounds__(kDigits) sort_move(SortPass pass, int32_t* __restrict__ sorted) {
  D2L_SHARED(digit, DigitTile);
  const int t = threadIdx.x;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kDigits + t;
  digit[t] = pass.digit(i);
  __syncthreads();
  if (i >= pass.n) return;
  int before = 0;
  for (int j = 0; j < t; ++j) before += digit[j] == digit[t];
  sorted[pass.places[digit[t] * pass.tiles + blockIdx.x] + before] = pass.at(i);
}

inline int64_t sort_tiles(int64_t n) { return (n + kDigits - 1) / kDigits; }

// The 32-bit integers that sort_indices needs.
inline int64_t sort_workspace(int64_t n) { return 2 * n + kDigits * sort_tiles(n); }

// *order becomes a part of the workspace.
inline int sort_indices(const Indices& index, int64_t n, int64_t count, int32_t* workspace,
                        const int32_t** order, void* stream) {
  SortPass pass = {index, n, count, 0, nullptr, workspace + 2 * n, sort_tiles(n)};
  const unsigned tiles = static_cast<unsigned>(pass.tiles);
  int32_t *sorted = workspace, *other = workspace + n;
  do {
    if (int status = launch(sort_count, tiles, kDigits, stream, pass)) return status;
    if (int status = launch(sort_places, 1, kDigits, stream, pass)) return status;
    if (int status = launch(sort_move, tiles, kDigits, stream, pass, sorted)) return status;
    pass.order = sorted;
    sorted = other;
    other = const_cast<int32_t*>(pass.order);
    pass.shift += 8;
  } while ((count - 1) >> pass.shift > 0);
  *order = pass.order;
  return 0;
}

// ---- Gradients ----

constexpr int kRunThreads = 128;

// A block for each run.
template <class T>
__global__ void __launch_bounds__(kRunThreads)
    embedding_sum_runs(const T* __restrict__ dy, Indices index, const int32_t* __restrict__ order,
                       int64_t n, int64_t cols, int64_t count, Acc<T> scale,
                       T* __restrict__ dtable) {
  for (int64_t begin = blockIdx.x; begin < n; begin += gridDim.x) {
    const int64_t row = index.at(order[begin], count);
    if (begin > 0 && index.at(order[begin - 1], count) == row) continue;
    int64_t end = begin + 1;
    while (end < n && index.at(order[end], count) == row) ++end;
    for (int64_t c = threadIdx.x; c < cols; c += kRunThreads) {
      double sum = 0;
#pragma unroll 4
      for (int64_t i = begin; i < end; ++i) sum += load(dy[order[i] * cols + c]);
      dtable[row * cols + c] = store<T>(static_cast<Acc<T>>(sum * scale));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_position_gradient(const T* __restrict__ dy, int64_t examples, int64_t steps,
                                int64_t cols, int64_t entries, T* __restrict__ dposition) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kEmbeddingThreads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kEmbeddingThreads + threadIdx.x;
  for (; i < entries; i += stride) {
    double sum = 0;
    if (i < steps * cols) {
#pragma unroll 4
      for (int64_t b = 0; b < examples; ++b) sum += load(dy[b * steps * cols + i]);
    }
    dposition[i] = store<T>(static_cast<Acc<T>>(sum));
  }
}

template <class T>
int table_gradient(const T* dy, const Indices& index, int64_t rows, int64_t cols, Acc<T> scale,
                   const Tensor& dtable, int32_t* workspace, void* stream) {
  if (int status = zero(dtable, stream)) return status;
  if (rows * cols == 0) return 0;
  const int64_t count = dtable.shape.dim[0];
  const int32_t* order;
  if (int status = sort_indices(index, rows, count, workspace, &order, stream)) return status;
  return launch_rows(embedding_sum_runs<T>, kRunThreads, 1, rows, stream, dy, index, order, rows,
                     cols, count, scale, data<T>(dtable));
}

template <class T>
int position_gradient(const T* dy, int64_t rows, int64_t steps, int64_t cols,
                      const Tensor& dposition, void* stream) {
  const int64_t entries = volume(dposition.shape);
  if (entries == 0) return 0;
  return launch_rows(embedding_position_gradient<T>, kEmbeddingThreads, kEmbeddingThreads, entries,
                     stream, dy, steps > 0 ? rows / steps : 0, steps, cols, entries,
                     data<T>(dposition));
}

struct EmbeddingCuda {
  typedef EmbeddingParams Params;
  static constexpr const char* kName = "embedding";

  static int64_t workspace(const Params&, const Tensor* in, bool backward) {
    return backward ? sort_workspace(volume(in[1].shape)) * sizeof(int32_t) : 0;
  }

  template <class T>
  static int forward(const Params& params, const Call& call, const Resources& resources) {
    return embedding_forward(embedding_inputs<T>(params, call.inputs), data<T>(call.outputs[0]),
                             resources.stream);
  }

  template <class T>
  static int backward(const Params& params, const Call& call, const Resources& resources) {
    const EmbeddingInputs<T> in = embedding_inputs<T>(params, call.inputs);
    const Tensor* grad = call.grad_inputs;
    const T* dy = data<T>(call.grad_outputs[0]);
    int32_t* workspace = static_cast<int32_t*>(resources.workspace);
    void* stream = resources.stream;
    int status =
        table_gradient(dy, in.data, in.rows, in.cols, in.scale, grad[0], workspace, stream);
    if (!status && given(grad[2])) {
      status = position_gradient(dy, in.rows, in.steps, in.cols, grad[2], stream);
    }
    if (!status && given(grad[3])) {
      status =
          table_gradient(dy, in.segments, in.rows, in.cols, Acc<T>(1), grad[3], workspace, stream);
    }
    if (!status) status = zero(grad[1], stream);
    if (!status && given(grad[4])) status = zero(grad[4], stream);
    return status;
  }
};

D2L_REGISTER_CUDA_OP(EmbeddingCuda);

}  // namespace D2L_ISA
}  // namespace d2l
