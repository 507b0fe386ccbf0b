// The inner loops of kmeans_few in plain C++, for processors without AVX2.
#include <algorithm>

#include "kmeans_assign/certificate.h"
#include "kmeans_assign/cpu/few_kernels.h"

namespace ktfast::cpu {
namespace {

float load(const void* x, ElementType type, int64_t stride, int64_t rows, const float* mean,
           int64_t length, float* panel) {
  const auto shift = assign_kernels_scalar(CodeType::float32).shift;
  float longest = 0;
  std::fill_n(panel, length * kFewRows, 0.0f);
  with_element(type, [&](auto* element) {
    const auto* values = static_cast<decltype(element)>(x);
    for (int64_t r = 0; r < rows; ++r) {
      float row[kChainLength];
      shift(values + r * stride, type, mean, length, row);
      float* column = panel + r / kColumnWidth * length * kColumnWidth + r % kColumnWidth;
      float square = 0;
      for (int64_t p = 0; p < length; ++p) {
        column[p * kColumnWidth] = row[p];
        square += row[p] * row[p];
      }
      longest = std::max(longest, square);
    }
  });
  return longest;
}

void rank(const float* products, const float* halves, int32_t first, int count, Ranking& ranking) {
  for (int c = 0; c < count; ++c, products += kFewRows) {
    for (int r = 0; r < kFewRows; ++r) {
      const float score = halves[c] - products[r];
      const float best = ranking.best[r];
      const float worse = score > best ? score : best;
      ranking.second[r] = worse < ranking.second[r] ? worse : ranking.second[r];
      ranking.best[r] = score < best ? score : best;
      ranking.nearest[r] = score < best ? first + c : ranking.nearest[r];
    }
  }
}

void exact(const void* x, ElementType type, const double* centers, const int32_t* labels,
           int64_t rows, int64_t length, double* out) {
  const auto squared_distance = assign_kernels_scalar(CodeType::float32).squared_distance;
  with_element(type, [&](auto* element) {
    const auto* values = static_cast<decltype(element)>(x);
    for (int64_t r = 0; r < rows; ++r) {
      out[r] = squared_distance(values + r * length, type, centers + labels[r] * length, length);
    }
  });
}

}  // namespace

FewKernels few_kernels_scalar() { return {load, rank, exact}; }

}  // namespace ktfast::cpu
