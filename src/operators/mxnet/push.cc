// Updates of the same arrays again and again, handed to MXNet's engine without its operators.
//
// A call of an operator copies all its arrays several times, in the thread that calls and in the
// engine's, which for the hundreds of small arrays of an optimizer takes longer than the step.
// Here they are looked at once; a call has its attributes checked and is pushed, with all arrays as
// those that it changes: the engine runs it after all that was to be done with them before, and
// nothing else with them meanwhile.

#include "push.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "../common/c_api.h"
#include "../common/registry.h"
#include "../common/scratch.h"
#include "layout.h"

namespace d2l {
namespace {

typedef std::shared_ptr<Chunk> ChunkRef;

PushSync push_sync;

const ChunkRef& chunk_of(const void* handle) { return *static_cast<const ChunkRef*>(handle); }

// Whether a tensor is all of an array, whose memory is there.
bool is_whole(const Tensor& tensor, const Chunk& chunk) {
  const size_t bytes = volume(tensor.shape) * size_of(tensor.dtype);
  return chunk.data && chunk.size == bytes && bytes > 0;
}

}  // namespace

// Arrays of lists, one after the other.  It lives as long as its maker and its calls do.
struct Update {
  Update(int op, const Tensor* from, int n)
      : index(op), count(n), tensors(from, from + n), chunks(n) {}

  std::atomic<int> owners{1};
  const int index, count;
  const std::vector<Tensor> tensors;  // without addresses
  std::vector<ChunkRef> chunks;       // null for absent ones
};

namespace {

void release(Update* update) {
  if (update->owners.fetch_sub(1) == 1) delete update;
}

// One call, until it was made.
struct Pushed {
  explicit Pushed(Update* of) : update(of) { update->owners.fetch_add(1); }
  ~Pushed() {
    release(update);
    free(text);
    free(workspace);
  }

  Update* const update;
  int num_singles = 0;
  Tensor extra[2 * kMaxTensors];  // single inputs, then outputs
  ChunkRef held[2 * kMaxTensors];
  char* text = nullptr;       // the values of attributes, at which params may point
  void* workspace = nullptr;  // as malloc gave it
  alignas(16) char params[kMaxParamBytes];
};

// The address of a tensor's memory, in the usual layout.  A convolution that predicts leaves its
// weights in oneDNN's; the engine has given the right to change that.
void* memory_of(const ChunkRef& chunk) {
  if (!chunk) return nullptr;
  if (reorder_to_default) reorder_to_default(chunk.get());
  return chunk->data;
}

void run(void*, void* parameter) {
  Pushed* call = static_cast<Pushed*>(parameter);
  const Update& update = *call->update;
  Scratch<Tensor> inputs(update.count + call->num_singles);
  for (int i = 0; i < update.count; ++i) {
    inputs[i] = update.tensors[i];
    inputs[i].data = memory_of(update.chunks[i]);
  }
  const Op* op = op_at(update.index);
  for (int i = 0; i < call->num_singles + op->num_outputs; ++i) {
    call->extra[i].data = memory_of(call->held[i]);
    if (i < call->num_singles) inputs[update.count + i] = call->extra[i];
  }
  const uintptr_t workspace = (reinterpret_cast<uintptr_t>(call->workspace) + 63) & ~uintptr_t{63};
  op->forward({call->params, nullptr, inputs, call->extra + call->num_singles, nullptr},
              {reinterpret_cast<void*>(workspace), nullptr});
}

void finish(void* parameter) { delete static_cast<Pushed*>(parameter); }

// The attributes with values that last as long as the call; false without memory.
bool keep_attributes(const char* const* keys, const char* const* values, int count, Attr* kept,
                     char** text) {
  size_t bytes = 1;
  for (int i = 0; i < count; ++i) bytes += strlen(values[i]) + 1;
  char* next = *text = static_cast<char*>(malloc(bytes));
  for (int i = 0; i < count && next; ++i) {
    const size_t length = strlen(values[i]) + 1;
    memcpy(next, values[i], length);
    kept[i] = {keys[i], next};
    next += length;
  }
  return *text != nullptr;
}

bool are_different(const std::vector<ChunkRef>& chunks) {
  std::vector<const Chunk*> sorted;
  for (const ChunkRef& chunk : chunks) {
    if (chunk) sorted.push_back(chunk.get());
  }
  std::sort(sorted.begin(), sorted.end());
  return std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
}

// Takes the arrays beside the lists; false if one of them is a part of an array or also elsewhere.
bool take_extra(const Tensor* tensors, void* const* handles, int count, Pushed* call) {
  const Update& update = *call->update;
  for (int i = 0; i < count; ++i) {
    call->extra[i] = tensors[i];
    if (!handles[i]) continue;
    call->held[i] = chunk_of(handles[i]);
    if (!is_whole(tensors[i], *call->held[i])) return false;
    for (int j = 0; j < update.count; ++j) {
      if (update.chunks[j] == call->held[i]) return false;
    }
    for (int j = 0; j < i; ++j) {
      if (call->held[j] == call->held[i]) return false;
    }
  }
  return true;
}

// The handles of all arrays; false if one of the lists is no longer that of the update.
bool take_changed(const Update& update, void* const* handles, void* const* extra_handles,
                  int num_extra, std::vector<void*>* changed) {
  changed->reserve(update.count + num_extra);
  for (int i = 0; i < update.count; ++i) {
    if (!handles[i]) continue;
    if (chunk_of(handles[i]) != update.chunks[i]) return false;
    changed->push_back(handles[i]);
  }
  for (int i = 0; i < num_extra; ++i) {
    if (extra_handles[i]) changed->push_back(extra_handles[i]);
  }
  return true;
}

bool are_like(const Tensor* made, const Tensor* wanted, int count) {
  for (int i = 0; i < count; ++i) {
    if (made[i].dtype != wanted[i].dtype || volume(made[i].shape) != volume(wanted[i].shape)) {
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace d2l

using d2l::Attr;
using d2l::Pushed;
using d2l::Tensor;
using d2l::Update;

void d2l_set_push(d2l::PushSync function) { d2l::push_sync = function; }

Update* d2l_update_new(int index, const Tensor* tensors, void* const* handles, int count) {
  if (!d2l::push_sync) return nullptr;
  std::unique_ptr<Update> update(new Update(index, tensors, count));
  for (int i = 0; i < count; ++i) {
    if (!handles[i]) continue;
    update->chunks[i] = d2l::chunk_of(handles[i]);
    if (!d2l::is_whole(tensors[i], *update->chunks[i])) return nullptr;
  }
  return d2l::are_different(update->chunks) ? update.release() : nullptr;
}

void d2l_update_free(Update* update) { d2l::release(update); }

int d2l_update_push(Update* update, const char* const* keys, const char* const* values,
                    int num_attrs, void* const* handles, const Tensor* extra,
                    void* const* extra_handles, int num_singles, const void* context, char* text,
                    int size) {
  constexpr int kPushed = 0, kRefused = 1, kOtherwise = 2, kFailed = 3;
  const d2l::Op* op = d2l::op_at(update->index);
  const int num_extra = num_singles + op->num_outputs, num_inputs = update->count + num_singles;
  if (num_attrs > d2l::kMostAttrs || num_extra > 2 * d2l::kMaxTensors) return kOtherwise;
  std::unique_ptr<Pushed> call(new Pushed(update));
  Attr kept[d2l::kMostAttrs];
  if (!d2l::keep_attributes(keys, values, num_attrs, kept, &call->text)) return kOtherwise;
  if (!d2l::take_extra(extra, extra_handles, num_extra, call.get())) return kOtherwise;
  call->num_singles = num_singles;
  std::vector<void*> changed;
  if (!d2l::take_changed(*update, handles, extra_handles, num_extra, &changed)) return kOtherwise;
  d2l::Scratch<Tensor> inputs(num_inputs);
  for (int i = 0; i < num_inputs; ++i) {
    inputs[i] = i < update->count ? update->tensors[i] : extra[i - update->count];
  }
  Tensor outputs[d2l::kMaxTensors];
  int64_t bytes[2];
  if (d2l_infer(update->index, kept, num_attrs, inputs, num_inputs, outputs, bytes, text, size)) {
    return kRefused;
  }
  if (!d2l::are_like(extra + num_singles, outputs, op->num_outputs)) return kOtherwise;
  d2l::Present present;
  d2l::Error error = {};
  op->parse(kept, num_attrs, call->params, &present, &error);
  call->workspace = malloc(static_cast<size_t>(bytes[0]) + 64);
  if (error.set || !call->workspace) return kOtherwise;
  // From here on the call is MXNet's.
  const int status =
      d2l::push_sync(d2l::run, call.release(), d2l::finish, context, nullptr, 0, changed.data(),
                     static_cast<int>(changed.size()), nullptr, 0, op->name);
  return status ? kFailed : kPushed;
}
