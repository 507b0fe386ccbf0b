// Which instruction-set level the CPU kernels may use; asked once per call of an op.
#pragma once

namespace ktfast {

enum class SimdLevel : int { scalar = 0, avx2 = 1, avx512 = 2 };

// The highest level that this build, this processor and KTFAST_SIMD (scalar, avx2, avx512) allow.
// Throws std::invalid_argument if KTFAST_SIMD asks for an unknown or unavailable level.
SimdLevel simd_level();

// "scalar", "avx2" or "avx512".
const char* simd_name(SimdLevel level);

// True if the processor has the AVX-512 extension; each also needs level avx512.
bool has_avx512_vnni();
bool has_avx512_bf16();

}  // namespace ktfast
