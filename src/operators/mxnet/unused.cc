// What MXNet looks up beside the functions of abi.cc, for what we do not register: operators with
// state or for sparse arrays, partitioners and graph passes.

#include "types.h"

extern "C" {

int _opCallInferSType(inferSType_t, const char* const*, const char* const*, int, int*, int, int*,
                      int) {
  return 0;
}

int _opCallCreateOpState(createOpState_t, const char* const*, const char* const*, int, const char*,
                         int, unsigned**, int*, int, const int*, void**) {
  return 0;
}

void _opCallDestroyOpState(void*) {}

int _opCallFStatefulCompute(int, void*, const int64_t**, int*, void**, int*, size_t*, const char**,
                            int*, int, const int64_t**, int*, void**, int*, size_t*, const char**,
                            int*, int, xpu_malloc_t, void*, xpu_malloc_t, void*, void*,
                            sparse_malloc_t, void*, int*, int*, void**, void**, void**, void**,
                            int64_t*, int64_t*, int64_t*, int64_t*, void*, void*) {
  return 0;
}

int _partRegSize() { return 0; }

int _partRegGetCount(int, const char**) { return 0; }

void _partRegGet(int, int, const char**, supportedOps_t*, createSelector_t*, reviewSubgraph_t*,
                 const char**) {}

int _partCallSupportedOps(supportedOps_t, const char*, int, int*, const char* const*,
                          const char* const*, int) {
  return 0;
}

int _partCallCreateSelector(createSelector_t, const char*, void**, const char* const*,
                            const char* const*, int) {
  return 0;
}

void _partCallSelect(void*, int, int*) {}
void _partCallSelectInput(void*, int, int, int*) {}
void _partCallSelectOutput(void*, int, int, int*) {}
void _partCallFilter(void*, int*, int, int**, int*) {}
void _partCallReset(void*) {}

int _partCallReviewSubgraph(reviewSubgraph_t, const char*, int, int*, const char* const*,
                            const char* const*, int, char***, char***, int*, const char* const*,
                            int, void* const*, const int64_t* const*, const int*, const int*,
                            const size_t*, const char* const*, const int*, const char* const*, int,
                            void* const*, const int64_t* const*, const int*, const int*,
                            const size_t*, const char* const*, const int*) {
  return 0;
}

int _passRegSize() { return 0; }

void _passRegGet(int, graphPass_t*, const char**) {}

int _passCallGraphPass(graphPass_t, const char*, char**, const char* const*, const char* const*,
                       int, const char*, const char* const*, int, void* const*,
                       const int64_t* const*, const int*, const int*, const size_t*,
                       const char* const*, const int*, const char* const*, int, void* const*,
                       const int64_t* const*, const int*, const int*, const size_t*,
                       const char* const*, const int*, nd_malloc_t, const void*) {
  return 0;
}

}  // extern "C"
