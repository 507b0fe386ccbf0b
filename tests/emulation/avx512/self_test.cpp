// Applies each intrinsic to arrays of registers, for test_emulation.py. Built with the emulation
// and, on a processor with AVX-512, also without.

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <exception>

#if defined(WITH_TILES)
#include "common/amx.h"
#endif

namespace {

constexpr int64_t kBytes = 64;

// Reads an address as the type that the intrinsic takes.
struct Argument {
  const char* place;
  template <class T>
  operator T() const {
    T value;
    std::memcpy(&value, place, sizeof value);
    return value;
  }
};

template <class T>
void put(char* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

}  // namespace

// Arguments and results lie 64 bytes apart. The function returns an error message or nullptr.
#define TEST(name, statement)                                                           \
  extern "C" __attribute__((visibility("default"))) const char* name(                   \
      char* out, const char* first, const char* second, const char* third, int64_t n) { \
    try {                                                                               \
      for (int64_t i = 0; i < n * kBytes; i += kBytes) {                                \
        [[maybe_unused]] const Argument a{first + i}, b{second + i}, c{third + i};      \
        [[maybe_unused]] char* to = out + i;                                            \
        statement;                                                                      \
      }                                                                                 \
    } catch (const std::exception& error) {                                             \
      static char what[200];                                                            \
      std::strncpy(what, error.what(), sizeof what - 1);                                \
      return what;                                                                      \
    }                                                                                   \
    return nullptr;                                                                     \
  }
#define TEST_0(name) TEST(name, put(to, _mm512_##name()))
#define TEST_1(name) TEST(name, put(to, _mm512_##name(a)))
#define TEST_2(name) TEST(name, put(to, _mm512_##name(a, b)))
#define TEST_3(name) TEST(name, put(to, _mm512_##name(a, b, c)))

TEST_0(setzero_ps)
TEST_0(setzero_pd)
TEST_0(setzero_si512)
TEST_1(set1_ps)
TEST_1(set1_epi8)
TEST_1(set1_epi16)
TEST_1(set1_epi32)
TEST_1(abs_ps)
TEST_1(castpd512_pd256)
TEST_1(castps256_ps512)
TEST_1(castps512_ps256)
TEST_1(castps_si512)
TEST_1(castsi256_si512)
TEST_1(castsi512_ps)
TEST_1(castsi512_si256)
TEST_1(cvtepi16_epi32)
TEST_1(cvtepi32_epi64)
TEST_1(cvtepi32_ps)
TEST_1(cvtepi8_epi32)
TEST_1(cvtepu16_epi32)
TEST_1(cvtepu8_epi32)
TEST_1(cvtpd_ps)
TEST_1(cvtph_ps)
TEST_1(cvtps_epi32)
TEST_1(cvtps_pd)
TEST_1(cvtss_f32)
TEST_1(reduce_add_epi64)
TEST_1(reduce_add_ps)
TEST_1(reduce_max_ps)
TEST_2(add_epi16)
TEST_2(add_epi32)
TEST_2(add_epi64)
TEST_2(add_pd)
TEST_2(add_ps)
TEST_2(adds_epu16)
TEST_2(and_si512)
TEST_2(cmpgt_epu16_mask)
TEST_2(cvtne2ps_pbh)
TEST_2(madd_epi16)
TEST_2(maddubs_epi16)
TEST_2(max_ps)
TEST_2(mul_pd)
TEST_2(mul_ps)
TEST_2(mullo_epi16)
TEST_2(permutexvar_epi16)
TEST_2(sub_epi16)
TEST_2(sub_pd)
TEST_2(sub_ps)
TEST_3(dpbf16_ps)
TEST_3(dpbusd_epi32)
TEST_3(fmadd_ps)
TEST_3(fnmadd_ps)
TEST_3(permutex2var_epi16)
TEST(cmp_ps_mask, put(to, _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ)))
TEST(cvtps_ph, put(to, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)))
TEST(slli_epi32, put(to, _mm512_slli_epi32(a, 16)))
TEST(srli_epi32, put(to, _mm512_srli_epi32(a, 16)))
TEST(extractf32x8_ps, put(to, _mm512_extractf32x8_ps(a, 1)))
TEST(extractf64x4_pd, put(to, _mm512_extractf64x4_pd(a, 1)))
TEST(extracti64x4_epi64, put(to, _mm512_extracti64x4_epi64(a, 1)))
TEST(insertf32x8, put(to, _mm512_insertf32x8(a, b, 1)))
TEST(inserti64x4, put(to, _mm512_inserti64x4(a, b, 1)))
TEST(mask_add_epi16, put(to, _mm512_mask_add_epi16(a, b, a, c)))

// Loads and stores: `a` points to the memory, `b` to the mask.
TEST(load_si512, put(to, _mm512_load_si512(a.place)))
TEST(loadu_si512, put(to, _mm512_loadu_si512(a.place)))
TEST(loadu_ps, put(to, _mm512_loadu_ps(a.place)))
TEST(maskz_loadu_ps, put(to, _mm512_maskz_loadu_ps(b, a.place)))
TEST(maskz_loadu_pd, put(to, _mm512_maskz_loadu_pd(b, a.place)))
TEST(maskz_loadu_epi16, put(to, _mm256_maskz_loadu_epi16(b, a.place)))
TEST(maskz_loadu_epi8, put(to, _mm_maskz_loadu_epi8(b, a.place)))
TEST(store_si512, _mm512_store_si512(to, a))
TEST(storeu_si512, _mm512_storeu_si512(to, a))
TEST(storeu_ps, _mm512_storeu_ps(to, a))
TEST(stream_si512, _mm512_stream_si512(reinterpret_cast<__m512i*>(to), a))
TEST(mask_storeu_ps, _mm512_mask_storeu_ps(to, b, a))
TEST(mask_cvtepi32_storeu_epi16, _mm512_mask_cvtepi32_storeu_epi16(to, b, a))
TEST(mask_cvtepi32_storeu_epi8, _mm512_mask_cvtepi32_storeu_epi8(to, b, a))

// Products of whole tiles: `a` points to the sums, `b` and `c` to the factors.
#define TEST_TILES(name)                                                                     \
  TEST(name, const ktfast::cpu::TileScope scope; _tile_zero(3); _tile_loadd(0, a.place, 64); \
       _tile_loadd(1, b.place, 64); _tile_loadd(2, c.place, 64); _tile_##name(0, 1, 2);      \
       _tile_stored(0, to, 64); _tile_stored(3, to + 16 * 64, 64); i += 31 * 64)
#if defined(WITH_TILES)
TEST_TILES(dpbsud)
TEST_TILES(dpbf16ps)
#endif

// Sets the rounding mode of the calling thread and returns the previous mode.
extern "C" __attribute__((visibility("default"))) uint32_t set_environment(uint32_t mxcsr) {
  const uint32_t before = _mm_getcsr();
  _mm_setcsr(mxcsr);
  return before;
}
