#include "common/x86_features.h"

#include <cstdint>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ktfast {
namespace {

enum Register { eax, ebx, ecx, edx };

// A bit of CPUID's answer. `state` holds the bits of the register XCR0 that the operating system
// sets if it saves the registers of the extension.
struct Feature {
  const char* name;
  unsigned leaf, subleaf;
  Register where;
  int bit;
  uint64_t state;
};

constexpr uint64_t kAvxState = 0x6;              // XMM, YMM
constexpr uint64_t kAvx512State = 0xe6;          // and the mask registers and ZMM
constexpr uint64_t kTileState = 0x60000 | 0xe6;  // and the tile registers with their configuration

// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A, instruction CPUID.
constexpr Feature kFeatures[] = {
    {"fma", 1, 0, ecx, 12, kAvxState},           {"f16c", 1, 0, ecx, 29, kAvxState},
    {"avx2", 7, 0, ebx, 5, kAvxState},           {"avx512f", 7, 0, ebx, 16, kAvx512State},
    {"avx512dq", 7, 0, ebx, 17, kAvx512State},   {"avx512bw", 7, 0, ebx, 30, kAvx512State},
    {"avx512vl", 7, 0, ebx, 31, kAvx512State},   {"avx512_vnni", 7, 0, ecx, 11, kAvx512State},
    {"avx512_bf16", 7, 1, eax, 5, kAvx512State}, {"amx_bf16", 7, 0, edx, 22, kTileState},
    {"amx_tile", 7, 0, edx, 24, kTileState},     {"amx_int8", 7, 0, edx, 25, kTileState},
};

#if defined(__x86_64__)
// Reads the register XCR0. The compiler's intrinsic would need the flag -mxsave.
uint64_t saved_state() {
  constexpr int kXsaveInUse = 27;  // the operating system has enabled XGETBV
  unsigned answer[4];
  if (__get_cpuid(1, &answer[eax], &answer[ebx], &answer[ecx], &answer[edx]) == 0) return 0;
  if ((answer[ecx] >> kXsaveInUse & 1) == 0) return 0;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool is_there(const Feature& feature, uint64_t state) {
  unsigned answer[4];
  if (feature.subleaf > 0) {  // subleaf 0 names the last subleaf
    if (__get_cpuid_count(feature.leaf, 0, &answer[eax], &answer[ebx], &answer[ecx],
                          &answer[edx]) == 0 ||
        answer[eax] < feature.subleaf) {
      return false;
    }
  }
  if (__get_cpuid_count(feature.leaf, feature.subleaf, &answer[eax], &answer[ebx], &answer[ecx],
                        &answer[edx]) == 0) {
    return false;
  }
  return (answer[feature.where] >> feature.bit & 1) != 0 &&
         (state & feature.state) == feature.state;
}
#else
uint64_t saved_state() { return 0; }
bool is_there(const Feature&, uint64_t) { return false; }
#endif

std::vector<std::pair<std::string, bool>> examine() {
  std::vector<std::pair<std::string, bool>> found;
  const uint64_t state = saved_state();
  for (const Feature& feature : kFeatures)
    found.emplace_back(feature.name, is_there(feature, state));
  return found;
}

// CPUID is slow in a virtual machine, so each process executes CPUID only once.
const std::vector<std::pair<std::string, bool>>& examined() {
  static const std::vector<std::pair<std::string, bool>> found = examine();
  return found;
}

}  // namespace

bool x86_has(const char* name) {
  for (const auto& [feature, there] : examined()) {
    if (feature == name) return there;
  }
  throw std::invalid_argument(std::string("no extension of x86 is known as ") + name);
}

std::vector<std::pair<std::string, bool>> x86_features() { return examined(); }

}  // namespace ktfast
