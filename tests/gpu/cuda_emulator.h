// Runs CUDA kernels on a CPU, to find mistakes in them without a GPU.
//
// g++ compiles a .cu file with this header in front (-include) and D2L_EMULATE_CUDA defined. Blocks
// run one after the other, in a shuffled order.  Each thread of a block is a fibre with a stack of
// its own; it runs until it waits at a barrier or a shuffle, and which of the others goes on then
// is drawn at random (D2L_EMULATOR_SEED), in such a way that some warps are far ahead of others. So
// where a barrier is missing, a thread soon reads what is not there yet, or no longer: shared
// memory holds NaNs when a block starts.
//
// Errors end the launch with cudaErrorLaunchFailure, and d2l_emulator_message() says what was
// wrong: a launch that no GPU accepts, threads that wait for each other for ever or for one that
// has left the kernel, a shuffle with a lane outside its mask, a write past shared memory or past
// the stack. This is stricter than a GPU, which may get away with some of it.
//
// Not shown: speed; races between blocks, or between warps where every order gives the right
// result; memory that the device sees late; texture, tensor cores, asynchronous copies.
#ifndef D2L_CUDA_EMULATOR_H_
#define D2L_CUDA_EMULATOR_H_

#include <math.h>
#include <stdlib.h>

#include "emulated_block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

// A variable in shared memory, and the launch's dynamic shared memory.  A plain __shared__ does not
// compile: it could not be filled with NaNs for each block.
#define D2L_SHARED(name, ...) \
  __VA_ARGS__& name = *::d2l_emulator::shared<__VA_ARGS__>(::d2l_emulator::SiteKey<__COUNTER__>())
#define D2L_DYNAMIC_SHARED(name, Type) Type* name = ::d2l_emulator::dynamic_shared<Type>()

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
typedef struct d2l_emulated_stream* cudaStream_t;

namespace d2l_emulator {

// Lanes of the mask that exist: the last warp of a block may be smaller.
inline unsigned lanes_of(unsigned mask) {
  const State& s = state();
  const unsigned first = s.current / 32 * 32, count = s.threads - first;
  const unsigned lanes = count >= 32 ? mask : mask & ((1u << count) - 1);
  if (!(lanes >> lane() & 1)) fail_in_kernel("a lane that is not in the mask of its own call");
  return lanes;
}

template <class T>
inline T exchange(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8, "shuffles move 4 or 8 bytes");
  State& s = state();
  const unsigned lanes = lanes_of(mask);
  if (source > 31 || !(lanes >> source & 1)) {
    fail_in_kernel("a shuffle from a lane that is not in its mask");
  }
  Meeting* meeting = find_meeting(kShuffle, s.current / 32, lanes);
  uint64_t* slot = meeting->slot[meeting->turn % 2];
  memcpy(&slot[lane()], &value, sizeof value);
  wait_at(meeting, __builtin_popcount(lanes));
  T result;
  memcpy(&result, &slot[source], sizeof result);
  return result;
}

inline unsigned gather(unsigned mask, bool predicate) {
  State& s = state();
  const unsigned lanes = lanes_of(mask);
  Meeting* meeting = find_meeting(kGather, s.current / 32, lanes);
  uint64_t* slot = meeting->slot[meeting->turn % 2];
  slot[lane()] = predicate;
  wait_at(meeting, __builtin_popcount(lanes));
  unsigned bits = 0;
  for (unsigned i = 0; i < 32; ++i) {
    if (lanes >> i & 1) bits |= static_cast<unsigned>(slot[i]) << i;
  }
  return bits;
}

inline uint64_t setting(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text && *text ? strtoull(text, nullptr, 10) : otherwise;
}

inline cudaError_t refuse(const char* text, uint64_t number) {
  state().failed = false;
  fail("a launch with %s: %llu", text, static_cast<unsigned long long>(number));
  return cudaErrorInvalidConfiguration;
}

inline cudaError_t run(dim3 grid, dim3 block, size_t dynamic_bytes,
                       const std::function<void()>& body) {
  State& s = state();
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > 1024) return refuse("a bad number of threads", threads);
  if (block.z > 64) return refuse("too many threads in z", block.z);
  if (blocks == 0) return refuse("a bad number of blocks", blocks);
  if (grid.x > 0x7fffffffu) return refuse("too many blocks in x", grid.x);
  if (grid.y > 65535) return refuse("too many blocks in y", grid.y);
  if (grid.z > 65535) return refuse("too many blocks in z", grid.z);
  if (dynamic_bytes > kMostShared) return refuse("too much shared memory", dynamic_bytes);
  s.random = 0x9e3779b97f4a7c15ull * (2 * setting("D2L_EMULATOR_SEED", 1) + 1);
  s.threads = static_cast<unsigned>(threads);
  s.block_size = block;
  s.grid_size = grid;
  s.dynamic_bytes = dynamic_bytes;
  s.body = &body;
  s.failed = false;
  if (s.fibres.size() < threads) s.fibres.resize(threads, Fibre{nullptr, nullptr, false});
  const uint64_t first = draw(blocks);
  const bool backwards = draw(2) == 1;
  for (uint64_t i = 0; i < blocks && !s.failed; ++i) {
    const uint64_t b = (first + (backwards ? blocks - i : i)) % blocks;
    s.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
               static_cast<unsigned>(b / grid.x / grid.y)};
    run_block();
  }
  return s.failed ? cudaErrorLaunchFailure : cudaSuccess;
}

template <class... Params, size_t... i>
inline cudaError_t launch(void (*kernel)(Params...), dim3 grid, dim3 block, void** arguments,
                          size_t dynamic_bytes, std::index_sequence<i...>) {
  return run(grid, block, dynamic_bytes, [=] { kernel(*static_cast<Params*>(arguments[i])...); });
}

}  // namespace d2l_emulator

#define threadIdx (::d2l_emulator::state().thread)
#define blockIdx (::d2l_emulator::state().block)
#define blockDim (::d2l_emulator::state().block_size)
#define gridDim (::d2l_emulator::state().grid_size)

inline void __syncthreads() {
  ::d2l_emulator::wait_at(::d2l_emulator::find_meeting(::d2l_emulator::kBarrier, 0, 0),
                          ::d2l_emulator::state().threads);
}

inline void __syncwarp(unsigned mask = 0xffffffffu) { ::d2l_emulator::gather(mask, false); }

inline unsigned __ballot_sync(unsigned mask, bool predicate) {
  return ::d2l_emulator::gather(mask, predicate);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned lane = ::d2l_emulator::lane();
  return ::d2l_emulator::exchange(mask, value, lane / width * width + source % width);
}

// Out of their segment, lanes get their own value.
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32) {
  const unsigned lane = ::d2l_emulator::lane(), source = lane ^ distance;
  return ::d2l_emulator::exchange(mask, value, source / width > lane / width ? lane : source);
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const unsigned lane = ::d2l_emulator::lane(), source = lane + distance;
  return ::d2l_emulator::exchange(mask, value, source / width > lane / width ? lane : source);
}

// The part of the runtime that the kernels' launchers use.

template <class... Params>
inline cudaError_t cudaLaunchKernel(void (*kernel)(Params...), dim3 grid, dim3 block,
                                    void** arguments, size_t dynamic_bytes, cudaStream_t) {
  return ::d2l_emulator::launch(kernel, grid, block, arguments, dynamic_bytes,
                                std::index_sequence_for<Params...>());
}

inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  memset(memory, value, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaGetLastError() { return cudaSuccess; }

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

// A small device, so that a test needs few rows to have more than the grid.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = static_cast<int>(::d2l_emulator::setting("D2L_EMULATOR_PROCESSORS", 3));
  return cudaSuccess;
}

template <class Kernel>
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}

// Why the last launch that failed did so.
extern "C" __attribute__((visibility("default"), weak)) const char* d2l_emulator_message() {
  return ::d2l_emulator::state().message;
}

#endif  // D2L_CUDA_EMULATOR_H_
