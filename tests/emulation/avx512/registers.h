// AVX-512 registers as pairs of AVX registers, and as arrays.
#pragma once

#include <cstdint>
#include <cstring>

namespace avx512_emulation {

#define AVX512_EMULATION_PAIR(Pair, Whole, Half)       \
  struct Pair {                                        \
    Half low, high;                                    \
    Pair(Half l, Half h) : low(l), high(h) {}          \
    Pair(Whole v) { std::memcpy(&low, &v, sizeof v); } \
    operator Whole() const {                           \
      Whole v;                                         \
      std::memcpy(&v, &low, sizeof v);                 \
      return v;                                        \
    }                                                  \
  };
AVX512_EMULATION_PAIR(Floats, __m512, __m256)
AVX512_EMULATION_PAIR(Doubles, __m512d, __m256d)
AVX512_EMULATION_PAIR(Integers, __m512i, __m256i)
#undef AVX512_EMULATION_PAIR

// Lane i holds the register's bytes from i * sizeof(T), as little-endian memory does.
template <class T, int kBytes = 64>
struct Lanes {
  static constexpr int n = kBytes / static_cast<int>(sizeof(T));
  T lane[n];

  Lanes() = default;
  template <class Register>
  explicit Lanes(Register v) {
    static_assert(sizeof v == sizeof lane, "another width");
    std::memcpy(lane, &v, sizeof lane);
  }
  template <class Register>
  void put(Register* to) const {
    static_assert(sizeof *to == sizeof lane, "another width");
    std::memcpy(to, lane, sizeof lane);
  }
  T& operator[](int i) { return lane[i]; }
  const T& operator[](int i) const { return lane[i]; }
};

// The value of undefined registers: NaN in every float type, and no small integer.
inline __m256i undefined() { return _mm256_set1_epi32(-0x00380039); }

}  // namespace avx512_emulation
