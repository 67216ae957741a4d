#include "params.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace d2l {

const char* ParamReader::find(const char* key) {
  for (int i = 0; i < count_ && i < kMostAttrs; ++i) {
    if (strcmp(attrs_[i].key, key) == 0) {
      known_ |= uint64_t{1} << i;
      return attrs_[i].value;
    }
  }
  return nullptr;
}

void ParamReader::real(const char* key, double* value, double low, bool open) {
  const char* text = find(key);
  if (!text) return;
  char* end = nullptr;
  const double number = strtod(text, &end);
  if (end == text || *end || !isfinite(number) || number < low || (open && number == low)) {
    if (low == -DBL_MAX) {
      fail(error_, "%s: %s must be a finite number, got %s", op_, key, text);
    } else {
      fail(error_, "%s: %s must be a finite number %s %g, got %s", op_, key, open ? ">" : ">=", low,
           text);
    }
    return;
  }
  *value = number;
}

void ParamReader::fraction(const char* key, double* value) {
  const char* text = find(key);
  if (!text) return;
  char* end = nullptr;
  const double number = strtod(text, &end);
  if (end == text || *end || !(number >= 0 && number < 1)) {
    fail(error_, "%s: %s must be a number >= 0 and < 1, got %s", op_, key, text);
    return;
  }
  *value = number;
}

void read_list(const RealList& list, int64_t begin, int64_t end, double* numbers) {
  char* next = const_cast<char*>(list.text);
  for (int64_t i = 0; i < end; ++i) {
    const double number = next ? strtod(next, &next) : list.first;
    if (next) ++next;  // the comma
    if (i >= begin) numbers[i - begin] = number;
  }
}

void ParamReader::reals(const char* key, RealList* list, int64_t n, bool counts) {
  const char* text = find(key);
  if (!text) return;
  double first = 0;
  int64_t count = 0;
  bool good = true;
  for (const char* next = text; good; ++next) {
    char* end = nullptr;
    const double number = strtod(next, &end);
    good = end != next && (*end == ',' || !*end) && isfinite(number) && (number >= 1 || !counts);
    if (count++ == 0) first = number;
    next = end;
    if (!*next) break;
  }
  if (!good || (count != 1 && count != n)) {
    fail(error_, "%s: %s must be one finite number%s or a list of %lld, got %.80s", op_, key,
         counts ? " >= 1" : "", static_cast<long long>(n), text);
    return;
  }
  *list = {count == 1 ? nullptr : text, first};
}

void ParamReader::integer(const char* key, int64_t* value, int64_t low, int64_t high) {
  const char* text = find(key);
  if (!text) return;
  char* end = nullptr;
  errno = 0;
  const long long number = strtoll(text, &end, 10);
  if (end == text || *end || errno || number < low || number > high) {
    fail(error_, "%s: %s must be an integer from %lld to %lld, got %s", op_, key,
         static_cast<long long>(low), static_cast<long long>(high), text);
    return;
  }
  *value = number;
}

void ParamReader::boolean(const char* key, bool* value) {
  const char* text = find(key);
  if (!text) return;
  if (strcmp(text, "True") == 0 || strcmp(text, "1") == 0) {
    *value = true;
  } else if (strcmp(text, "False") == 0 || strcmp(text, "0") == 0) {
    *value = false;
  } else {
    fail(error_, "%s: %s must be True or False, got %s", op_, key, text);
  }
}

void ParamReader::choice(const char* key, const char* const* names, int count, int* index) {
  const char* text = find(key);
  if (!text) return;
  for (int i = 0; i < count; ++i) {
    if (strcmp(text, names[i]) != 0) continue;
    *index = i;
    return;
  }
  char list[256] = "";
  for (int i = 0; i < count; ++i) {
    const size_t used = strlen(list);
    const char* before = i == 0 ? "" : (i == count - 1 ? " or " : ", ");
    snprintf(list + used, sizeof list - used, "%s%s", before, names[i]);
  }
  fail(error_, "%s: %s must be %s, got %s", op_, key, list, text);
}

uint32_t ParamReader::given(int num_inputs, int num_required) {
  const uint32_t all = (uint32_t{1} << num_inputs) - 1;
  const uint32_t required = (uint32_t{1} << num_required) - 1;
  const char* text = find("given");
  if (!text) return all;
  uint32_t found = 0;
  const int length = static_cast<int>(strlen(text));
  for (int i = 0; i < length && i < num_inputs; ++i) {
    if (text[i] == '1') found |= uint32_t{1} << i;
  }
  if (length != num_inputs || static_cast<int>(strspn(text, "01")) != length ||
      (found & required) != required) {
    fail(error_, "%s: given must have 0 or 1 for each of %d inputs, and 1 for the first %d, got %s",
         op_, num_inputs, num_required, text);
    return all;
  }
  return found;
}

void ParamReader::finish() {
  if (count_ > kMostAttrs) {
    fail(error_, "%s: at most %d attributes are taken, got %d", op_, kMostAttrs, count_);
  }
  for (int i = 0; i < count_ && i < kMostAttrs; ++i) {
    // Names like __profiler_scope__ are MXNet's own notes on a node.
    if ((known_ >> i & 1) == 0 && strncmp(attrs_[i].key, "__", 2) != 0) {
      fail(error_, "%s: unknown attribute %s", op_, attrs_[i].key);
    }
  }
}

}  // namespace d2l
