// Arrays larger than the caches: rows are fetched before they are read, and results go to memory
// past the caches, which need not read what is overwritten nor give up what is still wanted.
#ifndef D2L_COMMON_STREAM_H_
#define D2L_COMMON_STREAM_H_

#include <immintrin.h>

#include <type_traits>

#include "half.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int64_t kLine = 64;                         // bytes
constexpr int64_t kStreamedBytes = int64_t{1} << 22;  // smaller results are left in the caches

// Whether a result of so many values is to be stored past the caches.
template <class T>
inline bool worth_streaming(int64_t count) {
  return count > kStreamedBytes / static_cast<int64_t>(sizeof(T));
}

// Whoever waits for a thread that has stored past the caches must find it all: parallel_for calls.
inline void finish_streams() { _mm_sfence(); }

template <class T>
inline void fetch_row(const T* row, int64_t cols) {
  constexpr int64_t step = kLine / static_cast<int64_t>(sizeof(T));
  for (int64_t c = 0; c < cols; c += step) __builtin_prefetch(row + c);
}

// to, at a line's start, = the line from.
inline void stream_line(const void* from, void* to) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#else
  const __m128i* values = static_cast<const __m128i*>(from);
  for (int i = 0; i < 4; ++i) {
    _mm_stream_si128(static_cast<__m128i*>(to) + i, _mm_loadu_si128(values + i));
  }
#endif
}

// row[c] = value(c); past the caches if that is wanted and the row is of whole lines.
template <class T, class Value>
inline void store_row(int64_t cols, T* row, bool streamed, const Value& value) {
  constexpr int64_t lanes = kLine / static_cast<int64_t>(sizeof(T));
  if (std::is_same<T, Acc<T>>::value && streamed && cols % lanes == 0 &&
      reinterpret_cast<uintptr_t>(row) % kLine == 0) {
    for (int64_t c = 0; c < cols; c += lanes) {
      T line[lanes];
#pragma omp simd
      for (int64_t i = 0; i < lanes; ++i) line[i] = store<T>(value(c + i));
      stream_line(line, row + c);
    }
    return;
  }
#pragma omp simd
  for (int64_t c = 0; c < cols; ++c) row[c] = store<T>(value(c));
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_STREAM_H_
