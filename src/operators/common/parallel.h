// One way to use several threads.  Results must not depend on how many there are: a body works on
// whole items, and sums over items are split by a rule that looks at sizes only.
#ifndef D2L_COMMON_PARALLEL_H_
#define D2L_COMMON_PARALLEL_H_

#include <omp.h>

#include "stream.h"

namespace d2l {

// True in a process made by fork(): libgomp's threads are gone there, and waiting for them hangs.
bool in_forked_child();

inline namespace D2L_ISA {

// Below this many element operations a thread costs more than it brings (5 to 10 microseconds).
constexpr int64_t kWorkPerThread = 16384;

// Calls body(begin, end) for pieces that cover 0 .. n - 1.  cost: element operations of one item.
template <class Body>
inline void parallel_for(int64_t n, int64_t cost, const Body& body) {
  if (n <= 0) return;
  const int64_t worth = n * (cost > 0 ? cost : 1) / kWorkPerThread;
  int64_t threads = omp_get_max_threads();
  if (threads > worth) threads = worth;
  if (threads > n) threads = n;
  if (threads <= 1 || omp_in_parallel() || in_forked_child()) {
    body(int64_t{0}, n);
    finish_streams();
    return;
  }
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
    const int64_t team = omp_get_num_threads(), id = omp_get_thread_num();
    body(n * id / team, n * (id + 1) / team);
    finish_streams();
  }
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_PARALLEL_H_
