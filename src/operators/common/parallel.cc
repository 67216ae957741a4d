#include "parallel.h"

#include <pthread.h>

namespace d2l {
namespace {

bool forked = false;

struct ForkWatch {
  ForkWatch() {
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
  }
} fork_watch;

}  // namespace

bool in_forked_child() { return forked; }

}  // namespace d2l
