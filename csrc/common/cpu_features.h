// Which instruction-set level the CPU kernels may use; asked once per call of an op.
#pragma once

namespace ktfast {

// amx: AVX-512 with VNNI and BF16, and tile registers for int8 and bfloat16, which the system lets
// this process use.
enum class SimdLevel : int { scalar = 0, avx2 = 1, avx512 = 2, amx = 3 };

// The highest level that this build, this processor and KTFAST_SIMD (scalar, avx2, avx512, amx)
// allow. Throws std::invalid_argument if KTFAST_SIMD asks for an unknown or unavailable level.
SimdLevel simd_level();

// "scalar", "avx2", "avx512" or "amx".
const char* simd_name(SimdLevel level);

// True if the processor has the AVX-512 extension; each also needs level avx512 or more.
bool has_avx512_vnni();
bool has_avx512_bf16();

}  // namespace ktfast
