// The table of all operators, and the choice of the instruction set.
#ifndef D2L_COMMON_REGISTRY_H_
#define D2L_COMMON_REGISTRY_H_

#include "op.h"

namespace d2l {

// All registered tables, one for each operator and target.
int op_count();
const Op* op_at(int index);

// Null where this operator was not built for this target.
const Op* find_op(const char* name, const char* target);

// The instruction sets that were built, best last; null-terminated.
const char* const* built_targets();
bool cpu_supports(const char* target);

// The instruction set to use: D2L_ISA, else the best that was built and that this processor has.
// Null, with the error set, if there is none.
const char* active_target(Error* error);

}  // namespace d2l

#endif  // D2L_COMMON_REGISTRY_H_
