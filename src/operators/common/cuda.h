// What the CUDA twins share: launches, a row of a tensor in the registers of its threads, sums
// over a row, and registration.
//
// C++14, since users of mxnet-cu101 build with the nvcc of CUDA 10.1.  The same sources also run on
// a CPU, with tests/gpu/cuda_emulator.h in place of nvcc; so no <<< >>> here, and no __shared__.
//
// Nothing here waits for the device or allocates.  Sums are made in a fixed order, without atomics:
// the same device and shape give the same bits.  Another device may give other ones, since it runs
// another number of blocks.
#ifndef D2L_COMMON_CUDA_H_
#define D2L_COMMON_CUDA_H_

#include <initializer_list>
#include <type_traits>

#include "op.h"

// A variable that the threads of a block share.
#ifndef D2L_SHARED
#define D2L_SHARED(name, ...) __shared__ __VA_ARGS__ name
#endif

namespace d2l {
inline namespace D2L_ISA {

// ---- Launching.  These functions return 0, or CUDA's error number. ----

// The failure goes to the caller.  Left behind as the "last error" it would be taken for one of the
// next operator.  An error that has broken the context stays, whatever is done here.
inline int status_of(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return static_cast<int>(error);
}

// Keeps a parameter from being deduced, so that an argument converts to it.
template <class Type>
struct Identity {
  typedef Type type;
};

template <class... Params>
int launch(void (*kernel)(Params...), dim3 grid, dim3 block, void* stream,
           typename Identity<Params>::type... args) {
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&args))...};
  return status_of(
      cudaLaunchKernel(kernel, grid, block, pointers, 0, static_cast<cudaStream_t>(stream)));
}

inline int zero(const Tensor& tensor, void* stream) {
  const int64_t bytes = volume(tensor.shape) * size_of(tensor.dtype);
  if (bytes == 0) return 0;
  return status_of(cudaMemsetAsync(tensor.data, 0, bytes, static_cast<cudaStream_t>(stream)));
}

// The blocks to launch for `needed` ones that go through their work in strides of the grid: no
// more than the device runs at the same time, so that none of them starts when others are done.
template <class... Params>
int resident_blocks(void (*kernel)(Params...), int threads, int64_t needed, int* blocks) {
  int device = 0, processors = 0, each = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, 0);
  }
  const int64_t most = static_cast<int64_t>(processors) * (each > 0 ? each : 1);
  *blocks = static_cast<int>(needed < most ? needed : most);
  return status_of(error);
}

// Launches a kernel whose blocks have rows_of_block rows in hand at a time, and stride over rows.
template <class... Params>
int launch_rows(void (*kernel)(Params...), int threads, int rows_of_block, int64_t rows,
                void* stream, typename Identity<Params>::type... args) {
  int blocks;
  const int64_t needed = (rows + rows_of_block - 1) / rows_of_block;
  if (int status = resident_blocks(kernel, threads, needed, &blocks)) return status;
  return launch(kernel, blocks, threads, stream, args...);
}

// ---- A row in registers ----

// kThreads threads hold a row, each of them kItems entries, in runs of kVector neighbours.
template <int kThreadsOfRow, int kItemsOfThread, int kVectorWidth>
struct RowPlan {
  static constexpr int kThreads = kThreadsOfRow;
  static constexpr int kItems = kItemsOfThread;
  static constexpr int kVector = kVectorWidth;
  static constexpr int kBlock = kThreads < 128 ? 128 : kThreads;
  static constexpr int kRows = kBlock / kThreads;  // that a block has in hand at a time

  // For __launch_bounds__: the blocks of which a multiprocessor has room when a thread uses this
  // many registers for an item, and 32 besides.  Every one of them holds 1024 threads and 65536
  // registers.
  static constexpr int blocks(int registers_for_item) {
    const int by_registers = 65536 / (32 + registers_for_item * kItems);
    const int threads = by_registers < 1024 ? by_registers : 1024;
    return threads < kBlock ? 1 : threads / kBlock;
  }

  static __device__ int thread() { return threadIdx.x % kThreads; }
  static __device__ int group() { return threadIdx.x / kThreads; }
  static __device__ int64_t first_row() {
    return static_cast<int64_t>(blockIdx.x) * kRows + group();
  }
  static __device__ int64_t row_step() { return static_cast<int64_t>(gridDim.x) * kRows; }
  static __device__ int column(int item) {
    return (item / kVector * kThreads + thread()) * kVector + item % kVector;
  }
};

// One load or store of a thread.
template <class T, int n>
struct alignas(n * sizeof(T)) Pack {
  T value[n];
};

// item[i] = the row's entry in column Plan::column(i), or fill where that column is not below n.
// A pack is read if its first column is below n; n <= cols, and kVector divides cols.
template <class Plan, class T, class A>
__device__ inline void load_row(const T* row, int n, A fill, A (&item)[Plan::kItems]) {
  constexpr int kVector = Plan::kVector, kPacks = Plan::kItems / kVector;
  Pack<T, kVector> pack[kPacks];
  // All loads are under way before the first of them is used.
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int c = Plan::column(p * kVector);
    if (c < n) pack[p] = *reinterpret_cast<const Pack<T, kVector>*>(row + c);
  }
#pragma unroll
  for (int i = 0; i < Plan::kItems; ++i) {
    item[i] = Plan::column(i) < n ? load(pack[i / kVector].value[i % kVector]) : fill;
  }
}

template <class Plan, class T, class A>
__device__ inline void store_row(const A (&item)[Plan::kItems], int cols, T* row) {
  constexpr int kVector = Plan::kVector;
#pragma unroll
  for (int i = 0; i < Plan::kItems; i += kVector) {
    const int c = Plan::column(i);
    Pack<T, kVector> pack;
#pragma unroll
    for (int j = 0; j < kVector; ++j) pack.value[j] = store<T>(item[i + j]);
    if (c < cols) *reinterpret_cast<Pack<T, kVector>*>(row + c) = pack;
  }
}

// Rows that fit in no plan, and those of doubles, are read several times by a block of this size.
constexpr int kLongThreads = 512;

inline bool aligned(int bytes, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) return false;
  }
  return true;
}

// Packs are as wide as a thread can load.  The plans for single entries are fewer: every plan costs
// each operator four kernels, in every architecture.
template <class T, class Run>
int run_row_plan(int64_t cols, const Run& run, std::false_type) {
  constexpr int kSize = sizeof(T), kWide = 16 / kSize, kNarrow = kWide < 4 ? kWide : 4;
  if (cols <= 32 * 4 && cols % kNarrow == 0 && run.aligned_to(kNarrow * kSize)) {
    return run.template short_rows<RowPlan<32, 4, kNarrow>>();
  }
  if (cols % kWide == 0 && run.aligned_to(kWide * kSize)) {
    if (cols <= 32 * 8) return run.template short_rows<RowPlan<32, 8, kWide>>();
    if (cols <= 32 * 16) return run.template short_rows<RowPlan<32, 16, kWide>>();
    if (cols <= 128 * 8) return run.template short_rows<RowPlan<128, 8, kWide>>();
    if (cols <= 128 * 16) return run.template short_rows<RowPlan<128, 16, kWide>>();
    if (cols <= 256 * 16) return run.template short_rows<RowPlan<256, 16, kWide>>();
    if (cols <= 512 * 16) return run.template short_rows<RowPlan<512, 16, kWide>>();
  }
  if (cols <= 32 * 4) return run.template short_rows<RowPlan<32, 4, 1>>();
  if (cols <= 32 * 16) return run.template short_rows<RowPlan<32, 16, 1>>();
  if (cols <= 128 * 16) return run.template short_rows<RowPlan<128, 16, 1>>();
  return run.long_rows();
}

template <class T, class Run>
int run_row_plan(int64_t, const Run& run, std::true_type) {
  return run.long_rows();
}

// Calls run.short_rows<Plan>() with the plan for rows of cols entries, or run.long_rows() if there
// is none.  run.aligned_to(bytes): whether packs of that size may be read and written.
template <class T, class Run>
int run_by_row(int64_t cols, const Run& run) {
  return run_row_plan<T>(cols, run, std::is_same<T, double>());
}

// ---- Sums and maxima over a row ----

struct Sum {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return a + b;
  }
};

// Passes over NaN, as reduce.h's maximum may.
struct Maximum {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return fmax(a, b);
  }
};

// All lanes get the result, and the same bits: both sides of an exchange combine the same two.
template <class A, class Combine>
__device__ inline A warp_reduce(A value, const Combine& combine) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  return value;
}

// Reduces up to kMost values at a time over the kThreads threads of a row; all of them must call.
//
// A row of one warp needs no memory.  Otherwise the warps exchange their parts through scratch, of
// which there are two: a warp at the next reduction must not overwrite what a slower one still
// reads.  The barrier of that next reduction then makes the first scratch free again.
template <class A, int kThreads, int kMost>
class RowReduction {
 public:
  static constexpr int kWarps = kThreads / 32;
  struct Scratch {
    A part[2][kWarps][kMost];
  };

  __device__ explicit RowReduction(Scratch* scratch) : scratch_(scratch), turn_(0) {}

  template <int n, class Combine>
  __device__ void operator()(A (&value)[n], const Combine& combine) {
    static_assert(n <= kMost, "the scratch is too small");
#pragma unroll
    for (int k = 0; k < n; ++k) value[k] = warp_reduce(value[k], combine);
    if (kWarps == 1) return;
    A(*part)[kMost] = scratch_->part[turn_];
    turn_ ^= 1;
    if (threadIdx.x % 32 == 0) {
#pragma unroll
      for (int k = 0; k < n; ++k) part[threadIdx.x / 32][k] = value[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < n; ++k) {
      value[k] = part[0][k];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) value[k] = combine(value[k], part[w][k]);
    }
  }

 private:
  Scratch* scratch_;
  int turn_;
};

// ---- Registration ----

// A twin whose operator changes its inputs has kUpdates = true, and no backward.
template <class Twin>
std::integral_constant<bool, Twin::kUpdates> updates_inputs(int);
template <class Twin>
std::false_type updates_inputs(...);

// Twin: kName, workspace(), forward<T>() and backward<T>(), as in a definition (see op.h), and
// kByOutput if that has it, but the kernels return a status; its rules are those of the definition
// of the same name.
template <class Twin>
struct CudaRegistration {
  typedef typename Twin::Params Params;

  static int64_t workspace(const void* params, const Tensor* in, bool backward) {
    return Twin::workspace(*static_cast<const Params*>(params), in, backward);
  }
  static int forward(const Call& call, const Resources& resources) {
    const Params& params = *static_cast<const Params*>(call.params);
    switch (kernel_dtype<Twin>(call, nullptr)) {
      case DType::kFloat32: return Twin::template forward<float>(params, call, resources);
      case DType::kFloat64: return Twin::template forward<double>(params, call, resources);
      case DType::kFloat16: return Twin::template forward<half>(params, call, resources);
      default: return 0;  // the rules have refused it
    }
  }
  static int backward(const Call& call, const Resources& resources) {
    const Params& params = *static_cast<const Params*>(call.params);
    switch (kernel_dtype<Twin>(call, nullptr)) {
      case DType::kFloat32: return Twin::template backward<float>(params, call, resources);
      case DType::kFloat64: return Twin::template backward<double>(params, call, resources);
      case DType::kFloat16: return Twin::template backward<half>(params, call, resources);
      default: return 0;
    }
  }

  CudaRegistration() {
    register_op({Twin::kName, "cuda", nullptr, nullptr, 0, 0, 0, 0, 0, 0, nullptr, nullptr, nullptr,
                 workspace, forward,
                 backward_or_null<CudaRegistration>(decltype(updates_inputs<Twin>(0))())});
  }
};

}  // namespace D2L_ISA
}  // namespace d2l

#define D2L_REGISTER_CUDA_OP(Twin) static ::d2l::CudaRegistration<Twin> registration_of_##Twin

#endif  // D2L_COMMON_CUDA_H_
