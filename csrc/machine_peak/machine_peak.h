// Contract of machine_peak: the most that this processor computes or copies a second, measured.
//
// It is the ceiling that the kernels' speed is compared with. Loops of independent multiply-adds in
// registers, in the widest ones that the build, the processor and KTFAST_SIMD allow.
#pragma once

#include <cstdint>

namespace ktfast {

enum class PeakKind : int {
  fp32,  // float32 multiply-add
  bf16,  // bfloat16 dot product with float32 sums (AVX512_BF16, AMX)
  int8,  // int8 dot product with int32 sums (AVX512_VNNI, AMX)
  copy,  // memory to memory, far more than the caches hold
};

struct MachinePeakParams {
  PeakKind kind;
  double seconds;  // how long each thread works
  int n_threads;
};

namespace cpu {
// Operations a second, a multiply-add being two, or copied bytes a second; 0 where the processor
// lacks the instructions. Threads that others' work interrupts lower it: measure more than once.
double machine_peak(const MachinePeakParams& p);
}  // namespace cpu

}  // namespace ktfast
