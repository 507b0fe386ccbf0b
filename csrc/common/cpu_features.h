// The instruction-set level that the CPU kernels may use. An op asks once per call.
#pragma once

namespace ktfast {

// amx means AVX-512 with VNNI and BF16, and tile registers for int8 and bfloat16 that the operating
// system lets this process use. neon is the level of aarch64, the others are those of x86-64.
enum class SimdLevel : int { scalar = 0, avx2 = 1, avx512 = 2, amx = 3, neon = 4 };

// The highest level that this build, this processor and KTFAST_SIMD (a name of simd_name()) allow.
// Throws std::invalid_argument if KTFAST_SIMD asks for an unknown or unavailable level.
SimdLevel simd_level();

// "scalar", "avx2", "avx512", "amx" or "neon".
const char* simd_name(SimdLevel level);

// Whether the processor has the AVX-512 extension. Kernels also need level avx512 or amx to use it.
bool has_avx512_vnni();
bool has_avx512_bf16();

// Whether the processor has NEON's dot product of bytes. Kernels also need level neon to use it.
bool has_neon_dot();

}  // namespace ktfast
