#include "fresh.h"

namespace {

d2l::GetGradState get_grad_state;
d2l::SetGradState set_grad_state;

}  // namespace

void d2l_set_grad_state(d2l::GetGradState get, d2l::SetGradState set) {
  get_grad_state = get;
  set_grad_state = set;
}

int d2l_take_fresh(void* const* arrays, int count) {
  if (!get_grad_state || !set_grad_state) return 1;
  for (int i = 0; i < count; ++i) {
    int fresh = 0;
    if (get_grad_state(arrays[i], &fresh) || !fresh) return 1;
  }
  for (int i = 0; i < count; ++i) {
    if (set_grad_state(arrays[i], 0)) return 1;
  }
  return 0;
}
