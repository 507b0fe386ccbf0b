// The random choices of one row of the batch, and the checks both backends make: written once.
//
// Every draw has a fixed place in the Philox stream of its sample, so that changing one option
// (more occluders, say) leaves the draws of all others as they were. Key: the seed. Counter: sample
// id (low, high word), epoch, block. The words of the blocks:
//   0          label, gray, projection, number of occluders
//   1          donor row, donor gray, donor projection, (unused)
//   2 + 2s     slot s: jitter y, jitter x, red shift y, red shift x
//   3 + 2s     slot s: green shift y, green shift x, blue shift y, blue shift x
//   64 + i     occluder i: its slot among those left, its donor cell among those left, (unused) x 2
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/host_device.h"
#include "common/philox.h"
#include "jigsaw_tiles/jigsaw_tiles.h"

namespace ktfast {

inline constexpr uint32_t kRowBlock = 0;
inline constexpr uint32_t kDonorBlock = 1;
inline constexpr uint32_t kSlotBlocks = 2;
inline constexpr uint32_t kOccluderBlocks = 64;

// Up to 16 small numbers in the nibbles of one word, for draws without replacement: an array
// indexed at run time would live in slow local memory on a GPU.
struct NibbleDeck {
  uint64_t nibbles = 0xFEDCBA9876543210u;

  KTFAST_HD int32_t at(int32_t i) const { return static_cast<int32_t>((nibbles >> (4 * i)) & 15u); }

  // Step i of a Fisher-Yates shuffle: swaps i with j and returns what is at i then.
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

// The image of a row of the batch, or -1 if its index is not one.
KTFAST_HD int64_t image_of(const JigsawTilesParams& p, int64_t row) {
  const int64_t image = p.indices == nullptr ? row : p.indices[row];
  return image >= 0 && image < p.n_images ? image : -1;
}

KTFAST_HD void choose_slot(const JigsawTilesParams& p, int64_t row, int64_t label, int32_t slot) {
  const int32_t n_tiles = p.grid * p.grid;
  const int64_t at = row * n_tiles + slot;
  // The op checks host arrays; what it cannot see on a device must still not lead outside an image.
  const int32_t cell = p.permutations[label * n_tiles + slot];
  p.cells[at] = cell < n_tiles ? cell : 0;
  p.occluded[at] = 0;
  const PhiloxBlock a = draw(p, row, kSlotBlocks + 2 * static_cast<uint32_t>(slot));
  const PhiloxBlock b = draw(p, row, kSlotBlocks + 2 * static_cast<uint32_t>(slot) + 1);
  const int32_t y = bounded(a.word[0], p.jitter + 1);
  const int32_t x = bounded(a.word[1], p.jitter + 1);
  const int32_t shifts = p.chroma_shift + 1;
  int32_t* offsets = p.offsets + at * 6;
  offsets[0] = y + bounded(a.word[2], shifts);
  offsets[1] = x + bounded(a.word[3], shifts);
  offsets[2] = y + bounded(b.word[0], shifts);
  offsets[3] = x + bounded(b.word[1], shifts);
  offsets[4] = y + bounded(b.word[2], shifts);
  offsets[5] = x + bounded(b.word[3], shifts);
}

// Replaces 1..max_occluders slots by cells of one other row of the batch.
KTFAST_HD void choose_occluders(const JigsawTilesParams& p, int64_t row, int32_t n_occluders) {
  const int32_t n_tiles = p.grid * p.grid;
  const PhiloxBlock words = draw(p, row, kDonorBlock);
  const int64_t step = 1 + bounded(words.word[0], static_cast<int32_t>(p.batch - 1));
  const bool gray = p.donor_shares_color ? p.gray[row] != 0 : words.word[1] < p.gray_threshold;
  const bool projection = p.donor_shares_color ? p.projection[row] != 0
                                               : !gray && words.word[2] < p.projection_threshold;
  p.donors[row] = (row + step) % p.batch;
  p.donor_gray[row] = gray;
  p.donor_projection[row] = projection;
  NibbleDeck slots;
  NibbleDeck cells;
  for (int32_t i = 0; i < n_occluders; ++i) {
    const PhiloxBlock w = draw(p, row, kOccluderBlocks + static_cast<uint32_t>(i));
    const int32_t slot = slots.deal(i, i + bounded(w.word[0], n_tiles - i));
    const int32_t cell = cells.deal(i, i + bounded(w.word[1], n_tiles - i));
    p.occluded[row * n_tiles + slot] = 1;
    p.cells[row * n_tiles + slot] = cell;
  }
}

// Draws all choices of a row. A batch of one has no donor, hence no occluders.
KTFAST_HD void choose_row(const JigsawTilesParams& p, int64_t row) {
  const PhiloxBlock words = draw(p, row, kRowBlock);
  const int64_t label = bounded(words.word[0], static_cast<int32_t>(p.n_permutations));
  const bool gray = words.word[1] < p.gray_threshold;
  p.labels[row] = image_of(p, row) < 0 ? -1 : label;
  p.gray[row] = gray;
  p.projection[row] = !gray && words.word[2] < p.projection_threshold;
  p.donors[row] = -1;
  p.donor_gray[row] = 0;
  p.donor_projection[row] = 0;
  for (int32_t slot = 0; slot < p.grid * p.grid; ++slot) choose_slot(p, row, label, slot);
  const int32_t n_occluders = p.batch > 1 ? bounded(words.word[3], p.max_occluders + 1) : 0;
  if (n_occluders > 0) choose_occluders(p, row, n_occluders);
}

// What must hold for the index arithmetic to stay inside the arrays.
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
