#include "entry.h"

namespace d2l {

void expect_inputs(int64_t count, const Op& op, const Present& present, Error* error) {
  const int64_t want = count_given(op, present);
  if (count == want) return;
  fail(error, "%s: must have %lld inputs, got %lld", op.name, static_cast<long long>(want),
       static_cast<long long>(count));
}

KernelCall::KernelCall(const Entry& made, const Attr* attrs, int count, int64_t inputs,
                       Error* error)
    : entry(made),
      params(made.rules, attrs, count, error),
      num_inputs(inputs),
      num_saved(made.backward ? 2 * made.rules->num_outputs : 0),
      num_all(error->set ? 0 : count_all(*made.rules, params.present)),
      in(num_all + num_saved),
      out(num_all + made.rules->num_outputs),
      inputs_(made.backward ? num_all : 0),
      call_() {
  if (!error->set) expect_inputs(inputs - num_saved, *made.rules, params.present, error);
}

int64_t KernelCall::num_outputs() const {
  return entry.backward ? num_inputs - num_saved : entry.rules->num_outputs;
}

void KernelCall::arrange() {
  const Op& rules = *entry.rules;
  if (entry.backward) {
    const int64_t num_given = num_inputs - num_saved;
    const Tensor* given = in + rules.num_outputs;
    for (int64_t i = 0; i < num_given; ++i) inputs_[i] = given[i];
    spread_given<Tensor>(inputs_, rules, params.present, kAbsentTensor);
    spread_given<Tensor>(out, rules, params.present, kAbsentTensor);
    call_ = {params.bytes, in, inputs_, given + num_given, out};
  } else {
    spread_given<Tensor>(in, rules, params.present, kAbsentTensor);
    call_ = {params.bytes, nullptr, in, out, nullptr};
  }
}

int64_t KernelCall::workspace() const {
  return entry.op->workspace(params.bytes, call_.inputs, entry.backward);
}

int KernelCall::run(void* workspace, void* stream) const {
  return (entry.backward ? entry.op->backward : entry.op->forward)(call_, {workspace, stream});
}

}  // namespace d2l
