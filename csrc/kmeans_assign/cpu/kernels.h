// The inner loops of the CPU's kmeans_assign, one table per instruction set.
//
// A code is a string of 4-byte words: one float32, two bfloat16 or four int8 numbers each. A panel
// holds the codes of 64 centres in columns of 16, each of them word by word, so that a kernel reads
// memory in order whether its registers take 16 centres or 64; a tile is six rows by a panel.
#pragma once

#include "kmeans_assign/kmeans_assign.h"

#include <cstdint>

#include "common/element.h"

namespace ktfast::cpu {

// Six rows by four AVX-512 registers fill 24 of 32 accumulators.
constexpr int kTileRows = 6;
constexpr int kPanelWidth = 64;
constexpr int kColumnWidth = 16;
constexpr int kColumns = kPanelWidth / kColumnWidth;
constexpr int kWordBytes = 4;
constexpr int kColumnBytes = kColumnWidth * kWordBytes;  // of one word
constexpr int kLineBytes = 64;                           // of a cache
// What a product fetches for what comes after it, for each word that it multiplies.
constexpr int kSoonBytes = 8;
constexpr int kDots = 4;
// int8 codes are padded to so many words, which some kernels multiply before they widen.
constexpr int kInt8Words = 4;

struct Encoded {
  float scale;            // numbers are approximated by scale times codes
  float residual_square;  // of what is left
  int32_t sum;            // of int8 codes
};

struct Magnitude {
  float square;  // sum of squares
  float largest;
};

// Products of a tile, and what makes scores of them.
struct ScreenTile {
  const void* products;      // [kTileRows, kPanelWidth] int32 or float
  const float* half_norms;   // [kPanelWidth]
  const float* tails;        // [kPanelWidth], or nullptr: all 0
  const float* row_inverse;  // [kTileRows], 1 / (row scale x panel scale)
  const float* row_tail;     // [kTileRows], tail x row_inverse
  const float* row_limit;    // [kTileRows]
};

// The products of a stretch of the words of a panel and of rows.
struct PanelProduct {
  const void* panel;  // [kPanelWidth / kColumnWidth, panel_words, kColumnWidth] words
  int64_t panel_words;
  int64_t first, words;  // of the stretch; of int8 codes, multiples of kInt8Words
  const void* rows;      // codes of n_tiles x kTileRows rows, `stride` bytes apart
  int64_t stride;
  int64_t n_tiles;
  bool accumulate;
  void* out;  // [n_tiles x kTileRows, kPanelWidth] int32 or float, written or added to
  // Columns that are wanted, from the first; a kernel may write the others all the same.
  int columns = kColumns;
  // The stretch that is read after this one, as its panel lies: a kernel may fetch it ahead.
  const void* next = nullptr;
  // [n_tiles] Further memory that is read soon: kSoonBytes for each word of the panel.
  const void* const* soon = nullptr;

  const char* column(int c) const {
    return static_cast<const char*>(panel) + c * column_bytes() + first * kColumnBytes;
  }
  const char* next_column(int c) const {
    return next == nullptr ? column(c) : static_cast<const char*>(next) + c * column_bytes();
  }
  const char* soon_of(int64_t tile) const {
    return soon == nullptr ? row(tile) : static_cast<const char*>(soon[tile]) + first * kSoonBytes;
  }
  int64_t column_bytes() const { return panel_words * kColumnBytes; }
  const char* row(int64_t tile) const {
    return static_cast<const char*>(rows) + tile * kTileRows * stride + first * kWordBytes;
  }
};

using Product = void (*)(const PanelProduct&);

struct AssignKernels {
  // shifted[p] = x[p] - mean[p].
  void (*shift)(const void* x, ElementType type, const float* mean, int64_t length, float* shifted);
  Magnitude (*magnitude)(const float* values, int64_t length);
  // Sums over kDotLanes chains, or more.
  float (*dot)(const float* a, const float* b, int64_t length);
  // With each of kDots vectors.
  void (*dots)(const float* x, const float* const* vectors, int64_t length, float* products);
  // The exact distance of assign_math.h.
  double (*squared_distance)(const void* x, ElementType type, const double* c, int64_t length);
  // int8 codes take numbers up to `reach`, which those of centres do not use up.
  Encoded (*encode)(const float* values, int64_t length, float reach, CodeType code, void* codes);
  // The least reach of a row's int8 codes with which no product overflows.
  float (*row_reach)(const float* values, int64_t length, float largest);
  // int8 codes of centres lie between -center_levels and center_levels; in panels they are offset
  // by one more, and unsigned.
  int center_levels;
  Product product;
  // Bit c of masks[r] is set unless centre c is certainly beyond the row's limit:
  //   product + row_tail * tail - row_inverse * half_norm < row_limit.
  // Returns whether any bit is set.
  bool (*select)(const ScreenTile& tile, uint64_t* masks);  // [kTileRows]
};

// The fastest for this machine, within KTFAST_SIMD.
AssignKernels assign_kernels(CodeType code);

AssignKernels assign_kernels_scalar(CodeType code);
AssignKernels assign_kernels_avx2(CodeType code);
void set_row_kernels_avx2(AssignKernels& kernels);   // all but products, dots and select
void set_int8_kernels_avx2(AssignKernels& kernels);  // product, levels and reach
AssignKernels assign_kernels_avx512(CodeType code);  // with the product of float32
Product product_avx512_vnni();
Product product_avx512_bf16();
Product product_amx_int8();
Product product_amx_bf16();

}  // namespace ktfast::cpu
