// The element types that arrays of vectors may have, and their exact conversion to float and
// double.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "common/host_device.h"

namespace ktfast {

// C++17 has no 16-bit float types, so kernels read the bits.
struct float16_bits {
  uint16_t bits;
};
struct bfloat16_bits {
  uint16_t bits;
};

enum class ElementType { float32, float64, float16, bfloat16, uint8, int8 };

// The float that has these bits.
KTFAST_HD float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

KTFAST_HD float to_float(float value) { return value; }
KTFAST_HD float to_float(uint8_t value) { return static_cast<float>(value); }
KTFAST_HD float to_float(int8_t value) { return static_cast<float>(value); }
KTFAST_HD float to_float(bfloat16_bits value) {
  return float_from_bits(static_cast<uint32_t>(value.bits) << 16);
}
// A subnormal float16 is computed as 2^-14 (1 + m) - 2^-14, which flush-to-zero modes do not
// change.
KTFAST_HD float to_float(float16_bits value) {
#if defined(__CUDA_ARCH__)
  float converted;
  asm("cvt.f32.f16 %0, %1;" : "=f"(converted) : "h"(value.bits));
  return converted;
#else
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const float subnormal = float_from_bits(magnitude + 0x38800000u) - float_from_bits(0x38800000u);
  const uint32_t rebias = exponent == 0x0f800000u ? 0x70000000u : 0x38000000u;
  const float normal = float_from_bits(magnitude + rebias);
  const float absolute = exponent == 0 ? subnormal : normal;
  return sign != 0 ? -absolute : absolute;
#endif
}

KTFAST_HD double to_double(double value) { return value; }
template <class T>
KTFAST_HD double to_double(T value) {
  return static_cast<double>(to_float(value));
}

// Calls f with a null `const T*`, where T is the C++ type of `type`.
template <class F>
void with_element(ElementType type, F f) {
  switch (type) {
    case ElementType::float32:
      return f(static_cast<const float*>(nullptr));
    case ElementType::float64:
      return f(static_cast<const double*>(nullptr));
    case ElementType::float16:
      return f(static_cast<const float16_bits*>(nullptr));
    case ElementType::bfloat16:
      return f(static_cast<const bfloat16_bits*>(nullptr));
    case ElementType::uint8:
      return f(static_cast<const uint8_t*>(nullptr));
    case ElementType::int8:
      return f(static_cast<const int8_t*>(nullptr));
  }
  throw std::invalid_argument("unknown element type");
}

// The size of an element in bytes.
inline int64_t element_size(ElementType type) {
  int64_t size = 0;
  with_element(type, [&](auto* element) {
    size = static_cast<int64_t>(sizeof(std::remove_pointer_t<decltype(element)>));
  });
  return size;
}

}  // namespace ktfast
