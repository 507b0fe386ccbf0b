// The instruction-set level that the CPU kernels may use. An op asks once per call.
#pragma once

namespace ktfast {

// amx means AVX-512 with VNNI and BF16, and tile registers for int8 and bfloat16 that the operating
// system lets this process use.
enum class SimdLevel : int { scalar = 0, avx2 = 1, avx512 = 2, amx = 3 };

// The highest level that this build, this processor and KTFAST_SIMD (scalar, avx2, avx512, amx)
// allow. Throws std::invalid_argument if KTFAST_SIMD asks for an unknown or unavailable level.
SimdLevel simd_level();

// "scalar", "avx2", "avx512" or "amx".
const char* simd_name(SimdLevel level);

// Whether the processor has the AVX-512 extension. Kernels also need level avx512 or amx to use it.
bool has_avx512_vnni();
bool has_avx512_bf16();

}  // namespace ktfast
