#include <immintrin.h>

#include <cstring>

#include "image_resize/cpu/resize_kernels.h"

namespace ktfast::cpu {
namespace {

// (high * 2^kHalfBits + low) / 2^kWeightBits, rounded half up.
__m256i rounded(__m256i high, __m256i low) {
  const __m256i half = _mm256_set1_epi32(1 << (kWeightBits - 1));
  const __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(high, kHalfBits), low);
  return _mm256_srai_epi32(_mm256_add_epi32(sum, half), kWeightBits);
}

// Four pixels from an address. Bytes behind `end` are zero.
__m128i load(const uint8_t* from, const uint8_t* end) {
  constexpr int64_t kBytes = 16;
  if (end - from >= kBytes) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  uint8_t last[kBytes] = {};
  if (from < end) memcpy(last, from, static_cast<size_t>(end - from));
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(last));
}

void row(const uint8_t* pixels, const uint8_t* end, const Axis& axis, uint8_t* out) {
  // The bytes of two pixels side by side as 16-bit numbers, channel by channel.
  const __m256i first = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1));
  const __m256i second = _mm256_add_epi8(first, _mm256_set1_epi16(8));
  const auto n = static_cast<int64_t>(axis.first.size());
  const int32_t* from = axis.first.data();
  const auto* weights = reinterpret_cast<const __m256i*>(axis.spread.data());
  for (int64_t i = 0; i < n; i += 2, out += 8) {
    const uint8_t* one = pixels + int64_t{from[i]} * 4;
    const uint8_t* other = pixels + int64_t{from[i + 1 < n ? i + 1 : i]} * 4;
    __m256i high = _mm256_setzero_si256(), low = high;
    for (int64_t tap = 0; tap < axis.n_taps; tap += kTaps, one += 16, other += 16, weights += 4) {
      const __m256i four = _mm256_set_m128i(load(other, end), load(one, end));
      const __m256i a = _mm256_shuffle_epi8(four, first);
      const __m256i b = _mm256_shuffle_epi8(four, second);
      const auto times = [&](__m256i pair, int kind) {
        return _mm256_madd_epi16(pair, _mm256_loadu_si256(weights + kind));
      };
      high = _mm256_add_epi32(high, _mm256_add_epi32(times(a, 0), times(b, 2)));
      low = _mm256_add_epi32(low, _mm256_add_epi32(times(a, 1), times(b, 3)));
    }
    const __m256i words = rounded(high, low);
    const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(words, words), words);
    const int32_t result[2] = {_mm256_extract_epi32(bytes, 0), _mm256_extract_epi32(bytes, 4)};
    memcpy(out, result, sizeof result);
  }
}

// Four pixels of one output row, as bytes.
__m128i four_pixels(const uint8_t* lines, int64_t pitch, const int16_t* halves, int64_t n_taps) {
  __m256i high[2] = {}, low[2] = {};
  for (int64_t tap = 0; tap < n_taps; tap += 2, lines += 2 * pitch, halves += 4) {
    int32_t high_pair, low_pair;
    memcpy(&high_pair, halves, 4);
    memcpy(&low_pair, halves + 2, 4);
    if ((high_pair | low_pair) == 0) continue;
    const auto line = [](const uint8_t* at) {
      return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    };
    const __m256i one = line(lines), other = line(lines + pitch);
    const __m256i pairs[2] = {_mm256_unpacklo_epi16(one, other), _mm256_unpackhi_epi16(one, other)};
    for (int i = 0; i < 2; ++i) {
      high[i] =
          _mm256_add_epi32(high[i], _mm256_madd_epi16(pairs[i], _mm256_set1_epi32(high_pair)));
      low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(pairs[i], _mm256_set1_epi32(low_pair)));
    }
  }
  // Packing undoes the order of unpacking: bytes 0-7 are in the lower half, 8-15 in the upper half.
  const __m256i words = _mm256_packus_epi32(rounded(high[0], low[0]), rounded(high[1], low[1]));
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

void column(const uint8_t* lines, int64_t pitch, int64_t width, const Axis& axis, int64_t y,
            uint8_t* out, const uint8_t* end) {
  const __m128i rgb = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  const int16_t* halves = axis.halves.data() + y * axis.n_taps * 2;
  for (int64_t x = 0; x < width; x += 4, out += 12) {
    const __m128i pixels =
        _mm_shuffle_epi8(four_pixels(lines + x * 4, pitch, halves, axis.n_taps), rgb);
    if (end - out >= 16) {
      // The next store, or the next row, overwrites the bytes behind these pixels.
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), pixels);
    } else {
      uint8_t last[16];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(last), pixels);
      const int64_t n_bytes = width - x < 4 ? 3 * (width - x) : 12;
      memcpy(out, last, static_cast<size_t>(n_bytes));
    }
  }
}

}  // namespace

ResizeKernels resize_kernels_avx2() { return {row, column}; }

}  // namespace ktfast::cpu
