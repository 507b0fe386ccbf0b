// The intrinsics of NEON that ktfast uses, for x86-64 with F16C and FMA, as vectors of the
// compiler. Each function follows Arm's definition (Arm C Language Extensions, "Advanced SIMD
// intrinsics").
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace neon_emulation {

template <class T, int n>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * n)));
};

}  // namespace neon_emulation

using float32x4_t = neon_emulation::VectorOf<float, 4>::type;
using int32x4_t = neon_emulation::VectorOf<int32_t, 4>::type;
using uint32x4_t = neon_emulation::VectorOf<uint32_t, 4>::type;
using int16x8_t = neon_emulation::VectorOf<int16_t, 8>::type;
using uint16x8_t = neon_emulation::VectorOf<uint16_t, 8>::type;
using int16x4_t = neon_emulation::VectorOf<int16_t, 4>::type;
using uint16x4_t = neon_emulation::VectorOf<uint16_t, 4>::type;
using int8x16_t = neon_emulation::VectorOf<int8_t, 16>::type;
using uint8x16_t = neon_emulation::VectorOf<uint8_t, 16>::type;
using uint8x8_t = neon_emulation::VectorOf<uint8_t, 8>::type;
struct float16x4_t {
  uint16x4_t bits;
};
struct float16x8_t {
  uint16x8_t bits;
};
struct uint8x8x3_t {
  uint8x8_t val[3];
};
struct uint8x16x3_t {
  uint8x16_t val[3];
};

namespace neon_emulation {

template <class To, class From>
To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

template <class V, class T>
V loaded(const T* from) {
  V v;
  memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class T>
V filled(T value) {
  V v = {};
  for (unsigned i = 0; i < sizeof(V) / sizeof(T); ++i) v[i] = value;
  return v;
}

template <class Half, class Whole>
Half half_of(Whole v, int high) {
  Half h;
  memcpy(&h, reinterpret_cast<const char*>(&v) + high * sizeof h, sizeof h);
  return h;
}

template <class Whole, class Half>
Whole joined(Half low, Half high) {
  Whole v;
  memcpy(&v, &low, sizeof low);
  memcpy(reinterpret_cast<char*>(&v) + sizeof low, &high, sizeof high);
  return v;
}

}  // namespace neon_emulation

// --- Memory
inline float32x4_t vld1q_f32(const float* p) { return neon_emulation::loaded<float32x4_t>(p); }
inline int32x4_t vld1q_s32(const int32_t* p) { return neon_emulation::loaded<int32x4_t>(p); }
inline uint32x4_t vld1q_u32(const uint32_t* p) { return neon_emulation::loaded<uint32x4_t>(p); }
inline int16x8_t vld1q_s16(const int16_t* p) { return neon_emulation::loaded<int16x8_t>(p); }
inline int8x16_t vld1q_s8(const int8_t* p) { return neon_emulation::loaded<int8x16_t>(p); }
inline uint8x16_t vld1q_u8(const uint8_t* p) { return neon_emulation::loaded<uint8x16_t>(p); }
inline void vst1q_f32(float* p, float32x4_t v) { memcpy(p, &v, sizeof v); }
inline void vst1q_s32(int32_t* p, int32x4_t v) { memcpy(p, &v, sizeof v); }
inline void vst1q_s16(int16_t* p, int16x8_t v) { memcpy(p, &v, sizeof v); }
inline uint8x8x3_t vld3_u8(const uint8_t* p) {
  uint8x8x3_t v = {};
  for (int i = 0; i < 24; ++i) v.val[i % 3][i / 3] = p[i];
  return v;
}

// --- Constants
inline float32x4_t vdupq_n_f32(float x) { return neon_emulation::filled<float32x4_t>(x); }
inline int32x4_t vdupq_n_s32(int32_t x) { return neon_emulation::filled<int32x4_t>(x); }
inline uint32x4_t vdupq_n_u32(uint32_t x) { return neon_emulation::filled<uint32x4_t>(x); }
inline int8x16_t vdupq_n_s8(int8_t x) { return neon_emulation::filled<int8x16_t>(x); }
inline uint8x16_t vdupq_n_u8(uint8_t x) { return neon_emulation::filled<uint8x16_t>(x); }

// --- Float
inline float32x4_t vaddq_f32(float32x4_t a, float32x4_t b) { return a + b; }
inline float32x4_t vsubq_f32(float32x4_t a, float32x4_t b) { return a - b; }
inline float32x4_t vmulq_f32(float32x4_t a, float32x4_t b) { return a * b; }
inline float32x4_t vfmaq_f32(float32x4_t sum, float32x4_t a, float32x4_t b) {
  return _mm_fmadd_ps(a, b, sum);
}
inline float32x4_t vfmsq_f32(float32x4_t sum, float32x4_t a, float32x4_t b) {
  return _mm_fnmadd_ps(a, b, sum);
}
inline float32x4_t vfmaq_laneq_f32(float32x4_t sum, float32x4_t a, float32x4_t b, int lane) {
  return vfmaq_f32(sum, a, vdupq_n_f32(b[lane]));
}
inline float vaddvq_f32(float32x4_t v) { return (v[0] + v[1]) + (v[2] + v[3]); }
inline uint32x4_t vcltq_f32(float32x4_t a, float32x4_t b) {
  return neon_emulation::bits_of<uint32x4_t>(a < b);
}

// --- Integers
inline int32x4_t vaddq_s32(int32x4_t a, int32x4_t b) { return a + b; }
inline uint32x4_t vaddq_u32(uint32x4_t a, uint32x4_t b) { return a + b; }
inline int16x8_t vaddq_s16(int16x8_t a, int16x8_t b) { return a + b; }
inline int16x8_t vsubq_s16(int16x8_t a, int16x8_t b) { return a - b; }
inline int16x8_t vmulq_n_s16(int16x8_t a, int16_t n) { return a * n; }
inline uint32x4_t vandq_u32(uint32x4_t a, uint32x4_t b) { return a & b; }
inline uint32x4_t vbicq_u32(uint32x4_t a, uint32x4_t b) { return a & ~b; }
inline uint8x16_t veorq_u8(uint8x16_t a, uint8x16_t b) { return a ^ b; }
inline uint32x4_t vshrq_n_u32(uint32x4_t a, int n) { return a >> n; }
inline int32_t vaddvq_s32(int32x4_t v) { return v[0] + v[1] + v[2] + v[3]; }
inline uint32_t vaddvq_u32(uint32x4_t v) { return v[0] + v[1] + v[2] + v[3]; }
inline int64_t vaddlvq_s32(int32x4_t v) { return int64_t{v[0]} + v[1] + v[2] + v[3]; }
inline int32x4_t vpadalq_s16(int32x4_t sum, int16x8_t v) {
  for (int i = 0; i < 4; ++i) sum[i] += v[2 * i] + v[2 * i + 1];
  return sum;
}
inline int32x4_t vmlal_s16(int32x4_t sum, int16x4_t a, int16x4_t b) {
  for (int i = 0; i < 4; ++i) sum[i] += a[i] * b[i];
  return sum;
}
inline int32x4_t vdotq_s32(int32x4_t sum, int8x16_t a, int8x16_t b) {
  for (int i = 0; i < 16; ++i) sum[i / 4] += a[i] * b[i];
  return sum;
}
inline int32x4_t vdotq_laneq_s32(int32x4_t sum, int8x16_t a, int8x16_t b, int lane) {
  for (int i = 0; i < 16; ++i) sum[i / 4] += a[i] * b[4 * lane + i % 4];
  return sum;
}

// --- Widths and types
inline int16x4_t vget_low_s16(int16x8_t v) { return neon_emulation::half_of<int16x4_t>(v, 0); }
inline int16x4_t vget_high_s16(int16x8_t v) { return neon_emulation::half_of<int16x4_t>(v, 1); }
inline int32x4_t vmlal_high_s16(int32x4_t sum, int16x8_t a, int16x8_t b) {
  return vmlal_s16(sum, vget_high_s16(a), vget_high_s16(b));
}
inline int32x4_t vmovl_s16(int16x4_t v) { return int32x4_t{v[0], v[1], v[2], v[3]}; }
inline int32x4_t vmovl_high_s16(int16x8_t v) { return vmovl_s16(vget_high_s16(v)); }
inline uint16x8_t vmovl_u8(uint8x8_t v) {
  uint16x8_t wide = {};
  for (int i = 0; i < 8; ++i) wide[i] = v[i];
  return wide;
}
inline uint16x4_t vshrn_n_u32(uint32x4_t v, int n) {
  uint16x4_t narrow = {};
  for (int i = 0; i < 4; ++i) narrow[i] = static_cast<uint16_t>(v[i] >> n);
  return narrow;
}
inline float32x4_t vcvtq_f32_s32(int32x4_t v) {
  return _mm_cvtepi32_ps(neon_emulation::bits_of<__m128i>(v));
}
inline float16x4_t vcvt_f16_f32(float32x4_t v) {
  const __m128i halves = _mm_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
  return {neon_emulation::half_of<uint16x4_t>(halves, 0)};
}
inline float16x8_t vcombine_f16(float16x4_t low, float16x4_t high) {
  return {neon_emulation::joined<uint16x8_t>(low.bits, high.bits)};
}
inline uint16x8_t vcombine_u16(uint16x4_t low, uint16x4_t high) {
  return neon_emulation::joined<uint16x8_t>(low, high);
}
inline int16x8_t vreinterpretq_s16_f16(float16x8_t v) {
  return neon_emulation::bits_of<int16x8_t>(v.bits);
}
inline int16x8_t vreinterpretq_s16_u16(uint16x8_t v) {
  return neon_emulation::bits_of<int16x8_t>(v);
}
inline int16x8_t vreinterpretq_s16_u8(uint8x16_t v) {
  return neon_emulation::bits_of<int16x8_t>(v);
}
inline int8x16_t vreinterpretq_s8_u8(uint8x16_t v) { return neon_emulation::bits_of<int8x16_t>(v); }
inline uint8x16_t vreinterpretq_u8_s16(int16x8_t v) {
  return neon_emulation::bits_of<uint8x16_t>(v);
}
inline uint32x4_t vreinterpretq_u32_f32(float32x4_t v) {
  return neon_emulation::bits_of<uint32x4_t>(v);
}

// --- Tables; a place beyond the table gives zero
inline uint8x16_t vqtbl1q_u8(uint8x16_t table, uint8x16_t places) {
  uint8x16_t v = {};
  for (int i = 0; i < 16; ++i) v[i] = places[i] < 16 ? table[places[i]] : 0;
  return v;
}
inline uint8x16_t vqtbl3q_u8(uint8x16x3_t table, uint8x16_t places) {
  uint8x16_t v = {};
  for (int i = 0; i < 16; ++i) {
    v[i] = places[i] < 48 ? table.val[places[i] / 16][places[i] % 16] : 0;
  }
  return v;
}
