// The plain data that rules, kernels (CPU and CUDA) and the MXNet adapter pass to each other.
//
// Only data lives in namespace d2l itself.  Every function that a header defines stands in the
// inline namespace D2L_ISA (v2, v3, v4, cuda, common): the same header is compiled for several
// instruction sets, and a shared name would let the linker keep the AVX-512 copy for everybody.
#ifndef D2L_COMMON_TENSOR_H_
#define D2L_COMMON_TENSOR_H_

#include <stdint.h>

#ifndef D2L_ISA
#define D2L_ISA common
#endif

#if defined(__CUDACC__) || defined(D2L_EMULATE_CUDA)
#define D2L_HOST_DEVICE __host__ __device__
#else
#define D2L_HOST_DEVICE
#endif

// Before a loop that runs n times, all of which are to be written out.
#define D2L_PRAGMA(text) _Pragma(#text)
#ifdef __CUDACC__
#define D2L_UNROLL(n) D2L_PRAGMA(unroll)
#else
#define D2L_UNROLL(n) D2L_PRAGMA(GCC unroll n)
#endif

// What is not for a CUDA compiler or its emulator.
#if !defined(__CUDACC__) && !defined(D2L_EMULATE_CUDA)
#define D2L_CPU_KERNELS
#endif

namespace d2l {

// The numbers are MXNet's type flags.
enum class DType : int32_t {
  kAbsent = -2,
  kUnknown = -1,
  kFloat32 = 0,
  kFloat64 = 1,
  kFloat16 = 2,
  kUint8 = 3,
  kInt32 = 4,
  kInt8 = 5,
  kInt64 = 6,
};

constexpr int kMaxDims = 12;

constexpr int kAbsent = -2;

// ndim -1 means that nothing is known, a negative dim that this one is not known yet; ndim kAbsent
// that a call does without this optional input.
struct Shape {
  int32_t ndim;
  int64_t dim[kMaxDims];
};

// A dense, row-major array that somebody else owns.
struct Tensor {
  void* data;
  DType dtype;
  Shape shape;
};

constexpr Tensor kAbsentTensor = {nullptr, DType::kAbsent, {kAbsent, {}}};

inline namespace D2L_ISA {

// Whether a call has this optional input (or, in backward, wants its gradient).
D2L_HOST_DEVICE inline bool given(const Shape& shape) { return shape.ndim != kAbsent; }
D2L_HOST_DEVICE inline bool given(DType dtype) { return dtype != DType::kAbsent; }
D2L_HOST_DEVICE inline bool given(const Tensor& tensor) { return given(tensor.shape); }

// The product of the sizes of axes first .. last - 1.
D2L_HOST_DEVICE inline int64_t volume(const Shape& shape, int first, int last) {
  int64_t n = 1;
  for (int i = first; i < last; ++i) n *= shape.dim[i];
  return n;
}

D2L_HOST_DEVICE inline int64_t volume(const Shape& shape) { return volume(shape, 0, shape.ndim); }

template <class T>
D2L_HOST_DEVICE inline T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_TENSOR_H_
