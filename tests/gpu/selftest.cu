// Kernels that are right or wrong in ways that the operators are not: tests of the emulator itself.
#include "common/cuda.h"

namespace {

// Sums 40 numbers in two warps, of which the second is not full, through everything there is.
__global__ void every_call(int* result) {
  D2L_DYNAMIC_SHARED(dynamic, int);
  typedef int Parts[2];
  D2L_SHARED(parts, Parts);
  const unsigned t = threadIdx.x + blockDim.x * threadIdx.y;  // a block of (8, 5)
  dynamic[t] = t;
  __syncthreads();
  const unsigned lanes = t < 32 ? 32 : 8;
  int value = dynamic[39 - t];
  const int first = __shfl_sync(0xffffffffu, value, 0);
  if (first != (t < 32 ? 39 : 7)) value = -1000000;
  for (unsigned distance = lanes / 2; distance > 0; distance /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, distance, lanes);
  }
  if (__ballot_sync(0xffffffffu, t % 2 == 1) != (t < 32 ? 0xaaaaaaaau : 0xaau)) value = -1000000;
  if (t % 32 == 0) parts[t / 32] = value;
  __syncwarp();
  if (t % 32 < 2) __shfl_xor_sync(0x3u, value, 1);  // a part of a warp may meet on its own
  __syncthreads();
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  if (t == 0) result[block] = parts[0] + parts[1];
}

__global__ void nothing(int*) {}

__global__ void unwritten_shared(int* result) {
  D2L_SHARED(value, float);
  if (threadIdx.x == 0) result[blockIdx.x] = value != value;
  __syncthreads();
  value = 1;  // the next block must not find it
}

__global__ void beyond_dynamic(int* result) {
  D2L_DYNAMIC_SHARED(dynamic, int);
  dynamic[threadIdx.x] = 1;
  *result = 0;
}

__global__ void odd_lanes(int* result) {
  if (threadIdx.x % 2) *result = __shfl_sync(0xaaaaaaaau, 1, 2);
}

__global__ void two_halves(int* result) {
  if (threadIdx.x < 16) {
    *result = __shfl_sync(0xffffffffu, 1, 0);
  } else {
    __syncwarp();
  }
}

__global__ void deep_stack(int* result) {
  volatile char local[(64 << 10) - 450];  // together with its callers' frames, a little too much
  for (char volatile& c : local) c = 0;
  *result = local[100];
}

int run(void (*kernel)(int*), dim3 grid, dim3 block, size_t dynamic, int* result) {
  void* arguments[] = {&result};
  return cudaLaunchKernel(kernel, grid, block, arguments, dynamic, nullptr);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int d2l_selftest(int number, int* result) {
  switch (number) {
    case 0: return run(every_call, dim3(2, 3, 2), dim3(8, 5), 40 * sizeof(int), result);
    case 1: return run(unwritten_shared, 3, 32, 0, result);
    case 2: return run(beyond_dynamic, 1, 33, 32 * sizeof(int), result);
    case 3: return run(odd_lanes, 1, 32, 0, result);
    case 4: return run(two_halves, 1, 32, 0, result);
    case 5: return run(nothing, 1, dim3(32, 33), 0, result);
    case 6: return run(nothing, dim3(1, 65536), 32, 0, result);
    case 7: return run(nothing, 0, 32, 0, result);
    case 8: return run(nothing, 1, 32, 49 << 10, result);
    case 9: return run(deep_stack, 1, 1, 0, result);
    default: return -1;
  }
}
