// Loads and stores. Elements outside the mask are not accessed. An aligned load or store of an
// unaligned address fails.
#pragma once

#include <stdexcept>

#include "registers.h"

namespace avx512_emulation {

inline void check_alignment(const void* place) {
  if (reinterpret_cast<uintptr_t>(place) % 64 != 0) {
    throw std::logic_error("an aligned load or store of 64 bytes across a boundary of 64 bytes");
  }
}

// Elements outside the mask become zeros.
template <class T, int kBytes>
inline Lanes<T, kBytes> masked_load(uint32_t mask, const void* from) {
  Lanes<T, kBytes> all;
  constexpr int n = Lanes<T, kBytes>::n;
  if (mask == (uint32_t{1} << n) - 1) {
    std::memcpy(all.lane, from, kBytes);
    return all;
  }
  for (int i = 0; i < n; ++i) {
    all[i] = T{0};
    if (mask >> i & 1) std::memcpy(&all[i], static_cast<const T*>(from) + i, sizeof(T));
  }
  return all;
}

template <class T>
inline void masked_store(void* to, uint32_t mask, const Lanes<T>& all) {
  for (int i = 0; i < Lanes<T>::n; ++i) {
    if (mask >> i & 1) std::memcpy(static_cast<T*>(to) + i, &all[i], sizeof(T));
  }
}

// The lower parts of 32-bit integers.
template <class T>
inline void store_narrowed(void* to, __mmask16 mask, __m512i v) {
  const Lanes<uint32_t> all(v);
  for (int i = 0; i < all.n; ++i) {
    const T part = static_cast<T>(all[i]);
    if (mask >> i & 1) std::memcpy(static_cast<T*>(to) + i, &part, sizeof part);
  }
}

inline __m512 loadu_ps(const void* from) {
  __m512 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline __m512i loadu_si512(const void* from) {
  __m512i v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline __m512i load_si512(const void* from) {
  check_alignment(from);
  return loadu_si512(from);
}
inline void storeu_ps(void* to, __m512 v) { std::memcpy(to, &v, sizeof v); }
inline void storeu_si512(void* to, __m512i v) { std::memcpy(to, &v, sizeof v); }
inline void store_si512(void* to, __m512i v) {
  check_alignment(to);
  storeu_si512(to, v);
}

inline __m512 maskz_loadu_ps(__mmask16 mask, const void* from) {
  __m512 v;
  masked_load<float, 64>(mask, from).put(&v);
  return v;
}
inline __m512d maskz_loadu_pd(__mmask8 mask, const void* from) {
  __m512d v;
  masked_load<double, 64>(mask, from).put(&v);
  return v;
}
inline __m256i maskz_loadu_epi16(__mmask16 mask, const void* from) {
  __m256i v;
  masked_load<uint16_t, 32>(mask, from).put(&v);
  return v;
}
inline __m128i maskz_loadu_epi8(__mmask16 mask, const void* from) {
  __m128i v;
  masked_load<uint8_t, 16>(mask, from).put(&v);
  return v;
}
inline void mask_storeu_ps(void* to, __mmask16 mask, __m512 v) {
  masked_store(to, mask, Lanes<float>(v));
}
inline void mask_cvtepi32_storeu_epi16(void* to, __mmask16 mask, __m512i v) {
  store_narrowed<uint16_t>(to, mask, v);
}
inline void mask_cvtepi32_storeu_epi8(void* to, __mmask16 mask, __m512i v) {
  store_narrowed<uint8_t>(to, mask, v);
}

}  // namespace avx512_emulation
