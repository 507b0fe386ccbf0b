#include "common/cpu_features.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(KTFAST_X86_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace ktfast {
namespace {

#if defined(KTFAST_X86_AMX)
// Linux lets a process use tile registers only if the process asks, because their 8 KiB enlarge the
// state of a thread.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

bool has_amx() {
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
         __builtin_cpu_supports("amx-bf16") && may_use_tiles();
}
#else
bool has_amx() { return false; }
#endif

SimdLevel detected_level() {
#if defined(KTFAST_X86_SIMD)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) return has_amx() ? SimdLevel::amx : SimdLevel::avx512;
  if (avx2) return SimdLevel::avx2;
#endif
  return SimdLevel::scalar;
}

}  // namespace

const char* simd_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::amx:
      return "amx";
    case SimdLevel::avx512:
      return "avx512";
    case SimdLevel::avx2:
      return "avx2";
    case SimdLevel::scalar:
      break;
  }
  return "scalar";
}

SimdLevel simd_level() {
  const SimdLevel detected = detected_level();
  const char* wanted = std::getenv("KTFAST_SIMD");
  if (wanted == nullptr || *wanted == '\0') return detected;
  for (const SimdLevel level :
       {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512, SimdLevel::amx}) {
    if (wanted != std::string(simd_name(level))) continue;
    if (level > detected) {
      throw std::invalid_argument("KTFAST_SIMD=" + std::string(wanted) +
                                  " is not available here; the highest level is " +
                                  simd_name(detected) + ", so unset KTFAST_SIMD or lower it");
    }
    return level;
  }
  throw std::invalid_argument("KTFAST_SIMD must be scalar, avx2, avx512 or amx, got '" +
                              std::string(wanted) + "'");
}

#if defined(KTFAST_X86_SIMD)
bool has_avx512_vnni() { return __builtin_cpu_supports("avx512vnni"); }
bool has_avx512_bf16() { return __builtin_cpu_supports("avx512bf16"); }
#else
bool has_avx512_vnni() { return false; }
bool has_avx512_bf16() { return false; }
#endif

}  // namespace ktfast
