#include "common/cpu_features.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "common/x86_features.h"

#if defined(KTFAST_X86_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
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
  return x86_has("avx512_vnni") && x86_has("avx512_bf16") && x86_has("amx_tile") &&
         x86_has("amx_int8") && x86_has("amx_bf16") && may_use_tiles();
}
#elif defined(KTFAST_X86_SIMD)
bool has_amx() { return false; }
#endif

SimdLevel detected_level() {
#if defined(KTFAST_X86_SIMD)
  const bool avx2 = x86_has("avx2") && x86_has("fma") && x86_has("f16c");
  const bool avx512 = avx2 && x86_has("avx512f") && x86_has("avx512bw") && x86_has("avx512dq") &&
                      x86_has("avx512vl");
  if (avx512) return has_amx() ? SimdLevel::amx : SimdLevel::avx512;
  if (avx2) return SimdLevel::avx2;
#elif defined(KTFAST_ARM_SIMD)
  return SimdLevel::neon;  // part of every aarch64 processor
#endif
  return SimdLevel::scalar;
}

bool is_available(SimdLevel level, SimdLevel detected) {
  if (level == SimdLevel::scalar || level == detected) return true;
  return level < detected && detected != SimdLevel::neon;
}

}  // namespace

const char* simd_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::neon:
      return "neon";
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
       {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512, SimdLevel::amx, SimdLevel::neon}) {
    if (wanted != std::string(simd_name(level))) continue;
    if (!is_available(level, detected)) {
      throw std::invalid_argument("KTFAST_SIMD=" + std::string(wanted) +
                                  " is not available here; the highest level is " +
                                  simd_name(detected) + ", so unset KTFAST_SIMD or lower it");
    }
    return level;
  }
  throw std::invalid_argument("KTFAST_SIMD must be scalar, avx2, avx512, amx or neon, got '" +
                              std::string(wanted) + "'");
}

bool has_avx512_vnni() { return x86_has("avx512_vnni"); }
bool has_avx512_bf16() { return x86_has("avx512_bf16"); }

bool has_neon_dot() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kDotProduct = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProduct) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  return true;  // every processor of Apple for computers has it
#else
  return false;
#endif
}

}  // namespace ktfast
