// Runs the lanes of a CUDA block on a tile, one after another on the host. Compares the result with
// a single lane that reads the image directly. Checks that every output is written exactly once,
// that nothing else is written, and (with AddressSanitizer) that nothing outside the images is
// read.
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "jigsaw_tiles/tile_lane.h"

using namespace ktfast;

namespace {

constexpr int32_t kBlock = 256;
constexpr size_t kGuard = 64;  // bytes around a buffer that must not change

int failures = 0;

void expect(bool condition, const char* what, int32_t size) {
  if (condition) return;
  ++failures;
  std::printf("%s, tile size %d\n", what, size);
}

// Memory that starts `shift` bytes after a multiple of 16, between guards.
class Guarded {
 public:
  Guarded(size_t size, size_t shift) : memory_(size + shift + 2 * kGuard + 16, 0xA5), size_(size) {
    const auto start = reinterpret_cast<uintptr_t>(memory_.data()) + kGuard;
    data_ = reinterpret_cast<unsigned char*>((start + 15) / 16 * 16 + shift);
  }
  unsigned char* data() { return data_; }
  bool guards_whole() const {
    for (const unsigned char& byte : memory_) {
      if ((&byte < data_ || &byte >= data_ + size_) && byte != 0xA5) return false;
    }
    return true;
  }

 private:
  std::vector<unsigned char> memory_;
  unsigned char* data_;
  size_t size_;
};

// Images at an address of any remainder modulo 16. The memory before and after is not readable.
class Images {
 public:
  Images(int64_t height, int64_t width, size_t shift)
      : memory_(new uint8_t[shift + bytes(height, width)]), shift_(shift) {
    params_.n_images = 2;
    params_.height = height;
    params_.width = width;
    params_.grid = 1;
    params_.images = memory_.get() + shift;
    for (size_t i = 0; i < bytes(height, width); ++i) {
      const auto draw = philox4x32(1, static_cast<uint32_t>(i), 0, 0, 0);
      memory_[shift + i] = static_cast<uint8_t>(draw.word[0]);
    }
  }
  const uint8_t* begin() const { return params_.images; }
  const uint8_t* end() const { return begin() + bytes(params_.height, params_.width); }

  TileSource tile(int64_t image, Color color, int32_t size, const int32_t (&offsets)[3][2]) {
    params_.tile_size = size;
    return cut_tile(params_, image, color, 0, offsets);
  }

 private:
  static size_t bytes(int64_t height, int64_t width) {
    return static_cast<size_t>(2 * height * width * 3);
  }
  std::unique_ptr<uint8_t[]> memory_;
  size_t shift_;
  JigsawTilesParams params_{};
};

TileSums block_sums(const TileSource& source) {
  TileSums sums;
  for (int32_t lane = 0; lane < kBlock; ++lane) {
    const TileSums mine = sum_lane(source, lane, kBlock);
    for (int c = 0; c < 3; ++c) {
      sums.sum[c] += mine.sum[c];
      sums.square[c] += mine.square[c];
    }
  }
  return sums;
}

template <TileDtype dtype>
void compare_outputs(const TileSource& source, const TileSource& staged, const TileScaling& f,
                     bool channels_last, size_t shift) {
  using T = typename Output<dtype>::Type;
  const int32_t plane = source.size * source.size;
  const size_t bytes = 3 * static_cast<size_t>(plane) * sizeof(T);
  std::vector<T> wanted(3 * static_cast<size_t>(plane));
  write_elements<dtype>(source, f, channels_last, 0, 1, wanted.data());
  for (const TileSource& from : {source, staged}) {
    Guarded out(bytes, shift * sizeof(T));
    for (int32_t lane = 0; lane < kBlock; ++lane) {
      write_lane<dtype>(from, f, channels_last, lane, kBlock, reinterpret_cast<T*>(out.data()));
    }
    expect(std::memcmp(out.data(), wanted.data(), bytes) == 0, "outputs differ", source.size);
    expect(out.guards_whole(), "a write outside the tile", source.size);
  }
}

void compare(Images& images, int64_t image, Color color, int32_t size,
             const int32_t (&offsets)[3][2], int32_t chroma_shift) {
  const TileSource source = images.tile(image, color, size, offsets);
  const TileStage stage = tile_stage(source, offsets);
  Guarded copy(static_cast<size_t>(stage_size(size, chroma_shift)), 0);
  for (int32_t lane = 0; lane < kBlock; ++lane) {
    stage_lane(stage, images.begin(), images.end(), lane, kBlock, copy.data());
  }
  expect(copy.guards_whole(), "the copy is larger than stage_size", size);
  const TileSource staged = staged_source(stage, source, copy.data());

  const TileSums alone = sum_lane(source, 0, 1);
  const TileSums together = block_sums(staged);
  expect(std::memcmp(&alone, &together, sizeof alone) == 0, "sums differ", size);
  for (const bool channels_last : {false, true}) {
    const TileScaling f = tile_scaling(alone, TileStatistics::channel, color, size);
    compare_outputs<TileDtype::float32>(source, staged, f, channels_last, 0);
    compare_outputs<TileDtype::float32>(source, staged, f, channels_last, 1);
    compare_outputs<TileDtype::float16>(source, staged, f, channels_last, 0);
    compare_outputs<TileDtype::bfloat16>(source, staged, f, channels_last, 3);
  }
}

void compare_sizes() {
  const int32_t offsets[3][3][2] = {
      {{0, 0}, {0, 0}, {0, 0}}, {{2, 0}, {0, 1}, {1, 2}}, {{5, 7}, {7, 6}, {6, 5}}};
  size_t shift = 0;
  for (const int32_t size : {1, 2, 3, 5, 8, 15, 16, 17, 33, 64, 75, 91}) {
    for (const Color color : {Color::plain, Color::gray, Color::projection}) {
      for (const auto& place : offsets) {
        // The last tile that fits ends with the last byte of the images.
        const int64_t height = size + 2 + place[0][0] / 5 * 5;
        Images images(height, height + static_cast<int64_t>(shift % 5), shift % 16);
        shift += 3;
        compare(images, static_cast<int64_t>(shift % 2), color, size, place, 2);
      }
    }
  }
}

// A row's choices contain each occluded slot and each cell of the donor once.
void deal_decks() {
  for (uint32_t trial = 0; trial < 2000; ++trial) {
    NibbleDeck deck;
    int32_t cards[16];
    for (int32_t i = 0; i < 16; ++i) cards[i] = i;
    for (int32_t i = 0; i < 16; ++i) {
      const auto draw = philox4x32(2, trial, static_cast<uint32_t>(i), 0, 0).word[0];
      const int32_t j = i + bounded(draw, 16 - i);
      const int32_t swapped = cards[i];
      cards[i] = cards[j];
      cards[j] = swapped;
      expect(deck.deal(i, j) == cards[i], "a deck deals another card", i);
    }
  }
}

void known_answer() {
  const PhiloxBlock block =
      philox4x32(0x299f31d0a4093822u, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344);
  const uint32_t expected[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  expect(std::memcmp(block.word, expected, sizeof expected) == 0, "Philox differs", 0);
}

}  // namespace

int main() {
  known_answer();
  deal_decks();
  compare_sizes();
  return failures == 0 ? 0 : 1;
}
