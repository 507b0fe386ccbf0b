// Included in place of the compiler's <immintrin.h>. Implements every AVX-512 and AMX intrinsic
// that the kernels use with AVX2, FMA and F16C, as Intel defines it. An intrinsic that is missing
// here does not compile, because the compiler's own needs instructions that are not enabled.
#pragma once

#include_next <immintrin.h>

// The functions of machine_peak enable instructions with attributes, which are removed here.
#define target(instructions) unused

#include "floats.h"
#include "integers.h"
#include "memory.h"
#include "tiles.h"

// clang-format off
#define _mm256_maskz_loadu_epi16 avx512_emulation::maskz_loadu_epi16
#define _mm512_abs_ps avx512_emulation::abs_ps
#define _mm512_add_epi16 avx512_emulation::add_epi16
#define _mm512_add_epi32 avx512_emulation::add_epi32
#define _mm512_add_epi64 avx512_emulation::add_epi64
#define _mm512_add_pd avx512_emulation::add_pd
#define _mm512_add_ps avx512_emulation::add_ps
#define _mm512_adds_epu16 avx512_emulation::adds_epu16
#define _mm512_and_si512 avx512_emulation::and_si512
#define _mm512_castpd512_pd256 avx512_emulation::castpd512_pd256
#define _mm512_castps256_ps512 avx512_emulation::castps256_ps512
#define _mm512_castps512_ps256 avx512_emulation::castps512_ps256
#define _mm512_castps_si512 avx512_emulation::castps_si512
#define _mm512_castsi256_si512 avx512_emulation::castsi256_si512
#define _mm512_castsi512_ps avx512_emulation::castsi512_ps
#define _mm512_castsi512_si256 avx512_emulation::castsi512_si256
#define _mm512_cmp_ps_mask(a, b, predicate) avx512_emulation::cmp_ps_mask<predicate>(a, b)
#define _mm512_cmpgt_epu16_mask avx512_emulation::cmpgt_epu16_mask
#define _mm512_cvtepi16_epi32 avx512_emulation::cvtepi16_epi32
#define _mm512_cvtepi32_epi64 avx512_emulation::cvtepi32_epi64
#define _mm512_cvtepi32_ps avx512_emulation::cvtepi32_ps
#define _mm512_cvtepi8_epi32 avx512_emulation::cvtepi8_epi32
#define _mm512_cvtepu16_epi32 avx512_emulation::cvtepu16_epi32
#define _mm512_cvtepu8_epi32 avx512_emulation::cvtepu8_epi32
#define _mm512_cvtne2ps_pbh avx512_emulation::cvtne2ps_pbh
#define _mm512_cvtpd_ps avx512_emulation::cvtpd_ps
#define _mm512_cvtph_ps avx512_emulation::cvtph_ps
#define _mm512_cvtps_epi32 avx512_emulation::cvtps_epi32
#define _mm512_cvtps_pd avx512_emulation::cvtps_pd
#define _mm512_cvtps_ph(v, rounding) avx512_emulation::cvtps_ph<rounding>(v)
#define _mm512_cvtss_f32 avx512_emulation::cvtss_f32
#define _mm512_dpbf16_ps avx512_emulation::dpbf16_ps
#define _mm512_dpbusd_epi32 avx512_emulation::dpbusd_epi32
#define _mm512_extractf32x8_ps avx512_emulation::extractf32x8_ps
#define _mm512_extractf64x4_pd avx512_emulation::extractf64x4_pd
#define _mm512_extracti64x4_epi64 avx512_emulation::extracti64x4_epi64
#define _mm512_fmadd_ps avx512_emulation::fmadd_ps
#define _mm512_fnmadd_ps avx512_emulation::fnmadd_ps
#define _mm512_insertf32x8 avx512_emulation::insertf32x8
#define _mm512_inserti64x4 avx512_emulation::inserti64x4
#define _mm512_load_si512 avx512_emulation::load_si512
#define _mm512_loadu_ps avx512_emulation::loadu_ps
#define _mm512_loadu_si512 avx512_emulation::loadu_si512
#define _mm512_madd_epi16 avx512_emulation::madd_epi16
#define _mm512_maddubs_epi16 avx512_emulation::maddubs_epi16
#define _mm512_mask_add_epi16 avx512_emulation::mask_add_epi16
#define _mm512_mask_cvtepi32_storeu_epi16 avx512_emulation::mask_cvtepi32_storeu_epi16
#define _mm512_mask_cvtepi32_storeu_epi8 avx512_emulation::mask_cvtepi32_storeu_epi8
#define _mm512_mask_storeu_ps avx512_emulation::mask_storeu_ps
#define _mm512_maskz_loadu_pd avx512_emulation::maskz_loadu_pd
#define _mm512_maskz_loadu_ps avx512_emulation::maskz_loadu_ps
#define _mm512_max_ps avx512_emulation::max_ps
#define _mm512_mul_pd avx512_emulation::mul_pd
#define _mm512_mul_ps avx512_emulation::mul_ps
#define _mm512_mullo_epi16 avx512_emulation::mullo_epi16
#define _mm512_permutex2var_epi16 avx512_emulation::permutex2var_epi16
#define _mm512_permutexvar_epi16 avx512_emulation::permutexvar_epi16
#define _mm512_reduce_add_epi64 avx512_emulation::reduce_add_epi64
#define _mm512_reduce_add_ps avx512_emulation::reduce_add_ps
#define _mm512_reduce_max_ps avx512_emulation::reduce_max_ps
#define _mm512_set1_epi16 avx512_emulation::set1_epi16
#define _mm512_set1_epi32 avx512_emulation::set1_epi32
#define _mm512_set1_epi8 avx512_emulation::set1_epi8
#define _mm512_set1_ps avx512_emulation::set1_ps
#define _mm512_setzero_pd avx512_emulation::setzero_pd
#define _mm512_setzero_ps avx512_emulation::setzero_ps
#define _mm512_setzero_si512 avx512_emulation::setzero_si512
#define _mm512_slli_epi32 avx512_emulation::slli_epi32
#define _mm512_srli_epi32 avx512_emulation::srli_epi32
#define _mm512_store_si512 avx512_emulation::store_si512
#define _mm512_storeu_ps avx512_emulation::storeu_ps
#define _mm512_storeu_si512 avx512_emulation::storeu_si512
#define _mm512_stream_si512 avx512_emulation::store_si512
#define _mm512_sub_epi16 avx512_emulation::sub_epi16
#define _mm512_sub_pd avx512_emulation::sub_pd
#define _mm512_sub_ps avx512_emulation::sub_ps
#define _mm_maskz_loadu_epi8 avx512_emulation::maskz_loadu_epi8
#undef _tile_dpbf16ps
#define _tile_dpbf16ps avx512_emulation::tile_dpbf16ps
#undef _tile_dpbsud
#define _tile_dpbsud avx512_emulation::tile_dpbsud
#undef _tile_loadconfig
#define _tile_loadconfig avx512_emulation::tile_loadconfig
#undef _tile_loadd
#define _tile_loadd avx512_emulation::tile_loadd
#undef _tile_release
#define _tile_release avx512_emulation::tile_release
#undef _tile_stored
#define _tile_stored avx512_emulation::tile_stored
#undef _tile_zero
#define _tile_zero avx512_emulation::tile_zero
// clang-format on
