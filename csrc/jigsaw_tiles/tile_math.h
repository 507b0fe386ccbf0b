// The arithmetic of one tile, shared by both backends: its place, its colour, its statistics and
// its output numbers.
//
// Everything before the division is integer arithmetic. A channel value is a numerator divided by
// the scale of the colour: 1 for unchanged colours, 3 for gray (R + G + B), and 6 for the
// projection v - a (a.v) / 6 with a = [-1, 2, -1]. Sums of numerators are exact. So mean, 1 / std
// and every output have the same bits on every backend.
#pragma once

#include "jigsaw_tiles/jigsaw_tiles.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"
#include "jigsaw_tiles/tile_choices.h"

namespace ktfast {

enum class Color : int32_t { plain, gray, projection };

// A tile to cut from an image: the first pixel of each channel's rectangle.
struct TileSource {
  const uint8_t* channel[3];  // channel c is byte c of a pixel; nullptr: there is no image
  int64_t row_bytes;
  int32_t size;
  Color color;
};

KTFAST_HD Color color_of(bool gray, bool projection) {
  return gray ? Color::gray : projection ? Color::projection : Color::plain;
}

// The tile in a cell of an image. A negative `image` means no image.
KTFAST_HD TileSource cut_tile(const JigsawTilesParams& p, int64_t image, Color color, int32_t cell,
                              const int32_t (&offsets)[3][2]) {
  TileSource s{};
  s.row_bytes = p.width * 3;
  s.size = p.tile_size;
  s.color = color;
  if (image < 0) return s;
  const int64_t cell_height = p.height / p.grid;
  const int64_t cell_width = p.width / p.grid;
  const int64_t top = (p.height - p.grid * cell_height) / 2 + cell / p.grid * cell_height;
  const int64_t left = (p.width - p.grid * cell_width) / 2 + cell % p.grid * cell_width;
  const uint8_t* base = p.images + image * p.height * s.row_bytes;
  for (int c = 0; c < 3; ++c) {
    s.channel[c] = base + (top + offsets[c][0]) * s.row_bytes + (left + offsets[c][1]) * 3;
  }
  return s;
}

// The image that a slot shows, or -1 if the row or its donor has no image.
KTFAST_HD int64_t shown_image(const JigsawTilesParams& p, int64_t row, bool occluded,
                              int64_t donor) {
  return image_of(p, row) < 0 ? -1 : image_of(p, occluded ? donor : row);
}

KTFAST_HD TileSource tile_source(const JigsawTilesParams& p, int64_t row, const RowChoices& r,
                                 const SlotChoices& s) {
  const Color color =
      s.occluded ? color_of(r.donor_gray, r.donor_projection) : color_of(r.gray, r.projection);
  return cut_tile(p, shown_image(p, row, s.occluded, r.donor), color, s.cell, s.offsets);
}

// The same, from the stored choices.
KTFAST_HD TileSource stored_tile_source(const JigsawTilesParams& p, int64_t row, int32_t slot) {
  const int64_t at = row * p.grid * p.grid + slot;
  const bool occluded = p.occluded[at] != 0;
  const Color color = occluded ? color_of(p.donor_gray[row] != 0, p.donor_projection[row] != 0)
                               : color_of(p.gray[row] != 0, p.projection[row] != 0);
  const int32_t* from = p.offsets + at * 6;
  const int32_t offsets[3][2] = {{from[0], from[1]}, {from[2], from[3]}, {from[4], from[5]}};
  return cut_tile(p, shown_image(p, row, occluded, p.donors[row]), color, p.cells[at], offsets);
}

KTFAST_HD int32_t color_scale(Color color) {
  return color == Color::plain ? 1 : color == Color::gray ? 3 : 6;
}

struct Pixel {
  int32_t value[3];
};

// The numerators of a pixel, -255..1785, are a product of a matrix with the pixel. Lanes must not
// branch per pixel.
struct ColorWeights {
  int32_t of[3][3];
};

KTFAST_HD ColorWeights color_weights(Color color) {
  if (color == Color::plain) return {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  if (color == Color::gray) return {{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}};
  return {{{5, 2, -1}, {2, 2, 2}, {-1, 2, 5}}};
}

KTFAST_HD Pixel weighted(const ColorWeights& w, int32_t r, int32_t g, int32_t b) {
  Pixel pixel;
  for (int c = 0; c < 3; ++c) pixel.value[c] = w.of[c][0] * r + w.of[c][1] * g + w.of[c][2] * b;
  return pixel;
}

struct TileSums {
  int64_t sum[3] = {0, 0, 0};
  int64_t square[3] = {0, 0, 0};
};

// Output = (numerator - mean) * inverse, per channel.
struct TileScaling {
  float mean[3];
  float inverse[3];
};

// n * square - sum^2 is n^2 times the variance and is exact in int64 for tiles up to kMaxTileSize.
// The three following operations are correctly rounded, so all backends give the same bits. A
// standard deviation of 0 becomes 1.
KTFAST_HD void scale_group(int64_t sum, int64_t square, int64_t n, float* mean, float* inverse) {
  const int64_t spread = n * square - sum * sum;
  *mean = static_cast<float>(static_cast<double>(sum) / static_cast<double>(n));
  *inverse = spread == 0
                 ? 1.0f
                 : static_cast<float>(static_cast<double>(n) / sqrt(static_cast<double>(spread)));
}

KTFAST_HD TileScaling tile_scaling(const TileSums& s, TileStatistics statistics, Color color,
                                   int32_t size) {
  const int64_t n = int64_t{size} * size;
  TileScaling f;
  if (statistics == TileStatistics::channel) {
    for (int c = 0; c < 3; ++c) {
      scale_group(s.sum[c], s.square[c], n, &f.mean[c], &f.inverse[c]);
    }
    return f;
  }
  float mean = 0.0f;
  float inverse = static_cast<float>(1.0 / (255 * color_scale(color)));
  if (statistics == TileStatistics::tile) {
    scale_group(s.sum[0] + s.sum[1] + s.sum[2], s.square[0] + s.square[1] + s.square[2], 3 * n,
                &mean, &inverse);
  }
  for (int c = 0; c < 3; ++c) {
    f.mean[c] = mean;
    f.inverse[c] = inverse;
  }
  return f;
}

KTFAST_HD uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Rounds to nearest, ties to even. Outputs are finite and below 65504, so NaN and overflow cannot
// occur.
KTFAST_HD uint16_t bfloat16_from(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t rounded;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(value));
  return rounded;
#else
  const uint32_t bits = float_bits(value);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
#endif
}

KTFAST_HD uint16_t float16_from(float value) {
#if defined(__CUDA_ARCH__)
  uint16_t rounded;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(rounded) : "f"(value));
  return rounded;
#else
  const uint32_t bits = float_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  uint32_t half;
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 rounds to a multiple of 2^-24
    float absolute;
    memcpy(&absolute, &magnitude, sizeof absolute);
    half = float_bits(absolute + 0.5f) - 0x3F000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
#endif
}

template <TileDtype dtype>
struct Output {
  using Type = uint16_t;
  static KTFAST_HD Type from(float v) {
    return dtype == TileDtype::float16 ? float16_from(v) : bfloat16_from(v);
  }
};
template <>
struct Output<TileDtype::float32> {
  using Type = float;
  static KTFAST_HD Type from(float v) { return v; }
};

KTFAST_HD float normalised(int32_t numerator, float mean, float inverse) {
  return (static_cast<float>(numerator) - mean) * inverse;
}

}  // namespace ktfast
