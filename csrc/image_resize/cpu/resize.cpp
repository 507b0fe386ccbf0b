#include "image_resize/image_resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/check.h"
#include "common/cpu_features.h"
#include "common/float_environment.h"
#include "image_resize/cpu/resize_kernels.h"

namespace ktfast::cpu {
namespace {

#if defined(KTFAST_X86_SIMD)
constexpr int64_t kPixelBytes = 4;
constexpr int64_t kReadAhead = 32;  // bytes that a kernel may read behind the last line

// The inputs first .. last - 1 of an output, and its position.
struct Span {
  double center;
  int64_t first, last;
};

// The order of the operations in these two functions is that of Pillow (precompute_coeffs in
// Resample.c), because the weights must have the same bits.
std::vector<Span> spans_of(int64_t in_size, float begin, double scale, int64_t size) {
  const double support = std::max(scale, 1.0);
  std::vector<Span> spans;
  for (int64_t i = 0; i < size; ++i) {
    const double center = begin + (static_cast<double>(i) + 0.5) * scale;
    spans.push_back({center, std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0),
                     std::min(static_cast<int64_t>(center + support + 0.5), in_size)});
  }
  return spans;
}

// The triangle filter, as wide as the reduction.
Axis axis_of(int64_t in_size, float begin, float end, int64_t size) {
  const double scale = static_cast<double>(end - begin) / static_cast<double>(size);
  const double inverse = 1.0 / std::max(scale, 1.0);
  const std::vector<Span> spans = spans_of(in_size, begin, scale, size);
  int64_t most = 1;
  for (const Span& span : spans) most = std::max(most, span.last - span.first);
  Axis axis;
  axis.n_taps = (most + kTaps - 1) / kTaps * kTaps;
  axis.halves.assign(static_cast<size_t>(size * axis.n_taps * 2), 0);
  std::vector<double> weights(static_cast<size_t>(most));
  int16_t* halves = axis.halves.data();
  for (const Span& span : spans) {
    const int64_t n = span.last - span.first;
    double total = 0;
    for (int64_t j = 0; j < n; ++j) {
      const double place = static_cast<double>(j + span.first);
      const double distance = std::fabs((place - span.center + 0.5) * inverse);
      total += weights[static_cast<size_t>(j)] = distance < 1.0 ? 1.0 - distance : 0.0;
    }
    for (int64_t j = 0; j < n; ++j) {
      double weight = weights[static_cast<size_t>(j)];
      if (total != 0.0) weight /= total;
      const auto whole = static_cast<int32_t>(0.5 + weight * (1 << kWeightBits));
      int16_t* pair = halves + j / 2 * 4 + j % 2;
      pair[0] = static_cast<int16_t>(whole >> kHalfBits);
      pair[2] = static_cast<int16_t>(whole & ((1 << kHalfBits) - 1));
    }
    axis.first.push_back(static_cast<int32_t>(span.first));
    halves += axis.n_taps * 2;
  }
  return axis;
}

// Fills Axis::spread. If the number of outputs is odd, the last pair has one output.
void spread_halves(Axis& axis) {
  const auto n = static_cast<int64_t>(axis.first.size());
  const int64_t groups = axis.n_taps / kTaps;
  axis.spread.assign(static_cast<size_t>((n + 1) / 2 * groups * 32), 0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t group = 0; group < groups; ++group) {
      int32_t four[4];  // high and low halves of the first pair, high and low of the second
      memcpy(four, axis.halves.data() + (i * groups + group) * 8, sizeof four);
      int32_t* to = axis.spread.data() + ((i / 2 * groups + group) * 8 + i % 2) * 4;
      for (int kind = 0; kind < 4; ++kind) std::fill_n(to + kind * 8, 4, four[kind]);
    }
  }
}
#endif

}  // namespace

bool image_resize_is_fast() {
#if defined(KTFAST_X86_SIMD)
  return simd_level() >= SimdLevel::avx2;
#else
  return false;
#endif
}

void image_resize(const ImageResizeParams& p) {
  KTFAST_CHECK(image_resize_is_fast(), "image_resize needs a processor with AVX2");
  KTFAST_CHECK(p.height > 0 && p.width > 0, "out must hold at least one pixel");
  KTFAST_CHECK(0 <= p.left && p.left < p.right && p.right <= static_cast<float>(p.in_width) &&
                   0 <= p.top && p.top < p.bottom && p.bottom <= static_cast<float>(p.in_height),
               "the box must lie within the image");
#if defined(KTFAST_X86_SIMD)
  const DefaultFloatEnvironment environment;
  const ResizeKernels kernels = resize_kernels_avx2();
  Axis across = axis_of(p.in_width, p.left, p.right, p.width);
  spread_halves(across);
  const Axis down = axis_of(p.in_height, p.top, p.bottom, p.height);
  const int64_t first = down.first.front();
  const int64_t last = std::min(p.in_height, down.first.back() + down.n_taps);
  const int64_t pitch = p.width * kPixelBytes;
  // Weights of zero lie on the lines behind the last one.
  const int64_t lines = down.first.back() + down.n_taps - first;
  std::vector<uint8_t> middle(static_cast<size_t>(lines * pitch + kReadAhead));
  const uint8_t* end = p.image + p.in_height * p.in_width * kPixelBytes;
  for (int64_t y = first; y < last; ++y) {
    kernels.row(p.image + y * p.in_width * kPixelBytes, end, across,
                middle.data() + (y - first) * pitch);
  }
  for (int64_t y = 0; y < p.height; ++y) {
    kernels.column(middle.data() + (down.first[static_cast<size_t>(y)] - first) * pitch, pitch,
                   p.width, down, y, p.out + y * p.width * 3, p.out + p.height * p.width * 3);
  }
#endif
}

}  // namespace ktfast::cpu
