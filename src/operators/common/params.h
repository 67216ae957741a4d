// Reads an operator's attributes, which MXNet hands over as pairs of strings.
#ifndef D2L_COMMON_PARAMS_H_
#define D2L_COMMON_PARAMS_H_

#include "error.h"

namespace d2l {

struct Attr {
  const char* key;
  const char* value;
};

constexpr int kMostAttrs = 64;  // of one call

// A number for each of some items: "0.1,0.2,0.3", or a single one that holds for all of them.
// The text is the attribute's and lives as long as the call.
struct RealList {
  const char* text;  // null: all have the value first
  double first;
};

// Writes the numbers of items begin .. end - 1; the text is one that ParamReader has accepted.
void read_list(const RealList& list, int64_t begin, int64_t end, double* numbers);

// Every method leaves *value alone when the attribute is absent, and fails the error when it is
// there and not acceptable.  Call finish() last: it refuses attributes that nobody asked for.
class ParamReader {
 public:
  ParamReader(const char* op, const Attr* attrs, int count, Error* error)
      : op_(op), attrs_(attrs), count_(count), known_(0), error_(error) {}

  // A finite number >= low (> low if open); -DBL_MAX is no limit.
  void real(const char* key, double* value, double low, bool open = false);
  // A number >= 0 and < 1.
  void fraction(const char* key, double* value);
  // A finite number for each of n items, or one for all; at least 1 if they count something.
  void reals(const char* key, RealList* list, int64_t n, bool counts = false);
  void integer(const char* key, int64_t* value, int64_t low, int64_t high);
  void boolean(const char* key, bool* value);
  // One of count names; *index is its number.
  void choice(const char* key, const char* const* names, int count, int* index);
  // Which inputs a call has, bit i for input i: the attribute "given", a string of 0 and 1.  All,
  // where it is absent; the first required ones must be there.
  uint32_t given(int num_inputs, int num_required);
  void finish();

 private:
  const char* find(const char* key);

  const char* op_;
  const Attr* attrs_;
  int count_;
  uint64_t known_;  // bit i: attribute i was asked for
  Error* error_;
};

}  // namespace d2l

#endif  // D2L_COMMON_PARAMS_H_
