// Parses lines of word vectors, as GloVe and fastText write them: see d2l/data/_vectors.py.
#include <stdint.h>
#include <string.h>

#include "c_api.h"

namespace d2l {
namespace {

// Powers of ten that a double holds exactly.
constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                              1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                              1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr int kMaxPower = 22;
// So many digits make an integer below 2^53, which a double holds exactly, too.
constexpr int kMaxDigits = 15;

bool is_digit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

// What follows the digits: an exponent, as in e-05.
const char* parse_exponent(const char* p, int* exponent) {
  const bool negative = *p == '-';
  if (*p == '-' || *p == '+') ++p;
  if (!is_digit(*p)) return nullptr;
  int value = 0;
  for (; is_digit(*p) && value < 1000; ++p) value = 10 * value + (*p - '0');
  *exponent += negative ? -value : value;
  return p;
}

// Most numbers are a digit, a point and one to seven digits.  These are read as one integer and
// joined by three multiplications, without a branch that depends on how many there are; they have
// zeros behind them up to eight, as if written out.  Null for any other form.  Reads ten bytes.
const char* parse_short(const char* p, float* number) {
  const bool negative = *p == '-';
  p += negative;
  uint64_t digits;
  memcpy(&digits, p + 2, 8);
  digits ^= 0x3030303030303030u;
  const uint64_t others = ((digits + 0x7676767676767676u) | digits) & 0x8080808080808080u;
  if (!is_digit(p[0]) || p[1] != '.' || others == 0 || (others & 0x80) != 0) return nullptr;
  const int length = __builtin_ctzll(others) / 8;  // 1 to 7
  digits &= (uint64_t{1} << 8 * length) - 1;
  digits = (digits * (10 * (1u << 8) + 1) >> 8) & 0x00ff00ff00ff00ffu;
  digits = (digits * (100 * (1u << 16) + 1) >> 16) & 0x0000ffff0000ffffu;
  digits = digits * (10000 * (uint64_t{1} << 32) + 1) >> 32;
  const double whole = p[0] - '0';
  const double value = (whole * 1e8 + static_cast<double>(static_cast<int64_t>(digits))) / 1e8;
  *number = static_cast<float>(negative ? -value : value);
  return p + 2 + length;
}

// The text behind a number, null if it is not plain: more digits than a double holds, a name such
// as nan, or no number at all.  One division or multiplication of two exact doubles is rounded
// once, so that the result has the bits of a correctly rounded conversion.
const char* parse_number(const char* p, float* number) {
  const bool negative = *p == '-';
  if (*p == '-' || *p == '+') ++p;
  const char* begin = p;
  uint64_t digits = 0;  // wraps where there are too many
  for (; is_digit(*p) && p - begin <= kMaxDigits; ++p) digits = 10 * digits + (*p - '0');
  int count = static_cast<int>(p - begin), exponent = 0;
  if (*p == '.') {
    const char* fraction = ++p;
    for (; is_digit(*p) && p - fraction <= kMaxDigits; ++p) digits = 10 * digits + (*p - '0');
    exponent = -static_cast<int>(p - fraction);
    count -= exponent;
  }
  if (count == 0 || count > kMaxDigits) return nullptr;
  if (*p == 'e' || *p == 'E') {
    p = parse_exponent(p + 1, &exponent);
    if (!p) return nullptr;
  }
  if (exponent < -kMaxPower || exponent > kMaxPower) return nullptr;
  double value = static_cast<double>(digits);
  value = exponent < 0 ? value / kPowers[-exponent] : value * kPowers[exponent];
  *number = static_cast<float>(negative ? -value : value);
  return p;
}

// The beginning of the next line; null if this one is not a token and size plain numbers.
const char* parse_line(const char* p, const char* end, int64_t size, float* row) {
  for (int64_t i = 0; i < size; ++i) {
    if (*p++ != ' ') return nullptr;
    const char* next = end - p > 10 ? parse_short(p, &row[i]) : nullptr;
    p = next ? next : parse_number(p, &row[i]);
    if (!p) return nullptr;
  }
  while (*p == ' ' || *p == '\r') ++p;
  return *p == '\n' ? p + 1 : nullptr;
}

}  // namespace
}  // namespace d2l

int64_t d2l_parse_vectors(const char* text, int64_t length, int64_t size, float* rows,
                          char* tokens) {
  const char* const end = text + length;
  char* out = tokens;
  for (const char* p = text; p < end; rows += size) {
    while (*p != ' ' && *p != '\n') *out++ = *p++;
    *out++ = '\n';
    p = d2l::parse_line(p, end, size, rows);
    if (!p) return -1;
  }
  return out - tokens;
}
