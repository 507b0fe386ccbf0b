// The two passes of a resize, and the weights that they share.
#pragma once

#include <cstdint>
#include <vector>

namespace ktfast::cpu {

constexpr int kWeightBits = 22;
// A weight is high * 2^kHalfBits + low. Products of bytes with both halves fit 16-bit operands.
constexpr int kHalfBits = 11;
constexpr int64_t kTaps =
    4;  // the weights of an output are padded with zeros to a multiple of this

// The weights with which the inputs of one axis are added to its outputs.
struct Axis {
  int64_t n_taps;               // weights of an output, a multiple of kTaps
  std::vector<int32_t> first;   // [n]: first input
  std::vector<int16_t> halves;  // [n, n_taps / 2, 2, 2]: high and low halves of pairs of weights
  // The halves of two outputs side by side, as the row kernel multiplies them: for each group of
  // four weights the high and the low halves of the first pair, and those of the second pair.
  std::vector<int32_t> spread;  // [(n + 1) / 2, n_taps / 4, 4, 2, 4], the last axis all equal
};

struct ResizeKernels {
  // Resamples a row of pixels of four bytes, and may write four bytes behind the row. `end` is
  // where the memory of the image ends.
  void (*row)(const uint8_t* pixels, const uint8_t* end, const Axis& axis, uint8_t* out);
  // Resamples column by column; writes output `y` as [width, 3]. `lines` holds rows of `pitch`
  // bytes with at least 16 bytes behind the last one; `end` is where the memory of the output ends.
  void (*column)(const uint8_t* lines, int64_t pitch, int64_t width, const Axis& axis, int64_t y,
                 uint8_t* out, const uint8_t* end);
};

ResizeKernels resize_kernels_avx2();

}  // namespace ktfast::cpu
