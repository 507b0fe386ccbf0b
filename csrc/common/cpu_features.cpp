#include "common/cpu_features.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace ktfast {
namespace {

SimdLevel detected_level() {
#if defined(KTFAST_X86_SIMD)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) return SimdLevel::avx512;
  if (avx2) return SimdLevel::avx2;
#endif
  return SimdLevel::scalar;
}

}  // namespace

const char* simd_name(SimdLevel level) {
  switch (level) {
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
  for (const SimdLevel level : {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512}) {
    if (wanted != std::string(simd_name(level))) continue;
    if (level > detected) {
      throw std::invalid_argument("KTFAST_SIMD=" + std::string(wanted) +
                                  " is not available here; the highest level is " +
                                  simd_name(detected) + ", so unset KTFAST_SIMD or lower it");
    }
    return level;
  }
  throw std::invalid_argument("KTFAST_SIMD must be scalar, avx2 or avx512, got '" +
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
