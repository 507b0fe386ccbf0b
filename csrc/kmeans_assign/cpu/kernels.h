// The inner loops of the CPU's kmeans_assign: one table of functions per instruction set.
//
// A code is a string of 4-byte words. A word holds one float32, two bfloat16 or four int8 numbers.
// A panel holds the codes of 64 centres in four columns of 16. A column holds word 0 of its 16
// centres, then word 1 of them, and so on. So a kernel reads memory in order, whether its registers
// take 16 centres or 64. A tile is six rows by one panel.
#pragma once

#include "kmeans_assign/kmeans_assign.h"

#include <cstdint>

#include "common/element.h"

namespace ktfast::cpu {

// The sums of six rows and 64 centres fill 24 of the 32 registers of AVX-512.
constexpr int kTileRows = 6;
constexpr int kPanelWidth = 64;
constexpr int kColumnWidth = 16;
constexpr int kColumns = kPanelWidth / kColumnWidth;
constexpr int kWordBytes = 4;
constexpr int kColumnBytes = kColumnWidth * kWordBytes;  // one word of 16 centres
constexpr int kLineBytes = 64;                           // a cache line
// How many bytes of other memory (PanelProduct::soon) a product fetches per word of the panel.
constexpr int kSoonBytes = 8;
constexpr int kDots = 4;
// int8 codes are padded to a multiple of this many words. Some kernels add up the products of four
// words in 16 bits before they widen the sum to 32 bits.
constexpr int kInt8Words = 4;

struct Encoded {
  float scale;            // a number is approximated by the scale times its code
  float residual_square;  // sum of the squared errors of this approximation
  int32_t sum;            // sum of the int8 codes
};

struct Magnitude {
  float square;  // sum of squares
  float largest;
};

// The products of a tile, and the values that turn a product into a bound of a score.
struct ScreenTile {
  const void* products;      // [kTileRows, kPanelWidth] int32 or float
  const float* half_norms;   // [kPanelWidth]
  const float* tails;        // [kPanelWidth], or nullptr: all 0
  const float* row_inverse;  // [kTileRows], 1 / (row scale x panel scale)
  const float* row_tail;     // [kTileRows], tail x row_inverse
  const float* row_limit;    // [kTileRows]
};

// A task: multiply a range of the words of a panel by the same words of rows.
struct PanelProduct {
  const void* panel;  // [kPanelWidth / kColumnWidth, panel_words, kColumnWidth] words
  int64_t panel_words;
  int64_t first, words;  // the range; multiples of kInt8Words for int8 codes
  const void* rows;      // codes of n_tiles x kTileRows rows, `stride` bytes apart
  int64_t stride;
  int64_t n_tiles;
  bool accumulate;
  void* out;  // [n_tiles x kTileRows, kPanelWidth] int32 or float; written, or added to
  // How many columns are needed, from the first. A kernel may write the other columns too.
  int columns = kColumns;
  // The range that the next task multiplies, in the layout of a panel. A kernel may fetch it ahead.
  const void* next = nullptr;
  // [n_tiles] Addresses of other memory that is read soon. A kernel may fetch kSoonBytes of it for
  // each word of the panel.
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
  // The inner product, summed in kDotLanes chains or more.
  float (*dot)(const float* a, const float* b, int64_t length);
  // The products of x with each of kDots vectors.
  void (*dots)(const float* x, const float* const* vectors, int64_t length, float* products);
  // The exact distance of certificate.h.
  double (*squared_distance)(const void* x, ElementType type, const double* c, int64_t length);
  // Codes a vector. int8 codes represent numbers up to `reach`; other codes ignore `reach`.
  Encoded (*encode)(const float* values, int64_t length, float reach, CodeType code, void* codes);
  // The smallest reach of a row's int8 codes with which no sum of products overflows.
  float (*row_reach)(const float* values, int64_t length, float largest);
  // int8 codes of centres lie between -center_levels and center_levels. Panels store them as
  // unsigned bytes, with center_levels + 1 added.
  int center_levels;
  Product product;
  // Clears bit c of masks[r] if the screen proves that the score of centre c exceeds the row's
  // limit, which is the case if
  //   product + row_tail * tail - row_inverse * half_norm < row_limit,
  // and sets it otherwise. Returns whether any bit is set.
  bool (*select)(const ScreenTile& tile, uint64_t* masks);  // [kTileRows]
  // Writes the squared distances of the first n_rows places to a box. `places` holds
  // [kPlaceNumbers, stride] numbers, a place per column, and `box` [2, kPlaceNumbers] numbers, its
  // lower and its upper corner. The distance of a place of NaN is NaN.
  void (*box_gaps)(const float* places, int64_t stride, const float* box, int64_t n_rows,
                   float* squares);
};

// The fastest kernels that this processor and KTFAST_SIMD allow.
AssignKernels assign_kernels(CodeType code);

AssignKernels assign_kernels_scalar(CodeType code);
AssignKernels assign_kernels_avx2(CodeType code);
void set_row_kernels_avx2(AssignKernels& kernels);   // sets all but product, dot, dots and select
void set_int8_kernels_avx2(AssignKernels& kernels);  // sets product, center_levels and row_reach
AssignKernels assign_kernels_avx512(CodeType code);  // its product is that of float32 codes
Product product_avx512_vnni();
Product product_avx512_bf16();
Product product_amx_int8();
Product product_amx_bf16();
AssignKernels assign_kernels_neon(CodeType code);  // its int8 product is plain C++
Product product_neon_dot();                        // of int8 codes

}  // namespace ktfast::cpu
