// Counts the different words in lists of Python's str: see d2l/data/_tokens.py.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <algorithm>
#include <utility>

#include "c_api.h"

// A few of Python's functions, all of them of its stable interface; null in another process.
#define D2L_PYTHON extern "C" __attribute__((weak))
D2L_PYTHON ssize_t PyList_Size(PyObject* list);
D2L_PYTHON PyObject* PyList_GetItem(PyObject* list, ssize_t index);
D2L_PYTHON int PyList_Append(PyObject* list, PyObject* item);
D2L_PYTHON const char* PyUnicode_AsUTF8AndSize(PyObject* text, ssize_t* size);
D2L_PYTHON PyObject* PyLong_FromLongLong(long long value);
D2L_PYTHON PyObject* PyObject_Type(PyObject* object);
D2L_PYTHON void Py_DecRef(PyObject* object);
D2L_PYTHON void PyErr_Clear();

namespace d2l {
namespace {

constexpr int kKeyBytes = 16;
// Text of an ASCII str lies in the object, behind a header of so many bytes at most, and at least
// kKeyBytes.  That of others, and of subclasses of str, lies elsewhere.
constexpr int64_t kMaxHeader = 48;
// So many objects before its turn, one is asked for from memory, where each lies by itself.
constexpr int kAhead = 16;

// The last bytes of a word in UTF-8, with zeros before them, and its length: all of a short word.
struct Word {
  uint64_t low, high;
  int64_t length;
  const char* text;
};

struct Counted {
  Word word;
  int64_t count;
  PyObject* first;
};

// Clears the bytes of 16 that do not belong to a word, without a branch on its length.
struct Masks {
  uint64_t low[kKeyBytes + 1], high[kKeyBytes + 1];
  Masks() {
    for (int n = 0; n <= kKeyBytes; ++n) {
      high[n] = n == 0 ? 0 : ~uint64_t{0} << 8 * std::max(0, 8 - n);
      low[n] = n <= 8 ? 0 : ~uint64_t{0} << 8 * (kKeyBytes - n);
    }
  }
};

const Masks kMasks;

// end: where the word ends, with kKeyBytes bytes before it that can be read.
inline Word word_before(const char* end, const char* text, int64_t length) {
  uint64_t key[2];
  memcpy(key, end - kKeyBytes, kKeyBytes);
  const int64_t kept = std::min<int64_t>(length, kKeyBytes);
  return {key[0] & kMasks.low[kept], key[1] & kMasks.high[kept], length, text};
}

uint64_t mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// seed: secret, so that nobody can write a text whose words share one place.
uint64_t hash(const Word& word, uint64_t seed) {
  uint64_t found = mix(word.high ^ seed ^ static_cast<uint64_t>(word.length),
                       word.low ^ seed ^ 0xd6e8feb86659fd93u);
  for (int64_t i = 0; i + kKeyBytes < word.length; i += 8) {
    uint64_t part;
    memcpy(&part, word.text + i, 8);
    found = mix(found ^ part, seed ^ 0x9e3779b97f4a7c15u);
  }
  return found;
}

bool equal(const Word& a, const Word& b) {
  const uint64_t length = static_cast<uint64_t>(a.length ^ b.length);
  return ((a.high ^ b.high) | (a.low ^ b.low) | length) == 0 &&
         (a.length <= kKeyBytes || memcmp(a.text, b.text, static_cast<size_t>(a.length)) == 0);
}

// A hash table with open addressing, at most a quarter full, of numbers of words; 0 is none.
class Counts {
 public:
  explicit Counts(uint64_t seed) : seed_(seed) {}
  Counts(const Counts&) = delete;
  Counts& operator=(const Counts&) = delete;
  ~Counts() {
    free(places_);
    free(words_);
  }

  int64_t size() const { return size_; }
  const Counted& operator[](int64_t i) const { return words_[i + 1]; }

  // Makes room for one more than there are; false if there is no memory.  To be called first.
  bool reserve() {
    if (bits_ && 4 * (size_ + 1) <= int64_t{1} << bits_) return true;
    if (bits_ >= 32) return false;
    const int bits = bits_ ? bits_ + 2 : 14;
    const size_t room = size_t{1} << (bits - 2);
    void* words = realloc(words_, (room + 1) * sizeof(Counted));
    if (!words) return false;
    words_ = static_cast<Counted*>(words);
    words_[0] = {};
    words_[0].word.length = -1;
    uint32_t* places = static_cast<uint32_t*>(calloc(size_t{1} << bits, sizeof(uint32_t)));
    if (!places) return false;
    free(places_);
    places_ = places;
    bits_ = bits;
    for (int64_t i = 1; i <= size_; ++i) *find(words_[i].word) = static_cast<uint32_t>(i);
    return true;
  }

  // False if there is no memory for a word after this one.
  bool add(const Word& word, PyObject* object) {
    uint32_t* place = find(word);
    if (*place != 0) {
      ++words_[*place].count;
      return true;
    }
    *place = static_cast<uint32_t>(++size_);
    words_[size_] = {word, 1, object};
    return reserve();
  }

 private:
  uint32_t* find(const Word& word) const {
    const uint64_t mask = (uint64_t{1} << bits_) - 1;
    for (uint64_t i = hash(word, seed_) >> (64 - bits_);; i = (i + 1) & mask) {
      if (equal(words_[places_[i]].word, word) || places_[i] == 0) return &places_[i];
    }
  }

  const uint64_t seed_;
  uint32_t* places_ = nullptr;
  Counted* words_ = nullptr;
  int64_t size_ = 0;
  int bits_ = 0;
};

// Not for an object of a subclass, which may do as it likes.
bool is_a(PyObject* object, PyObject* type) {
  PyObject* found = PyObject_Type(object);
  Py_DecRef(found);  // the object holds it
  return found == type;
}

// Of a word whose text is not in its object.  False for a subclass of str.
__attribute__((noinline)) bool read_elsewhere(PyObject* object, PyObject* str, const char* text,
                                              int64_t length, Word* word) {
  char copy[kKeyBytes] = {};
  const int64_t kept = std::min<int64_t>(length, kKeyBytes);
  memcpy(copy + kKeyBytes - kept, text + length - kept, static_cast<size_t>(kept));
  *word = word_before(copy + kKeyBytes, text, length);
  return is_a(object, str);
}

// False, without a Python error, for what is no str or has no UTF-8.  Python keeps the UTF-8 of a
// str that is not ASCII with it, as long as it lives.
inline bool read_word(PyObject* object, PyObject* str, Word* word) {
  ssize_t length;
  const char* text = PyUnicode_AsUTF8AndSize(object, &length);
  if (!text) {
    PyErr_Clear();
    return false;
  }
  const int64_t header = text - reinterpret_cast<const char*>(object);
  if (header < kKeyBytes || header > kMaxHeader)
    return read_elsewhere(object, str, text, length, word);
  *word = word_before(text + length, text, length);
  return true;
}

// A word's place in the result: falling count, then rising UTF-8, which is the order of str.
struct Place {
  int64_t count;
  uint64_t prefix;
  int64_t index;
};

uint64_t prefix(const Word& word) {
  unsigned char bytes[8] = {};
  memcpy(bytes, word.text, static_cast<size_t>(std::min<int64_t>(word.length, 8)));
  uint64_t value = 0;
  for (unsigned char byte : bytes) value = value << 8 | byte;
  return value;
}

bool before(const Word& a, const Word& b) {
  const int order = memcmp(a.text, b.text, static_cast<size_t>(std::min(a.length, b.length)));
  return order != 0 ? order < 0 : a.length < b.length;
}

// Appends words and counts to two lists; false if there is no memory.
bool append_sorted(const Counts& counts, PyObject* words, PyObject* numbers) {
  const int64_t size = counts.size();
  Place* const places = static_cast<Place*>(malloc(static_cast<size_t>(size + 1) * sizeof(Place)));
  if (!places) return false;
  for (int64_t i = 0; i < size; ++i) places[i] = {counts[i].count, prefix(counts[i].word), i};
  std::sort(places, places + size, [&counts](const Place& a, const Place& b) {
    if (a.count != b.count) return a.count > b.count;
    if (a.prefix != b.prefix) return a.prefix < b.prefix;
    return before(counts[a.index].word, counts[b.index].word);
  });
  bool done = true;
  for (int64_t i = 0; i < size && done; ++i) {
    PyObject* number = PyLong_FromLongLong(places[i].count);
    done = number && PyList_Append(words, counts[places[i].index].first) == 0 &&
           PyList_Append(numbers, number) == 0;
    if (number) Py_DecRef(number);
  }
  free(places);
  if (!done) PyErr_Clear();
  return done;
}

}  // namespace
}  // namespace d2l

int64_t d2l_count_tokens(PyObject* lines, PyObject* list, PyObject* str, int64_t seed,
                         PyObject* words, PyObject* numbers) {
  if (!PyList_Size) return -1;
  d2l::Counts counts(static_cast<uint64_t>(seed));
  if (!counts.reserve()) return -1;
  const auto count = [&counts, str](PyObject* object) {
    d2l::Word word;
    return d2l::read_word(object, str, &word) && counts.add(word, object);
  };
  PyObject* ahead[d2l::kAhead] = {};
  int next = 0;
  const ssize_t num_lines = PyList_Size(lines);
  for (ssize_t i = 0; i < num_lines; ++i) {
    PyObject* line = PyList_GetItem(lines, i);
    if (!d2l::is_a(line, list)) return -1;
    const ssize_t size = PyList_Size(line);
    for (ssize_t j = 0; j < size; ++j) {
      PyObject* object = PyList_GetItem(line, j);
      __builtin_prefetch(object);
      std::swap(object, ahead[next]);
      next = (next + 1) % d2l::kAhead;
      if (object && !count(object)) return -1;
    }
  }
  for (int i = 0; i < d2l::kAhead; ++i) {
    PyObject* object = ahead[(next + i) % d2l::kAhead];
    if (object && !count(object)) return -1;
  }
  return d2l::append_sorted(counts, words, numbers) ? counts.size() : -1;
}
