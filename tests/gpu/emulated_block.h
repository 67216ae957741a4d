// Runs one block of an emulated launch: its fibres, its barriers and its shared memory.
// cuda_emulator.h says how, and has the part that kernels see.
#ifndef D2L_EMULATED_BLOCK_H_
#define D2L_EMULATED_BLOCK_H_

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#error "the fibres of the CUDA emulator are written for x86-64"
#endif

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace d2l_emulator {

constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kStackGuardBytes = 512;
constexpr size_t kGuardBytes = 64;
constexpr unsigned kMostWarps = 32;
constexpr size_t kMostShared = 48 << 10;
constexpr unsigned char kPoison = 0xff;  // floating-point numbers of it are NaN
constexpr unsigned char kGuard = 0xa5;

// A fibre's registers are on its stack; this is where it ends.
struct Fibre {
  void* stack_pointer;
  char* stack;
  bool done;
};

// Threads that wait for each other: a block at a barrier, lanes of a warp at a shuffle.
enum Call { kBarrier, kShuffle, kGather };
struct Meeting {
  Call call;
  unsigned warp, lanes;  // of a barrier 0
  std::vector<unsigned> waiting;
  unsigned turn;         // how many times they have met
  uint64_t slot[2][32];  // what the lanes exchange, by turn: the next turn may be quicker
};

// A variable in shared memory between two guards.
struct SharedVariable {
  const void* site;
  size_t bytes;
  std::unique_ptr<char[]> memory;
  char* begin() const { return memory.get() + kGuardBytes; }
};

struct State {
  uint3 thread, block;
  dim3 block_size, grid_size;
  unsigned threads, current, left;
  uint64_t random;
  bool failed;
  char message[256];
  void* scheduler;  // its stack pointer
  const std::function<void()>* body;
  std::vector<Fibre> fibres;
  std::vector<unsigned> ready[kMostWarps];  // threads, by warp
  unsigned order[kMostWarps];               // of the warps, the one that is ahead first
  std::deque<Meeting> meetings;
  std::deque<SharedVariable> shared;
  size_t dynamic_bytes;
  const void* scheduler_stack;  // for the address sanitizer
  size_t scheduler_stack_bytes;
};

// A static member of a template: one for all files, and no check at each use whether it is there.
template <class T>
struct Single {
  static T value;
};
template <class T>
T Single<T>::value;

inline State& state() { return Single<State>::value; }

inline uint64_t draw(uint64_t n) {
  uint64_t& r = state().random;
  r ^= r << 13;
  r ^= r >> 7;
  r ^= r << 17;
  return (r * 0x2545f4914f6cdd1dull >> 16) % n;
}

// Saves the callee's registers and the stack pointer in *from, and goes on where `to` was saved.
__attribute__((naked, noipa)) static void switch_stack(void** /*from*/, void* /*to*/) {
  asm("pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
      "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
      "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\tret");
}

inline void to_scheduler(bool for_ever) {
  State& s = state();
  Fibre& f = s.fibres[s.current];
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fake, s.scheduler_stack,
                                 s.scheduler_stack_bytes);
  switch_stack(&f.stack_pointer, s.scheduler);
  __sanitizer_finish_switch_fiber(fake, &s.scheduler_stack, &s.scheduler_stack_bytes);
#else
  (void)for_ever;
  switch_stack(&f.stack_pointer, s.scheduler);
#endif
}

inline void to_fibre(unsigned id) {
  State& s = state();
  const unsigned x = s.block_size.x, y = s.block_size.y;
  s.current = id;
  s.thread = {id % x, id / x % y, id / (x * y)};
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, s.fibres[id].stack, kStackBytes);
  switch_stack(&s.scheduler, s.fibres[id].stack_pointer);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  switch_stack(&s.scheduler, s.fibres[id].stack_pointer);
#endif
}

// Called in the scheduler: ends the launch after the present thread.
__attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
  State& s = state();
  if (s.failed) return;
  s.failed = true;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(s.message, sizeof s.message, format, arguments);
  va_end(arguments);
}

// Called in a fibre, which then never runs again.
inline void fail_in_kernel(const char* text) {
  const State& s = state();
  fail("%s (block %u %u %u, thread %u %u %u)", text, s.block.x, s.block.y, s.block.z, s.thread.x,
       s.thread.y, s.thread.z);
  to_scheduler(true);
}

inline void wait_at(Meeting* meeting, unsigned expected) {
  State& s = state();
  meeting->waiting.push_back(s.current);
  if (meeting->waiting.size() == expected) {
    for (unsigned id : meeting->waiting) s.ready[id / 32].push_back(id);
    meeting->waiting.clear();
    ++meeting->turn;
  }
  to_scheduler(false);
}

inline Meeting* find_meeting(Call call, unsigned warp, unsigned lanes) {
  State& s = state();
  for (Meeting& m : s.meetings) {
    if (m.lanes == lanes && m.warp == warp && m.call == call) return &m;
  }
  s.meetings.push_back({call, warp, lanes, {}, 0, {}});
  return &s.meetings.back();
}

inline unsigned lane() { return state().current % 32; }

// One address for each place that declares a shared variable (and instantiation of its type).
template <int id>
struct SiteKey {};

inline char* find_shared(const void* site, size_t bytes) {
  State& s = state();
  size_t total = 0;
  for (const SharedVariable& v : s.shared) {
    if (v.site == site) return v.begin();
    total += v.bytes;
  }
  if (total + bytes > kMostShared) fail_in_kernel("more than 48 KiB of shared memory");
  s.shared.push_back({site, bytes, nullptr});
  SharedVariable& fresh = s.shared.back();
  fresh.memory.reset(new char[bytes + 2 * kGuardBytes]);
  memset(fresh.memory.get(), kGuard, bytes + 2 * kGuardBytes);
  memset(fresh.begin(), kPoison, bytes);
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(fresh.memory.get(), kGuardBytes);
  __asan_poison_memory_region(fresh.begin() + bytes, kGuardBytes);
#endif
  return fresh.begin();
}

template <class Type, int id>
inline Type* shared(SiteKey<id>) {
  static const char site = 0;
  return reinterpret_cast<Type*>(find_shared(&site, sizeof(Type)));
}

template <class Type>
inline Type* dynamic_shared() {
  return reinterpret_cast<Type*>(state().shared.front().begin());
}

// Whether a guard is as it was: all its bytes equal the first.
inline bool whole(const char* guard, size_t bytes) {
  return static_cast<unsigned char>(*guard) == kGuard && memcmp(guard, guard + 1, bytes - 1) == 0;
}

inline void check_and_clear_shared() {
  State& s = state();
  for (const SharedVariable& v : s.shared) {
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(v.memory.get(), v.bytes + 2 * kGuardBytes);
#endif
    if (!whole(v.memory.get(), kGuardBytes) || !whole(v.begin() + v.bytes, kGuardBytes)) {
      fail("a write outside a shared variable of %zu bytes", v.bytes);
    }
  }
  s.shared.clear();
}

inline void fibre_main() {
  State& s = state();
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &s.scheduler_stack, &s.scheduler_stack_bytes);
#endif
  (*s.body)();
  s.fibres[s.current].done = true;
  --s.left;
  to_scheduler(true);
}

inline void prepare_fibre(Fibre* f) {
  if (!f->stack) f->stack = new char[kStackBytes];
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(f->stack, kStackBytes);  // what an abandoned fibre left
#endif
  memset(f->stack, kGuard, kStackGuardBytes);
  f->done = false;
  // As if switch_stack had been called: six registers, the address to return to, and one more so
  // that the stack is aligned as after a call.
  void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(f->stack) + kStackBytes) &
                                        ~uintptr_t{15}) -
               8;
  memset(top, 0, 8 * sizeof(void*));
  top[6] = reinterpret_cast<void*>(&fibre_main);
  f->stack_pointer = top;
}

inline void report_stuck() {
  const State& s = state();
  size_t at_barrier = 0, at_shuffle = 0;
  for (const Meeting& m : s.meetings)
    (m.call == kBarrier ? at_barrier : at_shuffle) += m.waiting.size();
  fail(
      "block %u %u %u is stuck: %zu threads wait at __syncthreads, %zu at a warp's call, and %u "
      "have left the kernel",
      s.block.x, s.block.y, s.block.z, at_barrier, at_shuffle, s.threads - s.left);
}

// Takes the thread that runs next, false if none can.  Mostly it is one of the warp that is ahead:
// were all equally likely, no warp would get as far as the second next barrier before another has
// left the last one.
inline bool take_ready(unsigned* id) {
  State& s = state();
  const unsigned warps = (s.threads + 31) / 32;
  const unsigned first = draw(16) == 0 ? static_cast<unsigned>(draw(warps)) : 0;
  for (unsigned i = 0; i < warps; ++i) {
    std::vector<unsigned>& ready = s.ready[s.order[(first + i) % warps]];
    if (ready.empty()) continue;
    std::swap(ready[draw(ready.size())], ready.back());
    *id = ready.back();
    ready.pop_back();
    return true;
  }
  return false;
}

inline void prepare_block() {
  State& s = state();
  s.meetings.clear();
  s.left = s.threads;
  find_shared(&s.dynamic_bytes, s.dynamic_bytes);
  for (unsigned w = 0; w < kMostWarps; ++w) {
    s.ready[w].clear();
    s.order[w] = w;
  }
  for (unsigned w = (s.threads + 31) / 32 - 1; w > 0; --w)
    std::swap(s.order[w], s.order[draw(w + 1)]);
  for (unsigned i = 0; i < s.threads; ++i) {
    prepare_fibre(&s.fibres[i]);
    s.ready[i / 32].push_back(i);
  }
}

inline void run_block() {
  State& s = state();
  prepare_block();
  for (unsigned id; !s.failed && take_ready(&id);) to_fibre(id);
  if (s.left > 0) report_stuck();
  for (unsigned i = 0; i < s.threads; ++i) {
    if (!whole(s.fibres[i].stack, kStackGuardBytes)) fail("a stack overflow");
  }
  check_and_clear_shared();
}

}  // namespace d2l_emulator

#endif  // D2L_EMULATED_BLOCK_H_
