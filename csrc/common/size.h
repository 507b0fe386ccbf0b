// Arithmetic of array sizes that throws instead of overflowing.
//
// A caller may ask for the size of any array, and arrays without elements may have sides of up to
// 2^63 - 1. Every size that is computed from such numbers goes through Size.
#pragma once

#include <cstdint>

#include "common/check.h"

namespace ktfast {

// A number of elements or bytes: 0 to 2^63 - 1. Every operation throws if its result is outside.
class Size {
 public:
  Size(int64_t value) : value_(value) {  // NOLINT: every int64_t may take part in a sum
    KTFAST_CHECK(value >= 0, "sizes must not be negative");
  }
  int64_t value() const { return value_; }

  friend Size operator+(Size a, Size b) {
    int64_t sum = 0;
    KTFAST_CHECK(!__builtin_add_overflow(a.value_, b.value_, &sum), kTooLarge);
    return sum;
  }
  friend Size operator*(Size a, Size b) {
    int64_t product = 0;
    KTFAST_CHECK(!__builtin_mul_overflow(a.value_, b.value_, &product), kTooLarge);
    return product;
  }
  // The number of parts of size `part` (at least 1) that hold this size.
  Size parts(int64_t part) const { return value_ / part + (value_ % part != 0 ? 1 : 0); }
  Size rounded_up(int64_t multiple) const { return parts(multiple) * multiple; }

 private:
  static constexpr const char* kTooLarge = "an array of this size would have over 2^63 elements";

  int64_t value_;
};

}  // namespace ktfast
