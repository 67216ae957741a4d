#include "positions.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <mutex>
#include <new>

#include "error.h"
#include "parallel.h"

namespace d2l {
namespace {

constexpr int kMostTables = 16;
constexpr int64_t kMostBytes = int64_t{64} << 20;  // of one table
constexpr int64_t kLeastRows = 64;

// Rows for which a wavelength is computed once.
constexpr int64_t kRowsAtOnce = 64;
// A sine costs as much as so many additions.
constexpr int64_t kCostOfSine = 32;

// Any rows, without a table.
template <class T>
void compute(int64_t num_hiddens, int64_t first, int64_t steps, T* out) {
  const int64_t blocks = (steps + kRowsAtOnce - 1) / kRowsAtOnce;
  parallel_for(blocks, kRowsAtOnce * num_hiddens * kCostOfSine, [=](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block * kRowsAtOnce;
      const int64_t last = row + kRowsAtOnce < steps ? row + kRowsAtOnce : steps;
      for (int64_t c = 0; c < num_hiddens; c += 2) {
        const double length = wavelength(c / 2, num_hiddens);
        for (int64_t r = row; r < last; ++r) {
          const double angle = (first + r) / length;
          T* at = out + r * num_hiddens + c;
          at[0] = narrow<T>(sin(angle));
          if (c + 1 < num_hiddens) at[1] = narrow<T>(cos(angle));
        }
      }
    }
  });
}

void compute(DType dtype, int64_t num_hiddens, int64_t first, int64_t steps, void* out) {
  switch (dtype) {
    case DType::kFloat32: compute(num_hiddens, first, steps, static_cast<float*>(out)); break;
    case DType::kFloat64: compute(num_hiddens, first, steps, static_cast<double*>(out)); break;
    case DType::kFloat16: compute(num_hiddens, first, steps, static_cast<half*>(out)); break;
    default: break;  // refused by the rules
  }
}

// The rows of positions 0 .. rows - 1.  Whoever reads them holds them, and they do not change: a
// longer table is a new one.
struct Table {
  DType dtype;
  int64_t num_hiddens;
  int64_t rows;
  int64_t last_use;
  std::shared_ptr<const char> codes;

  bool is_for(DType a_dtype, int64_t columns) const {
    return num_hiddens == columns && dtype == a_dtype;
  }
};

// A copy with more rows, at least so many; without any if that is too large to keep.
Table lengthened(const Table& table, int64_t least) {
  const int64_t row_bytes = table.num_hiddens * size_of(table.dtype);
  Table longer = {table.dtype, table.num_hiddens, kLeastRows, 0, nullptr};
  while (longer.rows < least && longer.rows * row_bytes <= kMostBytes) longer.rows *= 2;
  if (longer.rows * row_bytes > kMostBytes) return longer;
  char* codes = static_cast<char*>(malloc(longer.rows * row_bytes));
  if (!codes) return longer;
  const int64_t known = table.rows * row_bytes;
  if (known > 0) memcpy(codes, table.codes.get(), known);
  compute(table.dtype, table.num_hiddens, table.rows, longer.rows - table.rows, codes + known);
  longer.codes =
      std::shared_ptr<const char>(codes, [](const char* p) { free(const_cast<char*>(p)); });
  return longer;
}

class Tables {
 public:
  // The codes of at least so many rows; null where they are too many to keep.
  std::shared_ptr<const char> find(DType dtype, int64_t num_hiddens, int64_t rows) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Table* table = &tables_[0];  // the one for these, else the one not used for longest
    for (Table& other : tables_) {
      if (other.last_use < table->last_use) table = &other;
      if (!other.is_for(dtype, num_hiddens)) continue;
      table = &other;
      break;
    }
    const bool known = table->is_for(dtype, num_hiddens);
    if (!known || table->rows < rows) {
      Table longer = lengthened(known ? *table : Table{dtype, num_hiddens, 0, 0, nullptr}, rows);
      if (!longer.codes) return nullptr;
      *table = longer;
    }
    table->last_use = ++uses_;
    return table->codes;
  }

  // In the child of a fork: a thread that was in find() does not exist there.
  void mend() {
    if (mutex_.try_lock()) {
      mutex_.unlock();
    } else {
      new (this) Tables;  // what that thread left half done stays where it is
    }
  }

 private:
  std::mutex mutex_;
  Table tables_[kMostTables] = {};
  int64_t uses_ = 0;
};

// Never destroyed: threads of MXNet's engine may compute while the process ends.
Tables& tables() {
  static Tables* const tables = new Tables;
  return *tables;
}

struct Mender {
  Mender() {
    pthread_atfork(nullptr, nullptr, [] { tables().mend(); });
  }
} mender;

}  // namespace

void write_codes(DType dtype, int64_t num_hiddens, int64_t first, int64_t steps, void* out) {
  if (steps <= 0) return;
  const auto codes = tables().find(dtype, num_hiddens, first + steps);
  if (!codes) {
    compute(dtype, num_hiddens, first, steps, out);
    return;
  }
  const int64_t row_bytes = num_hiddens * size_of(dtype);
  const char* from = codes.get() + first * row_bytes;
  parallel_for(steps, row_bytes / 64, [=](int64_t begin, int64_t end) {
    memcpy(static_cast<char*>(out) + begin * row_bytes, from + begin * row_bytes,
           (end - begin) * row_bytes);
  });
}

}  // namespace d2l
