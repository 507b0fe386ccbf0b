// Included before cpu_features.cpp: a processor that has all of AVX-512 besides what it has, but
// for the extensions named in AVX512_EMULATION_LACKS, as "avx512vnni avx512bf16".
#pragma once

#include <cstdlib>
#include <cstring>

namespace avx512_emulation {

inline bool is_emulated(const char* feature) {
  const char* lacks = std::getenv("AVX512_EMULATION_LACKS");
  return lacks == nullptr || std::strstr(lacks, feature) == nullptr;
}

}  // namespace avx512_emulation

// Inside a macro of its own name it is the compiler's.
#define __builtin_cpu_supports(feature)                                             \
  (std::strncmp(feature, "avx512", 6) == 0 ? avx512_emulation::is_emulated(feature) \
                                           : __builtin_cpu_supports(feature) != 0)
