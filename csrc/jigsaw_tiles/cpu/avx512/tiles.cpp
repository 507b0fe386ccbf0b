#include "jigsaw_tiles/jigsaw_tiles.h"

// The vector type of AVX-512 for the loops of tile_simd.h: registers of 32 pixels.

#include <immintrin.h>

#include "common/host_device.h"
#include "jigsaw_tiles/cpu/tile_kernels.h"
#include "jigsaw_tiles/cpu/tile_simd.h"

namespace ktfast::cpu {
namespace {

// `word` lists which of the 48 words of 32 pixels hold a channel's bytes. `select` is 1 for these
// bytes and 0 for their neighbours. Multiplying the bytes by `select` and adding pairs extracts the
// channel.
struct ChannelWords {
  alignas(64) int16_t word[32];
  alignas(64) int8_t select[64];
};

constexpr ChannelWords channel_words(int c) {
  ChannelWords w{};
  for (int x = 0; x < 32; ++x) {
    w.word[x] = static_cast<int16_t>((3 * x + c) / 2);
    w.select[2 * x + (3 * x + c) % 2] = 1;
  }
  return w;
}

// The shuffles that make register j of three interleaved channels. `pixel` is the pixel of each
// word. `red_green` takes the words from the registers of red and green. `blue` then takes the
// words of blue from the register of blue, and keeps the other words.
struct InterleavedWords {
  alignas(64) int16_t pixel[32];
  alignas(64) int16_t red_green[32];
  alignas(64) int16_t blue[32];
};

constexpr InterleavedWords interleaved_words(int j) {
  InterleavedWords w{};
  for (int i = 0; i < 32; ++i) {
    const int pixel = (32 * j + i) / 3;
    const int c = (32 * j + i) % 3;
    w.pixel[i] = static_cast<int16_t>(pixel);
    w.red_green[i] = static_cast<int16_t>(c == 1 ? 32 + pixel : pixel);
    w.blue[i] = static_cast<int16_t>(c == 2 ? 32 + pixel : i);
  }
  return w;
}

// Separates the upper and the lower words of 32 floats in two registers.
struct FloatWords {
  alignas(64) int16_t upper[32];
  alignas(64) int16_t lower[32];
};

constexpr FloatWords float_words() {
  FloatWords w{};
  for (int i = 0; i < 32; ++i) {
    w.upper[i] = static_cast<int16_t>(2 * i + 1);
    w.lower[i] = static_cast<int16_t>(2 * i);
  }
  return w;
}

constexpr FloatWords kFloatWords = float_words();
constexpr ChannelWords kChannelWords[3] = {channel_words(0), channel_words(1), channel_words(2)};
constexpr InterleavedWords kInterleavedWords[3] = {interleaved_words(0), interleaved_words(1),
                                                   interleaved_words(2)};

struct Avx512 {
  static constexpr int32_t kPixels = 32;
  static constexpr int32_t kLanes = 16;
  using Words = __m512i;

  struct Scale {
    __m512 mean;
    __m512 inverse;
  };

  struct Sums {
    __m512i sum = _mm512_setzero_si512();
    __m512i square = _mm512_setzero_si512();

    KTFAST_HD void add(Words v) {
      sum = _mm512_add_epi32(sum, _mm512_madd_epi16(v, _mm512_set1_epi16(1)));
      square = _mm512_add_epi32(square, _mm512_madd_epi16(v, v));
    }
    KTFAST_HD void load(const int32_t (&from)[2][16]) {
      sum = _mm512_load_si512(from[0]);
      square = _mm512_load_si512(from[1]);
    }
    KTFAST_HD void save(int32_t (&to)[2][16]) const {
      _mm512_store_si512(to[0], sum);
      _mm512_store_si512(to[1], square);
    }
  };

  static KTFAST_HD int64_t across(__m512i v) {
    const __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(v));
    const __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(v, 1));
    return _mm512_reduce_add_epi64(_mm512_add_epi64(low, high));
  }

  static KTFAST_HD Words load(const int16_t* from) { return _mm512_loadu_si512(from); }
  static KTFAST_HD void store(int16_t* to, Words v) { _mm512_storeu_si512(to, v); }
  static KTFAST_HD Words add(Words a, Words b) { return _mm512_add_epi16(a, b); }
  static KTFAST_HD Words sub(Words a, Words b) { return _mm512_sub_epi16(a, b); }
  static KTFAST_HD Words times(Words a, int16_t n) {
    return _mm512_mullo_epi16(a, _mm512_set1_epi16(n));
  }

  template <int c>
  static KTFAST_HD Words load_channel(const uint8_t* from) {
    const __m256i rest = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 64));
    const __m512i words = _mm512_permutex2var_epi16(_mm512_loadu_si512(from),
                                                    _mm512_load_si512(kChannelWords[c].word),
                                                    _mm512_castsi256_si512(rest));
    return _mm512_maddubs_epi16(words, _mm512_load_si512(kChannelWords[c].select));
  }

  static KTFAST_HD void interleave(Words (&v)[3]) {
    const Words channel[3] = {v[0], v[1], v[2]};
    for (int j = 0; j < 3; ++j) {
      const __m512i red_green = _mm512_permutex2var_epi16(
          channel[0], _mm512_load_si512(kInterleavedWords[j].red_green), channel[1]);
      v[j] = _mm512_permutex2var_epi16(red_green, _mm512_load_si512(kInterleavedWords[j].blue),
                                       channel[2]);
    }
  }

  static KTFAST_HD void repeat(Words (&v)[3]) {
    const Words gray = v[0];
    for (int j = 0; j < 3; ++j) {
      v[j] = _mm512_permutexvar_epi16(_mm512_load_si512(kInterleavedWords[j].pixel), gray);
    }
  }

  static KTFAST_HD Scale load_scale(const float* mean, const float* inverse) {
    return {_mm512_loadu_ps(mean), _mm512_loadu_ps(inverse)};
  }

  static KTFAST_HD __m512 normalise(__m256i words, const Scale& s) {
    const __m512 number = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(words));
    return _mm512_mul_ps(_mm512_sub_ps(number, s.mean), s.inverse);
  }

  template <TileDtype dtype>
  static KTFAST_HD Words to_16_bits(__m512 low, __m512 high) {
    if constexpr (dtype == TileDtype::float16) {
      const __m256i halves = _mm512_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT);
      return _mm512_inserti64x4(_mm512_castsi256_si512(halves),
                                _mm512_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT), 1);
    } else {
      // bfloat16_from() of tile_math.h for 32 floats: an upper word is raised by one if its lower
      // word exceeds 2^15. If the upper word is odd, one is first added to the lower word.
      const __m512i a = _mm512_castps_si512(low);
      const __m512i b = _mm512_castps_si512(high);
      const __m512i upper = _mm512_permutex2var_epi16(a, _mm512_load_si512(kFloatWords.upper), b);
      const __m512i lower = _mm512_permutex2var_epi16(a, _mm512_load_si512(kFloatWords.lower), b);
      const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi16(1));
      const __mmask32 up =
          _mm512_cmpgt_epu16_mask(_mm512_adds_epu16(lower, odd), _mm512_set1_epi16(INT16_MIN));
      return _mm512_mask_add_epi16(upper, up, upper, _mm512_set1_epi16(1));
    }
  }

  struct Floats {
    __m512 low;
    __m512 high;
  };

  static KTFAST_HD Floats floats(Words words, const Scale& low, const Scale& high) {
    return {normalise(_mm512_castsi512_si256(words), low),
            normalise(_mm512_extracti64x4_epi64(words, 1), high)};
  }

  template <TileDtype dtype>
  static KTFAST_HD auto outputs(const int16_t* from, const Scale& s) {
    const __m512 low = normalise(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)), s);
    const __m512 high =
        normalise(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + kLanes)), s);
    if constexpr (dtype == TileDtype::float32) {
      return Floats{low, high};
    } else {
      return to_16_bits<dtype>(low, high);
    }
  }

  static KTFAST_HD void put(Words v, bool stream, void* to) {
    if (stream) {
      _mm512_stream_si512(static_cast<__m512i*>(to), v);
    } else {
      _mm512_storeu_si512(to, v);
    }
  }
  static KTFAST_HD void put(const Floats& v, bool stream, float* to) {
    put(_mm512_castps_si512(v.low), stream, to);
    put(_mm512_castps_si512(v.high), stream, to + kLanes);
  }
};

}  // namespace

TileKernels tile_kernels_avx512() { return tile_kernels<Avx512>(); }

}  // namespace ktfast::cpu
