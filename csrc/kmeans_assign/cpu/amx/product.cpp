// The products of int8 and bfloat16 codes with AMX. An instruction multiplies 64 bytes of the codes
// of 16 rows and 16 centres. A column of a panel has the layout of the instruction's second
// operand.
#include <immintrin.h>

#include "common/amx.h"
#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {
namespace {

constexpr int64_t kStepWords = 16;  // words of a row of a tile register
constexpr int kTile = 16;           // rows of a tile register
// Two by two registers of sums need one load per product. Rows are taken in groups whose size is a
// multiple of both 32 rows and kTileRows.
constexpr int kGroupTiles = 16;
constexpr int kGroupRows = kGroupTiles * kTileRows;
static_assert(kGroupRows % (2 * kTile) == 0 && kColumns % 2 == 0 && kColumnWidth == kTile);

struct Int8Codes {
  static void multiply() {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
};

struct Bfloat16Codes {
  static void multiply() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
};

// Multiplies 32 rows by the 32 centres of two columns. `words` is a multiple of kStepWords.
template <class Codes>
void square(const char* rows, int64_t stride, const char* column, int64_t column_bytes,
            int64_t words, bool accumulate, char* out) {
  constexpr int64_t kOutStride = kPanelWidth * kWordBytes;
  constexpr int64_t kColumnStride = kColumnWidth * kWordBytes;
  char* const out_below = out + kTile * kOutStride;
  if (accumulate) {
    _tile_loadd(0, out, kOutStride);
    _tile_loadd(1, out + kColumnStride, kOutStride);
    _tile_loadd(2, out_below, kOutStride);
    _tile_loadd(3, out_below + kColumnStride, kOutStride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t w = 0; w < words; w += kStepWords) {
    _tile_loadd(4, rows, stride);
    _tile_loadd(6, column, kColumnStride);
    _tile_loadd(7, column + column_bytes, kColumnStride);
    _tile_loadd(5, rows + kTile * stride, stride);
    Codes::multiply();
    rows += kStepWords * kWordBytes;
    column += kStepWords * kColumnStride;
  }
  _tile_stored(0, out, kOutStride);
  _tile_stored(1, out + kColumnStride, kOutStride);
  _tile_stored(2, out_below, kOutStride);
  _tile_stored(3, out_below + kColumnStride, kOutStride);
}

// Multiplies whole groups of rows and whole steps of words with AMX, and the remaining rows and
// words with AVX-512.
template <class Codes>
void product_amx(const PanelProduct& p, Product rest) {
  const int64_t tiles = p.n_tiles / kGroupTiles * kGroupTiles;
  const int64_t words = p.words / kStepWords * kStepWords;
  auto* out = static_cast<char*>(p.out);
  if (tiles > 0 && words > 0) {
    const TileScope scope;
    for (int64_t row = 0; row < tiles * kTileRows; row += 2 * kTile) {
      for (int column = 0; column < p.columns; column += 2) {
        square<Codes>(p.row(0) + row * p.stride, p.stride, p.column(column), p.column_bytes(),
                      words, p.accumulate,
                      out + (row * kPanelWidth + column * kColumnWidth) * kWordBytes);
      }
    }
  }
  if (tiles > 0 && words < p.words) {
    PanelProduct part = p;
    part.first += words;
    part.words -= words;
    part.n_tiles = tiles;
    part.accumulate = p.accumulate || words > 0;
    rest(part);
  }
  if (tiles < p.n_tiles) {
    PanelProduct part = p;
    part.rows = static_cast<const char*>(p.rows) + tiles * kTileRows * p.stride;
    part.n_tiles -= tiles;
    part.out = out + tiles * kTileRows * kPanelWidth * kWordBytes;
    rest(part);
  }
}

void product_int8(const PanelProduct& p) { product_amx<Int8Codes>(p, product_avx512_vnni()); }
void product_bfloat16(const PanelProduct& p) {
  product_amx<Bfloat16Codes>(p, product_avx512_bf16());
}

}  // namespace

Product product_amx_int8() { return product_int8; }
Product product_amx_bf16() { return product_bfloat16; }

}  // namespace ktfast::cpu
