// A table of the clock cycles that the parts of an assignment pass take, per instruction set.
//
// ktfast.KMeans estimates the cost of a screen from this table and from a sample of the rows. With
// the estimate, KMeans chooses the code of the screen, decides whether the screen uses a basis, and
// decides whether distance bounds save time. The table cannot change a label, because every screen
// gives the same labels. KMeans does not measure times, because times of a small sample are noisy.
//
// A comment names the processor on which a number was set.
#pragma once

#include "common/cpu_features.h"
#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {

struct AssignCosts {
  // Screening a row takes, for each slot of a panel,
  //   coded numbers / products_per_cycle + slot_cycles,
  // and feature_cycles for each feature, to read and to shift the row.
  double products_per_cycle;
  double slot_cycles;
  double feature_cycles;
  // Comparing a row with one centre takes features / pair_features_per_cycle + pair_cycles.
  double pair_features_per_cycle;
  double pair_cycles;
  // Recording a row's bounds takes bounds_cycles, and the time of comparing the row with
  // bounds_pairs centres.
  double bounds_cycles;
  double bounds_pairs;
};

// Products of coded numbers per clock cycle and thread: float32, bfloat16, int8, in the order of
// CodeType.
struct ProductRates {
  double of_code[3];
};

// The scalar level has no fast product of bfloat16 or int8, and AVX2 has no fast product of
// bfloat16. For these, the table assumes the float32 rate of 4-byte words.
constexpr ProductRates kProductRates[] = {
    {{16, 32, 64}},    // scalar: not measured
    {{16, 32, 48}},    // avx2: AMD EPYC. An int8 product takes two instructions.
    {{16, 32, 64}},    // avx512: AMD EPYC (Zen 4), with the VNNI and BF16 extensions
    {{16, 240, 480}},  // amx: not measured, about half of the nominal rate
    {{8, 16, 32}},     // neon: not measured, two instructions per cycle
};

inline AssignCosts assign_costs(SimdLevel level, CodeType code) {
  return {
      kProductRates[static_cast<int>(level)].of_code[static_cast<int>(code)],
      5.0 / 16,                  // AMD EPYC (Zen 4), AVX-512
      0.5,                       // AMD EPYC (Zen 4), AVX-512
      12,                        // AMD EPYC (Zen 4), AVX-512
      25,                        // AMD EPYC (Zen 4), AVX-512
      4400,                      // AMD EPYC (Zen 3), AVX2
      1.5 * (kNearCenters + 4),  // AMD EPYC (Zen 3), AVX2
  };
}

}  // namespace ktfast::cpu
