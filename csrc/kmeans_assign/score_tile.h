// The inner loops of the CPU's kmeans_assign, one implementation per instruction set.
#pragma once

#include <cstdint>

namespace ktfast::cpu {

// A tile of the product is kTileRows rows by kPanelWidth centres. Twelve rows by two AVX-512
// registers fill 24 of 32 accumulators; AVX2 covers the tile in four 6 x 16 quarters.
constexpr int kTileRows = 12;
constexpr int kPanelWidth = 32;
// Centre j belongs to class j mod 16; for each row and class the screen keeps the two least scores.
constexpr int kClasses = 16;

struct ScreenState {
  float least[kClasses];
  float second[kClasses];  // least score of the class but for the winner's
  int32_t slot[kClasses];  // the winner of class c is centre 16 * slot + c
};

struct ScoreKernels {
  // out [kTileRows, kPanelWidth] = (or +=) sum over p < length of rows[p, r] * panel[p, c].
  void (*product)(const float* panel,  // [length, kPanelWidth]
                  const float* rows,   // [length, kTileRows]
                  int64_t length, bool accumulate, float* out);
  // Scores `half_norms` [kPanelWidth] - `products` [kTileRows, kPanelWidth] enter the rows' states.
  void (*screen)(const float* products, const float* half_norms, int32_t panel,
                 ScreenState* states);  // [kTileRows]
};

ScoreKernels score_kernels_scalar();
ScoreKernels score_kernels_avx2();
ScoreKernels score_kernels_avx512();

}  // namespace ktfast::cpu
