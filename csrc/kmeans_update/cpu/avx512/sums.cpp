#include "kmeans_update/cpu/sum_loops.h"

namespace ktfast::cpu {

SumKernels sum_kernels_avx512() { return kSumKernels; }

}  // namespace ktfast::cpu
