// The plain C interface: the operators without MXNet, for tests, sanitizers and the GPU harness.
// Every function that can fail returns 0 on success and otherwise writes a sentence into error.
#ifndef D2L_COMMON_C_API_H_
#define D2L_COMMON_C_API_H_

#include "op.h"

#define D2L_API extern "C" __attribute__((visibility("default")))

// One JSON object: compiler, targets built, CUDA version and architectures.
D2L_API const char* d2l_build_info();

// The instruction set in use, null (and a sentence in error) if there is none.
D2L_API const char* d2l_active_target(char* error, int error_size);

// Whether this processor can run the instruction set "v2", "v3" or "v4".
D2L_API int d2l_cpu_supports(const char* target);

// Tables are numbered from 0; name and target of one of them, null past the end.
D2L_API const char* d2l_op_name(int index);
D2L_API const char* d2l_op_target(int index);
D2L_API int d2l_op_tensors(int index, int* num_inputs, int* num_required, int* num_outputs);

// Whether an operator changes some of its inputs in place; it then has no backward.
D2L_API int d2l_op_updates(int index);

// Runs the rules on dtype and shape of inputs[] (unknown ones are filled in) and sets those of
// outputs[].  workspace: the bytes that forward and backward need.  Both functions take all
// inputs, the arrays of a list one after the other; where the attribute "given" leaves one out, it
// has ndim -2.
D2L_API int d2l_infer(int index, const d2l::Attr* attrs, int num_attrs, d2l::Tensor* inputs,
                      int num_inputs, d2l::Tensor* outputs, int64_t workspace[2], char* error,
                      int error_size);

// Runs a kernel on tensors that d2l_infer has accepted.  Forward: grad_outputs and grad_inputs
// are null.
D2L_API int d2l_run(int index, const d2l::Attr* attrs, int num_attrs,
                    const d2l::Tensor* grad_outputs, const d2l::Tensor* inputs,
                    const d2l::Tensor* outputs, const d2l::Tensor* grad_inputs, void* workspace,
                    void* stream, char* error, int error_size);

// Parses length bytes of text: whole lines of a token and size numbers, which go to rows, float32
// of shape (lines, size), and the tokens, each with a line end, to memory as large as the text.
// Returns the bytes of the tokens, or -1 if a line has another form or a number an unusual one.
D2L_API int64_t d2l_parse_vectors(const char* text, int64_t length, int64_t size, float* rows,
                                  char* tokens);

// Numbers the different cells of a table, each column for itself: rows lines of as many cells as
// there are columns, separated by tabs, each line with its end.  Numbers, int32 of shape (rows,
// columns), count from 0 in the order in which cells first appear.  firsts, int64, as many rows of
// three as there are cells, gets for each number the column and where in the text it begins and
// ends first.  Returns how many different ones there are, or -1 if the text is another table, has
// more than 2^31 - 1 bytes, or memory is short.
D2L_API int64_t d2l_number_cells(const char* text, int64_t length, int64_t rows, int64_t columns,
                                 int32_t* numbers, int64_t* firsts);

// Counts the different words in a list of lists of Python's str.  Appends each, the first of equal
// ones, to the list words and how often it is there, an int, to the list numbers, in falling count
// and rising order of code points.  list and str are those types; their subclasses are not counted.
// seed: a random number for the hash table.  Returns how many different ones there are, or -1,
// without a Python error, if an entry is something else or has no UTF-8, memory is short, or there
// is no Python in the process.  The caller holds the GIL.
struct _object;
typedef _object PyObject;
D2L_API int64_t d2l_count_tokens(PyObject* lines, PyObject* list, PyObject* str, int64_t seed,
                                 PyObject* words, PyObject* numbers);

#endif  // D2L_COMMON_C_API_H_
