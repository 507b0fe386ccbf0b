#include "jigsaw_tiles/jigsaw_tiles.h"

// A tile is read 16 pixels and written 8 numbers at a time. There is no AVX-512 file: the op waits
// for memory, and 512-bit arithmetic gained 2 to 10 % (58 -> 57 us an image to float32, 9 tiles of
// 64 px, one Zen 5 core).

#include <immintrin.h>

#include "common/host_device.h"
#include "jigsaw_tiles/tile_kernels.h"
#include "jigsaw_tiles/tile_lane.h"

namespace ktfast::cpu {
namespace {

// Byte c of 16 neighbouring pixels, as 16-bit numbers: three shuffles pick them from 48 bytes.
template <int c>
KTFAST_HD __m256i load_channel(const uint8_t* from) {
  constexpr char z = -1;
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16));
  const __m128i d = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 32));
  const __m128i pick_a = c == 0   ? _mm_setr_epi8(0, 3, 6, 9, 12, 15, z, z, z, z, z, z, z, z, z, z)
                         : c == 1 ? _mm_setr_epi8(1, 4, 7, 10, 13, z, z, z, z, z, z, z, z, z, z, z)
                                  : _mm_setr_epi8(2, 5, 8, 11, 14, z, z, z, z, z, z, z, z, z, z, z);
  const __m128i pick_b = c == 0   ? _mm_setr_epi8(z, z, z, z, z, z, 2, 5, 8, 11, 14, z, z, z, z, z)
                         : c == 1 ? _mm_setr_epi8(z, z, z, z, z, 0, 3, 6, 9, 12, 15, z, z, z, z, z)
                                  : _mm_setr_epi8(z, z, z, z, z, 1, 4, 7, 10, 13, z, z, z, z, z, z);
  const __m128i pick_d = c == 0   ? _mm_setr_epi8(z, z, z, z, z, z, z, z, z, z, z, 1, 4, 7, 10, 13)
                         : c == 1 ? _mm_setr_epi8(z, z, z, z, z, z, z, z, z, z, z, 2, 5, 8, 11, 14)
                                  : _mm_setr_epi8(z, z, z, z, z, z, z, z, z, z, 0, 3, 6, 9, 12, 15);
  const __m128i bytes =
      _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(a, pick_a), _mm_shuffle_epi8(b, pick_b)),
                   _mm_shuffle_epi8(d, pick_d));
  return _mm256_cvtepu8_epi16(bytes);
}

struct Pixels16 {
  __m256i value[3];  // 16 x int16 each
};

// numerators() of tile_math.h for 16 pixels.
template <Color color>
KTFAST_HD Pixels16 numerators16(__m256i r, __m256i g, __m256i b) {
  if (color == Color::plain) return {{r, g, b}};
  if (color == Color::gray) {
    const __m256i sum = _mm256_add_epi16(_mm256_add_epi16(r, g), b);
    return {{sum, sum, sum}};
  }
  const __m256i six = _mm256_set1_epi16(6);
  const __m256i k = _mm256_sub_epi16(_mm256_sub_epi16(_mm256_add_epi16(g, g), r), b);
  return {{_mm256_add_epi16(_mm256_mullo_epi16(r, six), k),
           _mm256_sub_epi16(_mm256_mullo_epi16(g, six), _mm256_add_epi16(k, k)),
           _mm256_add_epi16(_mm256_mullo_epi16(b, six), k)}};
}

// Stores r0 g0 b0 r1 ...: within each half, output j takes every third number from each channel.
KTFAST_HD void store_interleaved(const Pixels16& v, int16_t* to) {
  constexpr char z = -1;
  const __m256i spread[3] = {
      _mm256_setr_epi8(0, 1, z, z, z, z, 2, 3, z, z, z, z, 4, 5, z, z,  //
                       0, 1, z, z, z, z, 2, 3, z, z, z, z, 4, 5, z, z),
      _mm256_setr_epi8(z, z, 6, 7, z, z, z, z, 8, 9, z, z, z, z, 10, 11,  //
                       z, z, 6, 7, z, z, z, z, 8, 9, z, z, z, z, 10, 11),
      _mm256_setr_epi8(z, z, z, z, 12, 13, z, z, z, z, 14, 15, z, z, z, z,  //
                       z, z, z, z, 12, 13, z, z, z, z, 14, 15, z, z, z, z)};
  const __m256i spread_g[3] = {
      _mm256_setr_epi8(z, z, 0, 1, z, z, z, z, 2, 3, z, z, z, z, 4, 5,  //
                       z, z, 0, 1, z, z, z, z, 2, 3, z, z, z, z, 4, 5),
      _mm256_setr_epi8(z, z, z, z, 6, 7, z, z, z, z, 8, 9, z, z, z, z,  //
                       z, z, z, z, 6, 7, z, z, z, z, 8, 9, z, z, z, z),
      _mm256_setr_epi8(10, 11, z, z, z, z, 12, 13, z, z, z, z, 14, 15, z, z,  //
                       10, 11, z, z, z, z, 12, 13, z, z, z, z, 14, 15, z, z)};
  const __m256i spread_b[3] = {
      _mm256_setr_epi8(z, z, z, z, 0, 1, z, z, z, z, 2, 3, z, z, z, z,  //
                       z, z, z, z, 0, 1, z, z, z, z, 2, 3, z, z, z, z),
      _mm256_setr_epi8(4, 5, z, z, z, z, 6, 7, z, z, z, z, 8, 9, z, z,  //
                       4, 5, z, z, z, z, 6, 7, z, z, z, z, 8, 9, z, z),
      _mm256_setr_epi8(z, z, 10, 11, z, z, z, z, 12, 13, z, z, z, z, 14, 15,  //
                       z, z, 10, 11, z, z, z, z, 12, 13, z, z, z, z, 14, 15)};
  for (int j = 0; j < 3; ++j) {
    const __m256i mixed =
        _mm256_or_si256(_mm256_or_si256(_mm256_shuffle_epi8(v.value[0], spread[j]),
                                        _mm256_shuffle_epi8(v.value[1], spread_g[j])),
                        _mm256_shuffle_epi8(v.value[2], spread_b[j]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 8 * j), _mm256_castsi256_si128(mixed));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 24 + 8 * j),
                     _mm256_extracti128_si256(mixed, 1));
  }
}

// Sums in 32-bit lanes; a lane gains at most 2 * 1785^2 per step, so it must be emptied every 300
// steps.
struct LaneSums {
  __m256i sum[3];
  __m256i square[3];

  KTFAST_HD void clear() {
    for (int c = 0; c < 3; ++c) sum[c] = square[c] = _mm256_setzero_si256();
  }
  KTFAST_HD void add(int c, __m256i v) {
    sum[c] = _mm256_add_epi32(sum[c], _mm256_madd_epi16(v, _mm256_set1_epi16(1)));
    square[c] = _mm256_add_epi32(square[c], _mm256_madd_epi16(v, v));
  }
  KTFAST_HD void empty_into(TileSums* total) {
    for (int c = 0; c < 3; ++c) {
      total->sum[c] += across(sum[c]);
      total->square[c] += across(square[c]);
    }
    clear();
  }
  static KTFAST_HD int64_t across(__m256i v) {
    const __m256i wide = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
                                          _mm256_cvtepi32_epi64(_mm256_extracti128_si256(v, 1)));
    const __m128i pair =
        _mm_add_epi64(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    return _mm_extract_epi64(pair, 0) + _mm_extract_epi64(pair, 1);
  }
};

template <Color color, bool channels_last>
TileSums read_colored(const TileSource& s, int16_t* kept) {
  constexpr int32_t kStepsBetweenEmptying = 300;
  // A tile's rows are too short for the processor to foresee the next: 85 -> 58 us an image of 9
  // tiles, Zen 5.
  constexpr int32_t kRowsAhead = 8;
  const int32_t steps = s.size / 16;
  const int32_t plane = s.size * s.size;
  TileSums total;
  LaneSums lanes;
  lanes.clear();
  int32_t since = 0;
  for (int32_t y = 0; y < s.size; ++y) {
    if (since + steps > kStepsBetweenEmptying) {
      lanes.empty_into(&total);
      since = 0;
    }
    since += steps;
    const uint8_t* red = s.channel[0] + y * s.row_bytes;
    const uint8_t* green = s.channel[1] + y * s.row_bytes;
    const uint8_t* blue = s.channel[2] + y * s.row_bytes;
    for (int32_t ahead = 0; y + kRowsAhead < s.size && ahead < 3 * s.size; ahead += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(green + kRowsAhead * s.row_bytes + ahead),
                   _MM_HINT_T0);
    }
    int32_t x = 0;
    for (; x < 16 * steps; x += 16) {
      const Pixels16 v =
          numerators16<color>(load_channel<0>(red + 3 * x), load_channel<1>(green + 3 * x),
                              load_channel<2>(blue + 3 * x));
      for (int c = 0; c < 3; ++c) {
        lanes.add(c, v.value[c]);
        if (!channels_last) {
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(kept + c * plane + y * s.size + x),
                              v.value[c]);
        }
      }
      if (channels_last) store_interleaved(v, kept + 3 * (y * s.size + x));
    }
    for (; x < s.size; ++x) {
      const Pixel v = numerators(color, red[3 * x], green[3 * x + 1], blue[3 * x + 2]);
      for (int c = 0; c < 3; ++c) {
        total.sum[c] += v.value[c];
        total.square[c] += int64_t{v.value[c]} * v.value[c];
        kept[element_index(channels_last, s.size, y * s.size + x, c)] =
            static_cast<int16_t>(v.value[c]);
      }
    }
  }
  lanes.empty_into(&total);
  return total;
}

template <Color color>
TileSums read_ordered(const TileSource& s, bool channels_last, int16_t* kept) {
  return channels_last ? read_colored<color, true>(s, kept) : read_colored<color, false>(s, kept);
}

TileSums read_tile(const TileSource& s, bool channels_last, int16_t* kept) {
  switch (s.color) {
    case Color::gray:
      return read_ordered<Color::gray>(s, channels_last, kept);
    case Color::projection:
      return read_ordered<Color::projection>(s, channels_last, kept);
    case Color::plain:
      break;
  }
  return read_ordered<Color::plain>(s, channels_last, kept);
}

constexpr int kLanes = 8;

KTFAST_HD void store8(__m256 v, bool aligned_stream, float* to) {
  if (aligned_stream) {
    _mm256_stream_ps(to, v);
  } else {
    _mm256_storeu_ps(to, v);
  }
}

KTFAST_HD void store8(__m128i v, bool aligned_stream, uint16_t* to) {
  auto* address = reinterpret_cast<__m128i*>(to);
  if (aligned_stream) {
    _mm_stream_si128(address, v);
  } else {
    _mm_storeu_si128(address, v);
  }
}

// bfloat16_from() of tile_math.h for 8 numbers.
KTFAST_HD __m128i bfloat16_from8(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

template <TileDtype dtype>
KTFAST_HD auto converted(__m256 v) {
  if constexpr (dtype == TileDtype::float32) return v;
  if constexpr (dtype == TileDtype::float16) return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
  if constexpr (dtype == TileDtype::bfloat16) return bfloat16_from8(v);
}

template <TileDtype dtype>
void write_as(const int16_t* kept, int64_t n, const TileScaling& f, bool stream, void* out) {
  auto* to = static_cast<typename Output<dtype>::Type*>(out);
  alignas(32) float means[3 * kLanes];
  alignas(32) float inverses[3 * kLanes];
  for (int i = 0; i < 3 * kLanes; ++i) {
    means[i] = f.mean[i % 3];
    inverses[i] = f.inverse[i % 3];
  }
  const bool aligned_stream = stream && reinterpret_cast<uintptr_t>(out) % 32 == 0;
  int64_t i = 0;
  for (; i + 3 * kLanes <= n; i += 3 * kLanes) {
    for (int j = 0; j < 3 * kLanes; j += kLanes) {
      const __m128i from = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kept + i + j));
      const __m256 number = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(from));
      const __m256 v = _mm256_mul_ps(_mm256_sub_ps(number, _mm256_load_ps(means + j)),
                                     _mm256_load_ps(inverses + j));
      store8(converted<dtype>(v), aligned_stream, to + i + j);
    }
  }
  for (; i < n; ++i) {
    to[i] = Output<dtype>::from(normalised(kept[i], f.mean[i % 3], f.inverse[i % 3]));
  }
}

void write_tile(const int16_t* kept, int64_t n, const TileScaling& f, TileDtype dtype, bool stream,
                void* out) {
  switch (dtype) {
    case TileDtype::float32:
      write_as<TileDtype::float32>(kept, n, f, stream, out);
      break;
    case TileDtype::float16:
      write_as<TileDtype::float16>(kept, n, f, stream, out);
      break;
    case TileDtype::bfloat16:
      write_as<TileDtype::bfloat16>(kept, n, f, stream, out);
      break;
  }
  if (stream) _mm_sfence();  // orders the streamed stores before whatever tells others of the tile
}

}  // namespace

TileKernels tile_kernels_avx2() { return {&read_tile, &write_tile}; }

}  // namespace ktfast::cpu
