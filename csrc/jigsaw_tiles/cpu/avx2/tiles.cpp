#include "jigsaw_tiles/jigsaw_tiles.h"

// The vector type of AVX2 for the loops of tile_simd.h: registers of 16 pixels.

#include <immintrin.h>

#include "common/host_device.h"
#include "jigsaw_tiles/cpu/tile_kernels.h"
#include "jigsaw_tiles/cpu/tile_simd.h"

namespace ktfast::cpu {
namespace {

// Shuffles that widen a channel's bytes to words: one for the first 16 of a lane's 24 bytes, one
// for the last 16. An index of -1 gives zero.
struct ChannelBytes {
  alignas(32) int8_t first[32];
  alignas(32) int8_t last[32];
};

constexpr ChannelBytes channel_bytes(int c) {
  ChannelBytes b{};
  for (int i = 0; i < 32; ++i) {
    const int byte = 3 * (i % 16 / 2) + c;
    const bool low = i % 2 == 0;
    b.first[i] = static_cast<int8_t>(low && byte < 16 ? byte : -1);
    b.last[i] = static_cast<int8_t>(low && byte >= 16 ? byte - 8 : -1);
  }
  return b;
}

// Word w of three interleaved channels belongs to channel w % 3. Each of a lane's three output
// registers takes words of a channel at different positions. So one shuffle per channel puts every
// word at its final position, and blends select the words of each register.
struct InterleavedBytes {
  alignas(32) int8_t own[3][32];  // the shuffle of each channel
  alignas(32) int8_t all[3][32];  // the shuffle of each output register, for gray tiles
};

constexpr InterleavedBytes interleaved_bytes() {
  InterleavedBytes b{};
  for (int i = 0; i < 3 * 32; ++i) {
    const int word = i / 32 * 8 + i % 16 / 2;
    const int from = word / 3 * 2 + i % 2;
    b.all[i / 32][i % 32] = static_cast<int8_t>(from);
    b.own[word % 3][i % 32] = static_cast<int8_t>(from);
  }
  return b;
}

// Bit p is set if word p of register j belongs to channel c.
constexpr int interleaved_words(int j, int c) {
  int bits = 0;
  for (int p = 0; p < 8; ++p) bits |= (8 * j + p) % 3 == c ? 1 << p : 0;
  return bits;
}

constexpr ChannelBytes kChannelBytes[3] = {channel_bytes(0), channel_bytes(1), channel_bytes(2)};
constexpr InterleavedBytes kInterleavedBytes = interleaved_bytes();

KTFAST_HD __m256i load_aligned(const void* from) {
  return _mm256_load_si256(static_cast<const __m256i*>(from));
}

// Sixteen bytes to each lane.
KTFAST_HD __m256i load_lanes(const uint8_t* low, const uint8_t* high) {
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(low));
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(high));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

struct Avx2 {
  static constexpr int32_t kPixels = 16;
  static constexpr int32_t kLanes = 8;
  using Words = __m256i;

  struct Scale {
    __m256 mean;
    __m256 inverse;
  };

  struct Sums {
    __m256i sum = _mm256_setzero_si256();
    __m256i square = _mm256_setzero_si256();

    KTFAST_HD void add(Words v) {
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(v, _mm256_set1_epi16(1)));
      square = _mm256_add_epi32(square, _mm256_madd_epi16(v, v));
    }
    KTFAST_HD void load(const int32_t (&from)[2][16]) {
      sum = load_aligned(from[0]);
      square = load_aligned(from[1]);
    }
    KTFAST_HD void save(int32_t (&to)[2][16]) const {
      _mm256_store_si256(reinterpret_cast<__m256i*>(to[0]), sum);
      _mm256_store_si256(reinterpret_cast<__m256i*>(to[1]), square);
    }
  };

  static KTFAST_HD int64_t across(__m256i v) {
    const __m256i wide = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
                                          _mm256_cvtepi32_epi64(_mm256_extracti128_si256(v, 1)));
    const __m128i pair =
        _mm_add_epi64(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    return _mm_extract_epi64(pair, 0) + _mm_extract_epi64(pair, 1);
  }

  static KTFAST_HD Words load(const int16_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static KTFAST_HD void store(int16_t* to, Words v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v);
  }
  static KTFAST_HD Words add(Words a, Words b) { return _mm256_add_epi16(a, b); }
  static KTFAST_HD Words sub(Words a, Words b) { return _mm256_sub_epi16(a, b); }
  static KTFAST_HD Words times(Words a, int16_t n) {
    return _mm256_mullo_epi16(a, _mm256_set1_epi16(n));
  }

  // Each lane reads 8 pixels, 24 bytes, with two overlapping loads.
  template <int c>
  static KTFAST_HD Words load_channel(const uint8_t* from) {
    const __m256i first = load_lanes(from, from + 24);
    const __m256i last = load_lanes(from + 8, from + 32);
    return _mm256_or_si256(_mm256_shuffle_epi8(first, load_aligned(kChannelBytes[c].first)),
                           _mm256_shuffle_epi8(last, load_aligned(kChannelBytes[c].last)));
  }

  // Brings the parts of both lanes into the order of memory.
  static KTFAST_HD void join_lanes(const Words (&lanes)[3], Words (&v)[3]) {
    v[0] = _mm256_permute2x128_si256(lanes[0], lanes[1], 0x20);
    v[1] = _mm256_permute2x128_si256(lanes[2], lanes[0], 0x30);
    v[2] = _mm256_permute2x128_si256(lanes[1], lanes[2], 0x31);
  }

  template <int j>
  static KTFAST_HD Words pick(Words red, Words green, Words blue) {
    // Without optimisation, only constants of this form are immediates of an instruction.
    constexpr int kGreen = interleaved_words(j, 1), kBlue = interleaved_words(j, 2);
    return _mm256_blend_epi16(_mm256_blend_epi16(red, green, kGreen), blue, kBlue);
  }

  static KTFAST_HD void interleave(Words (&v)[3]) {
    for (int c = 0; c < 3; ++c) {
      v[c] = _mm256_shuffle_epi8(v[c], load_aligned(kInterleavedBytes.own[c]));
    }
    const Words lanes[3] = {pick<0>(v[0], v[1], v[2]), pick<1>(v[0], v[1], v[2]),
                            pick<2>(v[0], v[1], v[2])};
    join_lanes(lanes, v);
  }

  static KTFAST_HD void repeat(Words (&v)[3]) {
    Words lanes[3];
    for (int j = 0; j < 3; ++j) {
      lanes[j] = _mm256_shuffle_epi8(v[0], load_aligned(kInterleavedBytes.all[j]));
    }
    join_lanes(lanes, v);
  }

  static KTFAST_HD Scale load_scale(const float* mean, const float* inverse) {
    return {_mm256_loadu_ps(mean), _mm256_loadu_ps(inverse)};
  }

  static KTFAST_HD __m256 normalise(__m256i numbers, const Scale& s) {
    return _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(numbers), s.mean), s.inverse);
  }
  static KTFAST_HD __m256 normalise(__m128i words, const Scale& s) {
    return normalise(_mm256_cvtepi16_epi32(words), s);
  }

  // bfloat16_from() of tile_math.h, with the bits in the upper half and zeros in the lower half.
  // The product 65535 x is rounded to multiples of 2^16 times the last place of x, which is the
  // last place of bfloat16. The difference 65536 x - product is exact and is 65536 times the
  // rounded x. Ties go to even, because 65536 x is an even multiple of that step. If 65535 x lies
  // in the binade below 65536 x, then x is within 2^-16 of a power of two, and the finer steps give
  // the same result.
  static KTFAST_HD __m256 round_to_bfloat16(__m256 x) {
    const __m256 scale = _mm256_set1_ps(65536.0f);
    return _mm256_fmadd_ps(x, scale, _mm256_fnmadd_ps(x, scale, x));
  }

  // Numbers at even and at odd positions are computed separately, so that no pack across lanes is
  // needed to bring the upper halves of the floats into place.
  static KTFAST_HD Words bfloat16(Words words, const Scale& s) {
    const __m256i even = _mm256_madd_epi16(words, _mm256_set1_epi32(1));
    const __m256i odd = _mm256_srai_epi32(words, 16);
    const __m256i a = _mm256_castps_si256(round_to_bfloat16(normalise(even, s)));
    const __m256i b = _mm256_castps_si256(round_to_bfloat16(normalise(odd, s)));
    return _mm256_or_si256(_mm256_srli_epi32(a, 16), b);
  }

  struct Floats {
    __m256 low;
    __m256 high;
  };

  static KTFAST_HD Floats floats(Words words, const Scale& low, const Scale& high) {
    return {normalise(_mm256_castsi256_si128(words), low),
            normalise(_mm256_extracti128_si256(words, 1), high)};
  }

  template <TileDtype dtype>
  static KTFAST_HD auto outputs(const int16_t* from, const Scale& s) {
    if constexpr (dtype == TileDtype::bfloat16) {
      return bfloat16(load(from), s);
    } else {
      const Floats v{
          normalise(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)), s),
          normalise(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + kLanes)), s)};
      if constexpr (dtype == TileDtype::float32) {
        return v;
      } else {
        const __m128i low = _mm256_cvtps_ph(v.low, _MM_FROUND_TO_NEAREST_INT);
        const __m128i high = _mm256_cvtps_ph(v.high, _MM_FROUND_TO_NEAREST_INT);
        return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
      }
    }
  }

  static KTFAST_HD void put(Words v, bool stream, void* to) {
    auto* address = static_cast<__m256i*>(to);
    if (stream) {
      _mm256_stream_si256(address, v);
    } else {
      _mm256_storeu_si256(address, v);
    }
  }
  static KTFAST_HD void put(const Floats& v, bool stream, float* to) {
    put(_mm256_castps_si256(v.low), stream, to);
    put(_mm256_castps_si256(v.high), stream, to + kLanes);
  }
};

}  // namespace

TileKernels tile_kernels_avx2() { return tile_kernels<Avx2>(); }

}  // namespace ktfast::cpu
