// Included before cpu_features.cpp. Reports a processor that has AVX-512 and AMX in addition to its
// own features, except for the extensions in AVX512_EMULATION_LACKS, such as "avx512_vnni amx".
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "common/x86_features.h"

namespace avx512_emulation {

inline bool is_emulated(const char* feature) {
  const char* lacks = std::getenv("AVX512_EMULATION_LACKS");
  return lacks == nullptr || std::strstr(lacks, feature) == nullptr;
}

inline long no_syscall(long, long, long) { return 0; }

}  // namespace avx512_emulation

// Inside a macro of the same name, the name means the function.
#define x86_has(feature)                                                            \
  (std::strncmp(feature, "avx512", 6) == 0 ? avx512_emulation::is_emulated(feature) \
   : std::strncmp(feature, "amx", 3) == 0  ? avx512_emulation::is_emulated("amx")   \
                                           : x86_has(feature))

// Emulated tile registers need no permission.
#define syscall avx512_emulation::no_syscall
