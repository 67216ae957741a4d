// Numbers the different cells of a table in text, column by column: see d2l/data/_cells.py.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "c_api.h"

namespace d2l {
namespace {

// A different cell; a free place of the table has the number -1.
struct Value {
  uint64_t hash;
  int64_t begin;
  int32_t length, column, number;
};

constexpr uint64_t kOnes = 0x0101010101010101u;
constexpr uint64_t kFactor = 0x9e3779b97f4a7c15u;  // 2^64 divided by the golden ratio, odd

// The lowest bit that is set is in the lowest byte of word that is zero.
uint64_t zero_bytes(uint64_t word) { return (word - kOnes) & ~word & kOnes << 7; }

uint64_t mix(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * kFactor;
  return hash ^ hash >> 32;
}

bool is_end(char c) { return c == '\t' || c == '\n'; }

// The end of a cell, which is a tab or a line end, and its hash.  Text ends with a line end.
const char* scan(const char* p, const char* end, uint64_t* hash) {
  uint64_t word = 0;
  for (; end - p >= 8; p += 8) {
    memcpy(&word, p, 8);
    const uint64_t stop = zero_bytes(word ^ kOnes * '\t') | zero_bytes(word ^ kOnes * '\n');
    if (stop) {
      const int length = __builtin_ctzll(stop) / 8;  // 0 to 7
      *hash = mix(*hash, word & ((uint64_t{1} << 8 * length) - 1));
      return p + length;
    }
    *hash = mix(*hash, word);
  }
  // The same words as above, read byte by byte.
  word = 0;
  for (int i = 0; !is_end(*p); ++p, ++i) {
    word |= uint64_t{static_cast<unsigned char>(*p)} << 8 * i;
  }
  *hash = mix(*hash, word);
  return p;
}

// A hash table with open addressing, at most half full.
class Values {
 public:
  explicit Values(const char* text) : text_(text) {}
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;
  ~Values() { free(places_); }

  int32_t size() const { return size_; }

  // Makes room for one more; false if there is no memory.
  bool reserve() {
    if (2 * (int64_t{size_} + 1) <= capacity_) return true;
    const Value* old = places_;
    const int64_t old_capacity = capacity_;
    const int64_t capacity = old ? 2 * old_capacity : 1 << 12;
    Value* places = static_cast<Value*>(malloc(static_cast<size_t>(capacity) * sizeof(Value)));
    if (!places) return false;
    for (int64_t i = 0; i < capacity; ++i) places[i].number = -1;
    places_ = places;
    capacity_ = capacity;
    for (int64_t i = 0; i < old_capacity; ++i) {
      if (old[i].number >= 0) *find(old[i]) = old[i];
    }
    free(const_cast<Value*>(old));
    return true;
  }

  // The number of a cell; a new one gets the next one.
  int32_t number(const Value& cell) {
    Value* place = find(cell);
    if (place->number < 0) {
      *place = cell;
      place->number = size_++;
    }
    return place->number;
  }

 private:
  // Where the cell is, or the free place for it.
  Value* find(const Value& cell) const {
    const uint64_t mask = static_cast<uint64_t>(capacity_) - 1;
    for (uint64_t i = cell.hash & mask;; i = (i + 1) & mask) {
      if (places_[i].number < 0 || equal(places_[i], cell)) return &places_[i];
    }
  }

  bool equal(const Value& a, const Value& b) const {
    return a.hash == b.hash && a.length == b.length && a.column == b.column &&
           memcmp(text_ + a.begin, text_ + b.begin, static_cast<size_t>(a.length)) == 0;
  }

  const char* text_;
  Value* places_ = nullptr;
  int64_t capacity_ = 0;
  int32_t size_ = 0;
};

}  // namespace
}  // namespace d2l

int64_t d2l_number_cells(const char* text, int64_t length, int64_t rows, int64_t columns,
                         int32_t* numbers, int64_t* firsts) {
  if (length < 1 || length > INT32_MAX || text[length - 1] != '\n') return -1;
  d2l::Values values(text);
  const char* const end = text + length;
  const char* p = text;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      if (p == end || !values.reserve()) return -1;
      uint64_t hash = d2l::mix(0, static_cast<uint64_t>(column));
      const char* stop = d2l::scan(p, end, &hash);
      if (*stop != (column + 1 < columns ? '\t' : '\n')) return -1;
      const int32_t known = values.size();
      const int32_t number = values.number(
          {hash, p - text, static_cast<int32_t>(stop - p), static_cast<int32_t>(column), -1});
      if (number == known) {
        int64_t* first = firsts + 3 * int64_t{number};
        first[0] = column;
        first[1] = p - text;
        first[2] = stop - text;
      }
      *numbers++ = number;
      p = stop + 1;
    }
  }
  return p == end ? values.size() : -1;
}
