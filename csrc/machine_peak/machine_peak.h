// Contract of machine_peak: measures how much this processor computes or copies per second at most.
//
// Benchmarks compare the kernels' speed with this peak. The loops compute independent multiply-adds
// in the widest registers that the build, the processor and KTFAST_SIMD allow.
#pragma once

#include <cstdint>

namespace ktfast {

enum class PeakKind : int {
  fp32,  // float32 multiply-add
  bf16,  // bfloat16 dot product with float32 sums (AVX512_BF16, AMX)
  int8,  // int8 dot product with int32 sums (AVX512_VNNI, AMX)
  copy,  // copy of more memory than the caches hold
};

struct MachinePeakParams {
  PeakKind kind;
  double seconds;  // how long each thread works
  int n_threads;
};

namespace cpu {
// Returns operations per second, where a multiply-add counts as two, or copied bytes per second.
// Returns 0 if the processor lacks the instructions. Other work on the machine lowers the result,
// so measure more than once.
double machine_peak(const MachinePeakParams& p);
}  // namespace cpu

}  // namespace ktfast
