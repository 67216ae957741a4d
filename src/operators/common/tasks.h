// Tasks that need buffers: each thread gets a set of its own from the workspace, and works on
// consecutive tasks with it.
//
// Buffers is a struct whose constructor (plan, arena) takes its pieces from the arena; the plan
// holds sizes alone, and so the workspace can be told before there are threads.
#ifndef D2L_COMMON_TASKS_H_
#define D2L_COMMON_TASKS_H_

#include "gemm.h"
#include "parallel.h"

namespace d2l {
inline namespace D2L_ISA {

inline int64_t at_most(int64_t value, int64_t limit) { return value < limit ? value : limit; }
inline int64_t at_least(int64_t value, int64_t limit) { return value > limit ? value : limit; }
inline int64_t blocks_of(int64_t n, int64_t block) { return (n + block - 1) / block; }

constexpr int64_t kLanes = 64;  // sets of buffers: so many threads can work

// Hands out pieces of the workspace.
struct Arena {
  uintptr_t next;  // not a pointer: sizes are found by starting at 0

  template <class V>
  V* take(int64_t count) {
    V* piece = reinterpret_cast<V*>(next);
    next += line_bytes<V>(count);
    return piece;
  }
};

template <class Buffers, class Plan>
inline int64_t bytes_of(const Plan& plan) {
  Arena arena = {0};
  Buffers buffers(plan, &arena);
  return static_cast<int64_t>(arena.next);
}

// The sets of buffers for so many tasks; few where they are huge.
template <class Buffers, class Plan>
inline int64_t lanes_of(const Plan& plan, int64_t tasks) {
  const int64_t fit = at_least(1, (int64_t{1} << 28) / at_least(1, bytes_of<Buffers>(plan)));
  return at_most(at_most(tasks, kLanes), fit);
}

// Calls body(task, buffers) for tasks 0 .. tasks - 1, on several threads.
template <class Buffers, class Plan, class Body>
inline void for_tasks(const Plan& plan, int64_t tasks, int64_t cost, void* workspace,
                      const Body& body) {
  const int64_t lanes = lanes_of<Buffers>(plan, tasks), bytes = bytes_of<Buffers>(plan);
  parallel_for(lanes, tasks * cost / at_least(1, lanes), [=](int64_t begin, int64_t end) {
    Arena arena = {reinterpret_cast<uintptr_t>(workspace) + begin * bytes};
    const Buffers buffers(plan, &arena);
    for (int64_t t = begin * tasks / lanes; t < end * tasks / lanes; ++t) body(t, buffers);
  });
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_TASKS_H_
