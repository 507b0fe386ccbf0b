// The inner loops of kmeans_assign with AVX-512. The products of bfloat16 and int8 codes need
// further instruction set extensions and lie in avx512bf16/ and avx512vnni/.
#include "kmeans_assign/cpu/kernels.h"

#include <immintrin.h>

#include "kmeans_assign/certificate.h"
#include "kmeans_assign/cpu/avx512/product.h"
#include "kmeans_assign/cpu/box_gaps.h"

namespace ktfast::cpu {
namespace {

__mmask16 first(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1);
}

// Loads the elements of the mask as float, and zeros for the others.
template <class T>
__m512 load(const T* x, __mmask16 mask);
template <>
__m512 load(const float* x, __mmask16 mask) {
  return _mm512_maskz_loadu_ps(mask, x);
}
template <>
__m512 load(const float16_bits* x, __mmask16 mask) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, x));
}
template <>
__m512 load(const bfloat16_bits* x, __mmask16 mask) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x)), 16));
}
template <>
__m512 load(const uint8_t* x, __mmask16 mask) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, x)));
}
template <>
__m512 load(const int8_t* x, __mmask16 mask) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, x)));
}

template <class T>
void load_double(const T* x, __mmask16 mask, __m512d* low, __m512d* high) {
  const __m512 value = load(x, mask);
  *low = _mm512_cvtps_pd(_mm512_castps512_ps256(value));
  *high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1));
}
template <>
void load_double(const double* x, __mmask16 mask, __m512d* low, __m512d* high) {
  *low = _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), x);
  *high = _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask >> 8), x + 8);
}

template <class T>
__m512 shifted(const T* x, const float* mean, __mmask16 mask) {
  return _mm512_sub_ps(load(x, mask), _mm512_maskz_loadu_ps(mask, mean));
}
template <>
__m512 shifted(const double* x, const float* mean, __mmask16 mask) {
  __m512d low, high, mean_low, mean_high;
  load_double(x, mask, &low, &high);
  load_double(mean, mask, &mean_low, &mean_high);
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(_mm512_sub_pd(low, mean_low))),
                            _mm512_cvtpd_ps(_mm512_sub_pd(high, mean_high)), 1);
}

template <class T>
void shift_of(const void* x, const float* mean, int64_t length, float* to) {
  const T* values = static_cast<const T*>(x);
  for (int64_t p = 0; p < length; p += 16) {
    const __mmask16 mask = first(length - p);
    _mm512_mask_storeu_ps(to + p, mask, shifted(values + p, mean + p, mask));
  }
}

void shift(const void* x, ElementType type, const float* mean, int64_t length, float* to) {
  switch (type) {
    case ElementType::float32:
      return shift_of<float>(x, mean, length, to);
    case ElementType::float64:
      return shift_of<double>(x, mean, length, to);
    case ElementType::float16:
      return shift_of<float16_bits>(x, mean, length, to);
    case ElementType::bfloat16:
      return shift_of<bfloat16_bits>(x, mean, length, to);
    case ElementType::uint8:
      return shift_of<uint8_t>(x, mean, length, to);
    case ElementType::int8:
      return shift_of<int8_t>(x, mean, length, to);
  }
}

Magnitude magnitude(const float* values, int64_t length) {
  __m512 squares[4], largest = _mm512_setzero_ps();
  for (__m512& square : squares) square = _mm512_setzero_ps();
  for (int64_t p = 0; p < length; p += 64) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int64_t left = length - p - 16 * i;
      const __m512 value =
          _mm512_maskz_loadu_ps(left > 0 ? first(left) : __mmask16{0}, values + p + 16 * i);
      squares[i] = _mm512_fmadd_ps(value, value, squares[i]);
      // The maximum returns its second operand if either operand is NaN, so a later number hides a
      // NaN. The sum of squares keeps the NaN.
      largest = _mm512_max_ps(largest, _mm512_abs_ps(value));
    }
  }
  const __m512 sum =
      _mm512_add_ps(_mm512_add_ps(squares[0], squares[1]), _mm512_add_ps(squares[2], squares[3]));
  return {_mm512_reduce_add_ps(sum), _mm512_reduce_max_ps(largest)};
}

float dot(const float* a, const float* b, int64_t length) {
  __m512 sums[4];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  int64_t p = 0;
  for (; p + 64 <= length; p += 64) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      sums[i] = _mm512_fmadd_ps(_mm512_loadu_ps(a + p + 16 * i), _mm512_loadu_ps(b + p + 16 * i),
                                sums[i]);
    }
  }
  for (int i = 0; p < length; p += 16, ++i) {
    const __mmask16 mask = first(length - p);
    sums[i] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, a + p),
                              _mm512_maskz_loadu_ps(mask, b + p), sums[i]);
  }
  return _mm512_reduce_add_ps(
      _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

void dots(const float* x, const float* const* vectors, int64_t length, float* products) {
  __m512 sums[kDots];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t p = 0; p < length; p += 16) {
    const __mmask16 mask = first(length - p);
    const __m512 value = _mm512_maskz_loadu_ps(mask, x + p);
#pragma GCC unroll 4
    for (int i = 0; i < kDots; ++i) {
      sums[i] = _mm512_fmadd_ps(value, _mm512_maskz_loadu_ps(mask, vectors[i] + p), sums[i]);
    }
  }
  for (int i = 0; i < kDots; ++i) products[i] = _mm512_reduce_add_ps(sums[i]);
}

// The exact distance of certificate.h: lane l of register i is partial sum 8 i + l.
template <class T>
double squared_distance_of(const void* x, const double* c, int64_t length) {
  static_assert(kDistanceLanes == 32, "four registers");
  const T* values = static_cast<const T*>(x);
  __m512d sums[4];
  for (__m512d& sum : sums) sum = _mm512_setzero_pd();
  for (int64_t p = 0; p < length; p += 32) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int64_t left = length - p - 16 * i;
      const __mmask16 mask = left > 0 ? first(left) : __mmask16{0};
      __m512d x_low, x_high, c_low, c_high;
      load_double(values + p + 16 * i, mask, &x_low, &x_high);
      load_double(c + p + 16 * i, mask, &c_low, &c_high);
      const __m512d low = _mm512_sub_pd(x_low, c_low);
      const __m512d high = _mm512_sub_pd(x_high, c_high);
      sums[2 * i] = _mm512_add_pd(sums[2 * i], _mm512_mul_pd(low, low));
      sums[2 * i + 1] = _mm512_add_pd(sums[2 * i + 1], _mm512_mul_pd(high, high));
    }
  }
  const __m512d eight =
      _mm512_add_pd(_mm512_add_pd(sums[0], sums[2]), _mm512_add_pd(sums[1], sums[3]));
  const __m256d four =
      _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

double squared_distance(const void* x, ElementType type, const double* c, int64_t length) {
  switch (type) {
    case ElementType::float32:
      return squared_distance_of<float>(x, c, length);
    case ElementType::float64:
      return squared_distance_of<double>(x, c, length);
    case ElementType::float16:
      return squared_distance_of<float16_bits>(x, c, length);
    case ElementType::bfloat16:
      return squared_distance_of<bfloat16_bits>(x, c, length);
    case ElementType::uint8:
      return squared_distance_of<uint8_t>(x, c, length);
    case ElementType::int8:
      return squared_distance_of<int8_t>(x, c, length);
  }
  return 0;
}

Encoded encode_bfloat16(const float* values, int64_t length, uint16_t* codes) {
  __m512 squares = _mm512_setzero_ps();
  const __m512i half = _mm512_set1_epi32(0x7fff);
  for (int64_t p = 0; p < length; p += 16) {
    const __mmask16 mask = first(length - p);
    const __m512 value = _mm512_maskz_loadu_ps(mask, values + p);
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(half, odd)), 16);
    const __m512 rest = _mm512_sub_ps(value, _mm512_castsi512_ps(_mm512_slli_epi32(rounded, 16)));
    squares = _mm512_fmadd_ps(rest, rest, squares);
    _mm512_mask_cvtepi32_storeu_epi16(codes + p, mask, rounded);
  }
  return {1, _mm512_reduce_add_ps(squares), 0};
}

// The sum wraps around: an infinite number rounds to -2^31, and no bound uses the sum of its row.
int32_t sum_of(__m512i numbers) {
  alignas(64) uint32_t lanes[16];
  _mm512_store_si512(lanes, numbers);
  uint32_t sum = 0;
  for (const uint32_t lane : lanes) sum += lane;
  return static_cast<int32_t>(sum);
}

Encoded encode_int8(const float* values, int64_t length, float reach, int8_t* codes) {
  const float scale = int8_scale(reach);
  const __m512 inverse = _mm512_set1_ps(1 / scale);
  __m512 squares = _mm512_setzero_ps();
  __m512i sum = _mm512_setzero_si512();
  for (int64_t p = 0; p < length; p += 16) {
    const __mmask16 mask = first(length - p);
    const __m512 value = _mm512_maskz_loadu_ps(mask, values + p);
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(value, inverse));
    const __m512 rest = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(rounded), _mm512_set1_ps(scale), value);
    squares = _mm512_fmadd_ps(rest, rest, squares);
    sum = _mm512_add_epi32(sum, rounded);
    _mm512_mask_cvtepi32_storeu_epi8(codes + p, mask, rounded);
  }
  return {scale, _mm512_reduce_add_ps(squares), sum_of(sum)};
}

Encoded encode(const float* values, int64_t length, float reach, CodeType code, void* codes) {
  switch (code) {
    case CodeType::float32:
      for (int64_t p = 0; p < length; p += 16) {
        const __mmask16 mask = first(length - p);
        _mm512_mask_storeu_ps(static_cast<float*>(codes) + p, mask,
                              _mm512_maskz_loadu_ps(mask, values + p));
      }
      return {1, 0, 0};
    case CodeType::bfloat16:
      return encode_bfloat16(values, length, static_cast<uint16_t*>(codes));
    case CodeType::int8:
      return encode_int8(values, length, reach, static_cast<int8_t*>(codes));
  }
  return {};
}

struct Float32Codes {
  using Sum = __m512;
  using Product = float;
  static __m512 multiply(__m512 sum, __m512i x, __m512i c) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(c), sum);
  }
};

float row_reach(const float*, int64_t, float largest) { return largest; }

template <bool kInt>
__m512 score_part(const void* products, int index) {
  if constexpr (kInt) {
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(static_cast<const int32_t*>(products) + index));
  } else {
    return _mm512_loadu_ps(static_cast<const float*>(products) + index);
  }
}

template <bool kInt, bool kTails>
bool select_of(const ScreenTile& tile, uint64_t* masks) {
  __m512 half_norms[4], tails[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    half_norms[i] = _mm512_loadu_ps(tile.half_norms + 16 * i);
    if constexpr (kTails) tails[i] = _mm512_loadu_ps(tile.tails + 16 * i);
  }
  uint64_t any = 0;
  for (int r = 0; r < kTileRows; ++r) {
    const __m512 inverse = _mm512_set1_ps(tile.row_inverse[r]);
    const __m512 row_tail = _mm512_set1_ps(tile.row_tail[r]);
    const __m512 limit = _mm512_set1_ps(tile.row_limit[r]);
    uint64_t mask = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      __m512 value = score_part<kInt>(tile.products, r * kPanelWidth + 16 * i);
      if constexpr (kTails) value = _mm512_fmadd_ps(row_tail, tails[i], value);
      value = _mm512_fnmadd_ps(inverse, half_norms[i], value);
      mask |= static_cast<uint64_t>(_mm512_cmp_ps_mask(value, limit, _CMP_NLT_UQ)) << (16 * i);
    }
    masks[r] = mask;
    any |= mask;
  }
  return any != 0;
}

template <bool kInt>
bool select(const ScreenTile& tile, uint64_t* masks) {
  return tile.tails == nullptr ? select_of<kInt, false>(tile, masks)
                               : select_of<kInt, true>(tile, masks);
}

}  // namespace

AssignKernels assign_kernels_avx512(CodeType code) {
  return {shift,
          magnitude,
          dot,
          dots,
          squared_distance,
          encode,
          row_reach,
          127,
          product_avx512<Float32Codes>,
          code == CodeType::int8 ? select<true> : select<false>,
          box_gaps};
}

}  // namespace ktfast::cpu
