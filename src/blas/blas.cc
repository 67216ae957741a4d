// libd2l_blas.so: hands MXNet's matrix products to another OpenBLAS; d2l/_blas.py drives it.
//
// Only the products.  The other functions that libmxnet imports from its OpenBLAS stay with it: up
// to 512 rows a newer OpenBLAS takes 1.1 to 1.9 times as long for trsm and gesv (one thread,
// AVX-512), its LAPACK would have one thread, and inner and outer products are bound by memory.
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "imports.h"
#include "products.h"

namespace d2l {
namespace {

// What the other OpenBLAS calls its functions.
#define D2L_PREFIX "scipy_"

// The functions of the other OpenBLAS, and ours with the names and signatures that MXNet calls.
#define D2L_GEMM(letter, S, size)                                                                \
  GemmFunction<S> other_##letter##gemm;                                                          \
  void letter##gemm(int order, int trans_a, int trans_b, int m, int n, int k, S alpha,           \
                    const void* a, int lda, const void* b, int ldb, S beta, void* c, int ldc) {  \
    gemm<S>(other_##letter##gemm, size, order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, \
            beta, c, ldc);                                                                       \
  }
#define D2L_TRIANGULAR(letter, S, size)                                                            \
  SyrkFunction<S> other_##letter##syrk;                                                            \
  void letter##syrk(int order, int uplo, int trans, int n, int k, S alpha, const void* a, int lda, \
                    S beta, void* c, int ldc) {                                                    \
    syrk<S>(other_##letter##syrk, other_##letter##gemm, size, order, uplo, trans, n, k, alpha, a,  \
            lda, beta, c, ldc);                                                                    \
  }                                                                                                \
  TrmmFunction<S> other_##letter##trmm;                                                            \
  void letter##trmm(int order, int side, int uplo, int trans, int diag, int m, int n, S alpha,     \
                    const void* a, int lda, void* b, int ldb) {                                    \
    trmm<S>(other_##letter##trmm, size, order, side, uplo, trans, diag, m, n, alpha, a, lda, b,    \
            ldb);                                                                                  \
  }

D2L_GEMM(s, float, 4)
D2L_GEMM(d, double, 8)
D2L_GEMM(c, const void*, 8)
D2L_GEMM(z, const void*, 16)
D2L_TRIANGULAR(s, float, 4)
D2L_TRIANGULAR(d, double, 8)

struct Function {
  const char* name;  // in the import table of MXNet
  void* ours;
  void** other;  // the function of the other OpenBLAS, once it is loaded
};

#define D2L_FUNCTION(name) \
  {"cblas_" #name, reinterpret_cast<void*>(name), reinterpret_cast<void**>(&other_##name)}
const Function kFunctions[] = {D2L_FUNCTION(sgemm), D2L_FUNCTION(dgemm), D2L_FUNCTION(cgemm),
                               D2L_FUNCTION(zgemm), D2L_FUNCTION(ssyrk), D2L_FUNCTION(dsyrk),
                               D2L_FUNCTION(strmm), D2L_FUNCTION(dtrmm)};

const Function* function_named(const char* name) {
  for (const Function& function : kFunctions) {
    if (strcmp(function.name, name) == 0) return &function;
  }
  return nullptr;
}

struct Slot {
  void** address;
  void* before;
  const Function* function;
};
Slot slots[64];
int slot_count = 0;

void write_slots(bool ours) {
  for (int i = 0; i < slot_count; ++i) {
    void* address = ours ? slots[i].function->ours : slots[i].before;
    __atomic_store_n(slots[i].address, address, __ATOMIC_RELEASE);
  }
}

char text[1024];

const char* problem(const char* format, const char* a, const char* b = "") {
  snprintf(text, sizeof text, format, a, b);
  return text;
}

// The library in whose place ours may not step, since the user has put it before MXNet's.
const char* preloaded() {
  void* symbol = dlsym(RTLD_DEFAULT, kFunctions[0].name);
  Dl_info info;
  return symbol && dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : nullptr;
}

}  // namespace
}  // namespace d2l

extern "C" {

// Loads the other OpenBLAS, which has to be told to use one thread while it is loaded.  Returns
// null or what is wrong.
const char* d2l_blas_open(const char* path) {
  using namespace d2l;
  static bool open = false;
  if (open) return nullptr;
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return problem("%s", dlerror());
  for (const Function& function : kFunctions) {
    char name[64];
    snprintf(name, sizeof name, D2L_PREFIX "%s", function.name);
    *function.other = dlsym(library, name);
    if (!*function.other) return problem("%s has no %s", path, name);
  }
  using Count = int (*)();
  Count threads = reinterpret_cast<Count>(dlsym(library, D2L_PREFIX "openblas_get_num_threads"));
  if (!threads || threads() != 1) return problem("%s is in use with threads of its own", path);
  pthread_atfork(nullptr, nullptr, [] { has_forked = true; });
  open = true;
  return nullptr;
}

// Redirects the calls of a library (what dlopen returned).  Returns null or what is wrong.
const char* d2l_blas_bind(void* library) {
  using namespace d2l;
  if (slot_count) {  // there is one MXNet in a process, and it is never unloaded
    write_slots(true);
    return nullptr;
  }
  if (const char* path = preloaded()) return problem("%s is loaded before MXNet's OpenBLAS", path);
  const Imports imports(library);
  int found = 0, read_only = 0;
  imports.for_each([&](const char* name, void** address) {
    const Function* function = strncmp(name, "cblas_", 6) ? nullptr : function_named(name);
    if (!function || found == sizeof slots / sizeof *slots) return;
    read_only += imports.read_only(address);
    slots[found++] = {address, *address, function};
  });
  if (found == 0) return problem("%s calls no BLAS", "this MXNet");
  if (read_only) return problem("the calls of %s cannot be redirected (-z now)", "this MXNet");
  slot_count = found;
  write_slots(true);
  return nullptr;
}

void d2l_blas_unbind() { d2l::write_slots(false); }

// The name of the i-th function that now goes to the other OpenBLAS; null after the last.
const char* d2l_blas_bound(int i) {
  using namespace d2l;
  for (int slot = 0; slot < slot_count; ++slot) {
    const bool ours = *slots[slot].address == slots[slot].function->ours;
    if (ours && i-- == 0) return slots[slot].function->name;
  }
  return nullptr;
}

void d2l_blas_set_max_threads(int threads) { d2l::max_threads = threads; }

// Our function of this name, for tests.
void* d2l_blas_function(const char* name) {
  const d2l::Function* function = d2l::function_named(name);
  return function ? function->ours : nullptr;
}

}  // extern "C"
