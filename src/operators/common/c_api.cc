#include "c_api.h"

#include <stdio.h>
#include <string.h>

#include "registry.h"
#include "scratch.h"

// Set by the build; see setup.py.
#ifndef D2L_CUDA_BUILD
#define D2L_CUDA_BUILD "null"
#endif

namespace d2l {
namespace {

int give(const Error& error, char* text, int size) {
  if (!error.set) return 0;
  snprintf(text, size, "%s", error.text);
  return 1;
}

// Rules belong to an operator's CPU definition; a CUDA twin has none of its own.
const Op* rules_of(int index) {
  const Op* op = op_at(index);
  for (int i = 0; !op->parse && i < op_count(); ++i) {
    if (op_at(i)->parse && strcmp(op_at(i)->name, op->name) == 0) op = op_at(i);
  }
  return op;
}

}  // namespace
}  // namespace d2l

using d2l::Error;
using d2l::give;
using d2l::Op;
using d2l::Present;
using d2l::Scratch;
using d2l::Tensor;

const char* d2l_build_info() {
  static char text[512];
  int n = snprintf(text, sizeof text, "{\"compiler\": \"GCC %s\", \"targets\": [", __VERSION__);
  const char* separator = "";
  for (const char* const* target = d2l::built_targets(); *target; ++target, separator = ", ") {
    n += snprintf(text + n, sizeof text - n, "%s\"%s\"", separator, *target);
  }
  snprintf(text + n, sizeof text - n, "], \"cuda\": %s}", D2L_CUDA_BUILD);
  return text;
}

const char* d2l_active_target(char* text, int size) {
  Error error = {};
  const char* target = d2l::active_target(&error);
  give(error, text, size);
  return target;
}

int d2l_cpu_supports(const char* target) { return d2l::cpu_supports(target); }

const char* d2l_op_name(int index) {
  return index >= 0 && index < d2l::op_count() ? d2l::op_at(index)->name : nullptr;
}

const char* d2l_op_target(int index) {
  return index >= 0 && index < d2l::op_count() ? d2l::op_at(index)->target : nullptr;
}

int d2l_op_tensors(int index, int* num_inputs, int* num_required, int* num_outputs) {
  const Op* op = d2l::rules_of(index);
  *num_inputs = op->num_inputs;
  *num_required = op->num_required;
  *num_outputs = op->num_outputs;
  return 0;
}

int d2l_op_updates(int index) { return d2l::rules_of(index)->updated != 0; }

int d2l_infer(int index, const d2l::Attr* attrs, int num_attrs, Tensor* inputs, int num_inputs,
              Tensor* outputs, int64_t workspace[2], char* text, int size) {
  const Op *rules = d2l::rules_of(index), *op = d2l::op_at(index);
  alignas(16) char params[d2l::kMaxParamBytes];
  Present present;
  Error error = {};
  rules->parse(attrs, num_attrs, params, &present, &error);
  if (!error.set && num_inputs != d2l::count_all(*rules, present)) {
    d2l::fail(&error, "%s: must have %lld inputs, got %d", rules->name,
              static_cast<long long>(d2l::count_all(*rules, present)), num_inputs);
  }
  if (error.set) return give(error, text, size);
  Scratch<d2l::DType> in_dtype(num_inputs);
  Scratch<d2l::Shape> in_shape(num_inputs);
  d2l::DType out_dtype[d2l::kMaxTensors];
  d2l::Shape out_shape[d2l::kMaxTensors];
  for (int i = 0, input = 0; input < rules->num_inputs; ++input) {
    for (int64_t j = d2l::width_of(*rules, input, present.length); j > 0; --j, ++i) {
      if ((present.given >> input & 1) == 0) inputs[i] = d2l::kAbsentTensor;
      in_dtype[i] = inputs[i].dtype;
      in_shape[i] = inputs[i].shape;
    }
  }
  rules->infer_dtype(params, in_dtype, out_dtype, &error);
  if (!error.set) rules->infer_shape(params, in_shape, out_shape, &error);
  if (error.set) return give(error, text, size);
  for (int i = 0; i < num_inputs; ++i) {
    inputs[i].dtype = in_dtype[i];
    inputs[i].shape = in_shape[i];
  }
  for (int i = 0; i < rules->num_outputs; ++i) {
    outputs[i].dtype = out_dtype[i];
    outputs[i].shape = out_shape[i];
  }
  workspace[0] = op->workspace(params, inputs, false);
  workspace[1] = rules->updated ? 0 : op->workspace(params, inputs, true);
  return 0;
}

int d2l_run(int index, const d2l::Attr* attrs, int num_attrs, const Tensor* grad_outputs,
            const Tensor* inputs, const Tensor* outputs, const Tensor* grad_inputs, void* workspace,
            void* stream, char* text, int size) {
  const Op* op = d2l::op_at(index);
  alignas(16) char params[d2l::kMaxParamBytes];
  Present present;
  Error error = {};
  d2l::rules_of(index)->parse(attrs, num_attrs, params, &present, &error);
  if (!error.set && grad_inputs && !op->backward) {
    d2l::fail(&error, "%s: updates its inputs and has no gradient", op->name);
  }
  if (error.set) return give(error, text, size);
  const d2l::Call call = {params, grad_outputs, inputs, outputs, grad_inputs};
  const int status = (grad_inputs ? op->backward : op->forward)(call, {workspace, stream});
  if (status) d2l::fail(&error, "%s: CUDA error %d", op->name, status);
  return give(error, text, size);
}
