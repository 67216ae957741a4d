// A call of a kernel as MXNet makes it, whichever way it comes: abi.cc and direct.cc.
#ifndef D2L_MXNET_ENTRY_H_
#define D2L_MXNET_ENTRY_H_

#include "../common/op.h"
#include "../common/scratch.h"

namespace d2l {

// One kernel of one operator, as MXNet sees it.
struct Entry {
  const Op* rules;
  const Op* op;
  bool backward;
};

// MXNet counts the inputs of a call, but not those of a graph that it reads from a file.
void expect_inputs(int64_t count, const Op& op, const Present& present, Error* error);

struct Params {
  Params(const Op* rules, const Attr* attrs, int count, Error* error) {
    rules->parse(attrs, count, bytes, &present, error);
  }
  alignas(16) char bytes[kMaxParamBytes];
  Present present;
};

// Its arrays come in MXNet's order, in which those of a backward are output gradients, inputs and
// outputs; arrange() puts them where the kernel looks for them.
struct KernelCall {
  // The error is set if attributes or number of inputs are refused; nothing else is there then.
  KernelCall(const Entry& entry, const Attr* attrs, int count, int64_t num_inputs, Error* error);

  // How many the call writes.
  int64_t num_outputs() const;

  void arrange();
  // Bytes; may be more than memory has.
  int64_t workspace() const;
  // With a workspace aligned to 64.  0, or CUDA's error number.
  int run(void* workspace, void* stream) const;

  const Entry& entry;
  const Params params;
  const int64_t num_inputs, num_saved, num_all;
  Scratch<Tensor> in, out;

 private:
  Scratch<Tensor> inputs_;
  Call call_;
};

}  // namespace d2l

#endif  // D2L_MXNET_ENTRY_H_
