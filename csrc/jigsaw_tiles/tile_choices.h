// The random choices of a row of the batch and of its slots, and the checks of the arguments. Both
// backends share them.
//
// Every random number has a fixed place in the Philox stream of its sample. So a change of one
// option, such as the number of occluders, does not change the random numbers of the others. The
// key is the seed. The counter is the sample id (low, high word), the epoch and the block. The
// words of the blocks are:
//   0          label, gray, projection, number of occluders
//   1          donor row, donor gray, donor projection, (unused)
//   2 + 2s     slot s: jitter y, jitter x, red shift y, red shift x
//   3 + 2s     slot s: green shift y, green shift x, blue shift y, blue shift x
//   64 + i     occluder i: its slot and its donor cell among the remaining ones, (unused) x 2
#pragma once

#include "jigsaw_tiles/jigsaw_tiles.h"

#include <cstdint>

#include "common/check.h"
#include "common/host_device.h"
#include "common/philox.h"

namespace ktfast {

inline constexpr uint32_t kRowBlock = 0;
inline constexpr uint32_t kDonorBlock = 1;
inline constexpr uint32_t kSlotBlocks = 2;
inline constexpr uint32_t kOccluderBlocks = 64;

// Up to 16 small numbers in the nibbles of one word, for draws without replacement. An array that
// is indexed at run time would lie in slow local memory on a GPU.
struct NibbleDeck {
  uint64_t nibbles = 0xFEDCBA9876543210u;

  KTFAST_HD int32_t at(int32_t i) const { return static_cast<int32_t>((nibbles >> (4 * i)) & 15u); }

  // Step i of a Fisher-Yates shuffle: swaps i with j and returns the number that is now at i.
  KTFAST_HD int32_t deal(int32_t i, int32_t j) {
    const uint64_t a = static_cast<uint64_t>(at(i));
    const uint64_t b = static_cast<uint64_t>(at(j));
    nibbles ^= ((a ^ b) << (4 * i)) ^ (i == j ? 0 : (a ^ b) << (4 * j));
    return at(i);
  }
};

KTFAST_HD PhiloxBlock draw(const JigsawTilesParams& p, int64_t row, uint32_t block) {
  const uint64_t id = static_cast<uint64_t>(p.sample_ids[row]);
  return philox4x32(p.seed, static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32), p.epoch,
                    block);
}

// Draws the blocks of one row when they are needed.
struct RowDraws {
  const JigsawTilesParams& p;
  int64_t row;
  KTFAST_HD PhiloxBlock operator()(uint32_t block) const { return draw(p, row, block); }
};

// The image of a row of the batch, or -1 if the row's index is not the number of an image.
KTFAST_HD int64_t image_of(const JigsawTilesParams& p, int64_t row) {
  const int64_t image = p.indices == nullptr ? row : p.indices[row];
  return image >= 0 && image < p.n_images ? image : -1;
}

// The random choices of a row of the batch.
struct RowChoices {
  int64_t label;
  bool gray;
  bool projection;
  bool donor_gray;
  bool donor_projection;
  int64_t donor;        // row of the batch, -1: none
  int32_t n_occluders;  // the first n_occluders of `slots` show the first cells of `cells`
  NibbleDeck slots;
  NibbleDeck cells;
};

// The random choices of one slot.
struct SlotChoices {
  int32_t cell;  // of the image, or of the donor where occluded
  bool occluded;
  int32_t offsets[3][2];  // (y, x) inside the cell, per channel
};

// Fills in the occluders: cells of one other row of the batch.
template <class Draws>
KTFAST_HD void choose_occluders(const JigsawTilesParams& p, int64_t row, const Draws& draws,
                                RowChoices* r) {
  const int32_t n_tiles = p.grid * p.grid;
  const PhiloxBlock words = draws(kDonorBlock);
  const int64_t step = 1 + bounded(words.word[0], static_cast<int32_t>(p.batch - 1));
  r->donor = (row + step) % p.batch;
  r->donor_gray = p.donor_shares_color ? r->gray : words.word[1] < p.gray_threshold;
  r->donor_projection = p.donor_shares_color
                            ? r->projection
                            : !r->donor_gray && words.word[2] < p.projection_threshold;
  for (int32_t i = 0; i < r->n_occluders; ++i) {
    const PhiloxBlock w = draws(kOccluderBlocks + static_cast<uint32_t>(i));
    r->slots.deal(i, i + bounded(w.word[0], n_tiles - i));
    r->cells.deal(i, i + bounded(w.word[1], n_tiles - i));
  }
}

// A batch of one image has no donor and therefore no occluders.
template <class Draws>
KTFAST_HD RowChoices choose_row(const JigsawTilesParams& p, int64_t row, const Draws& draws) {
  const PhiloxBlock words = draws(kRowBlock);
  RowChoices r{};
  r.label = bounded(words.word[0], static_cast<int32_t>(p.n_permutations));
  r.gray = words.word[1] < p.gray_threshold;
  r.projection = !r.gray && words.word[2] < p.projection_threshold;
  r.donor = -1;
  r.n_occluders = p.batch > 1 ? bounded(words.word[3], p.max_occluders + 1) : 0;
  if (r.n_occluders > 0) choose_occluders(p, row, draws, &r);
  return r;
}

template <class Draws>
KTFAST_HD SlotChoices choose_slot(const JigsawTilesParams& p, const RowChoices& r, int32_t slot,
                                  const Draws& draws) {
  const int32_t n_tiles = p.grid * p.grid;
  SlotChoices s;
  // The op checks arrays on the host only. A wrong number on a device must not lead outside an
  // image.
  const int32_t cell = p.permutations[r.label * n_tiles + slot];
  s.cell = cell < n_tiles ? cell : 0;
  s.occluded = false;
  for (int32_t i = 0; i < r.n_occluders; ++i) {
    if (r.slots.at(i) != slot) continue;
    s.cell = r.cells.at(i);
    s.occluded = true;
  }
  const PhiloxBlock a = draws(kSlotBlocks + 2 * static_cast<uint32_t>(slot));
  const PhiloxBlock b = draws(kSlotBlocks + 2 * static_cast<uint32_t>(slot) + 1);
  const int32_t y = bounded(a.word[0], p.jitter + 1);
  const int32_t x = bounded(a.word[1], p.jitter + 1);
  const int32_t shifts = p.chroma_shift + 1;
  s.offsets[0][0] = y + bounded(a.word[2], shifts);
  s.offsets[0][1] = x + bounded(a.word[3], shifts);
  s.offsets[1][0] = y + bounded(b.word[0], shifts);
  s.offsets[1][1] = x + bounded(b.word[1], shifts);
  s.offsets[2][0] = y + bounded(b.word[2], shifts);
  s.offsets[2][1] = x + bounded(b.word[3], shifts);
  return s;
}

KTFAST_HD void store_row(const JigsawTilesParams& p, int64_t row, const RowChoices& r) {
  p.labels[row] = image_of(p, row) < 0 ? -1 : r.label;
  p.gray[row] = r.gray;
  p.projection[row] = r.projection;
  p.donors[row] = r.donor;
  p.donor_gray[row] = r.donor_gray;
  p.donor_projection[row] = r.donor_projection;
}

KTFAST_HD void store_slot(const JigsawTilesParams& p, int64_t row, int32_t slot,
                          const SlotChoices& s) {
  const int64_t at = row * p.grid * p.grid + slot;
  p.cells[at] = s.cell;
  p.occluded[at] = s.occluded;
  for (int c = 0; c < 3; ++c) {
    p.offsets[at * 6 + 2 * c] = s.offsets[c][0];
    p.offsets[at * 6 + 2 * c + 1] = s.offsets[c][1];
  }
}

// Checks what the index arithmetic needs to stay inside the arrays.
inline void check_params(const JigsawTilesParams& p) {
  const int64_t cell_height = p.grid > 0 ? p.height / p.grid : 0;
  const int64_t cell_width = p.grid > 0 ? p.width / p.grid : 0;
  KTFAST_CHECK(p.grid >= 1 && p.grid <= kMaxGrid, "the puzzle must have 1x1 to 4x4 tiles");
  KTFAST_CHECK(p.tile_size >= 1 && p.tile_size <= kMaxTileSize, "tile_size must be 1 to 512");
  KTFAST_CHECK(p.jitter >= 0 && p.chroma_shift >= 0,
               "jitter and chroma_shift must not be negative");
  KTFAST_CHECK(int64_t{p.tile_size} + p.jitter + p.chroma_shift <= cell_height &&
                   int64_t{p.tile_size} + p.jitter + p.chroma_shift <= cell_width,
               "tile_size + jitter + chroma_shift must fit into a cell of the image");
  KTFAST_CHECK(p.max_occluders >= 0 && p.max_occluders <= p.grid * p.grid,
               "max_occluders must be 0 to the number of tiles");
  KTFAST_CHECK(p.n_permutations >= 1 && p.n_permutations <= INT32_MAX,
               "permutations must hold 1 to 2^31 - 1 rows");
  KTFAST_CHECK(p.batch <= INT32_MAX, "the batch must hold less than 2^31 rows");
  KTFAST_CHECK(p.indices != nullptr || p.batch <= p.n_images, "there are more rows than images");
}

}  // namespace ktfast
