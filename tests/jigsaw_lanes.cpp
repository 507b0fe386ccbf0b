// Runs what a CUDA block does to a tile, lane by lane on the host, and compares it with one lane
// doing all: every output is written exactly as often as it should be, and nothing else is touched.
#include <cstdio>
#include <cstring>
#include <vector>

#include "jigsaw_tiles/tile_lane.h"

using namespace ktfast;

namespace {

constexpr int32_t kBlock = 256;
constexpr int32_t kGuard = 64;  // bytes around an output that must stay as they were

int failures = 0;

void expect(bool condition, const char* what, int32_t size) {
  if (condition) return;
  ++failures;
  std::printf("%s, tile size %d\n", what, size);
}

template <TileDtype dtype>
void compare(const TileSource& source, TileStatistics statistics, bool channels_last,
             size_t shift) {
  using T = typename Output<dtype>::Type;
  const int32_t plane = source.size * source.size;
  const size_t bytes = 3 * static_cast<size_t>(plane) * sizeof(T);
  alignas(16) static int16_t kept[3 * 128 * 128];
  alignas(16) static int16_t kept_alone[3 * 128 * 128];

  TileSums sums;
  for (int32_t lane = 0; lane < kBlock; ++lane) {
    const TileSums mine = read_lane<true>(source, channels_last, lane, kBlock, kept);
    for (int c = 0; c < 3; ++c) {
      sums.sum[c] += mine.sum[c];
      sums.square[c] += mine.square[c];
    }
  }
  const TileSums alone = read_lane<true>(source, channels_last, 0, 1, kept_alone);
  const TileSums unstaged = read_lane<false>(source, channels_last, 0, 1, nullptr);
  expect(std::memcmp(&sums, &alone, sizeof sums) == 0, "sums differ", source.size);
  expect(std::memcmp(&sums, &unstaged, sizeof sums) == 0, "unstaged sums differ", source.size);
  expect(std::memcmp(kept, kept_alone, sizeof(int16_t) * 3 * static_cast<size_t>(plane)) == 0,
         "numerators differ", source.size);

  const TileScaling f = tile_scaling(sums, statistics, source.color, source.size);
  std::vector<unsigned char> buffers[3];
  T* out[3];
  for (int i = 0; i < 3; ++i) {
    buffers[i].assign(bytes + 4 * kGuard, 0xA5);
    const auto start = reinterpret_cast<uintptr_t>(buffers[i].data()) + kGuard;
    out[i] = reinterpret_cast<T*>((start + 15) / 16 * 16 + shift * sizeof(T));
  }
  for (int32_t lane = 0; lane < kBlock; ++lane) {
    write_lane<dtype>(kept, f, channels_last, plane, lane, kBlock, out[0]);
    reread_lane<dtype>(source, f, channels_last, lane, kBlock, out[1]);
  }
  for (int32_t i = 0; i < 3 * plane; ++i) {
    const int c = channel_of(channels_last, plane, i);
    out[2][i] = Output<dtype>::from(normalised(kept_alone[i], f.mean[c], f.inverse[c]));
  }
  for (int i = 0; i < 2; ++i) {
    expect(std::memcmp(out[i], out[2], bytes) == 0, i ? "reread outputs differ" : "outputs differ",
           source.size);
    const auto* first = reinterpret_cast<unsigned char*>(out[i]);
    for (const unsigned char& byte : buffers[i]) {
      const bool inside = &byte >= first && &byte < first + bytes;
      if (!inside) expect(byte == 0xA5, "a write outside the tile", source.size);
    }
  }
}

void compare_sizes() {
  const int64_t width = 140;
  std::vector<uint8_t> image(static_cast<size_t>(140 * width * 3));
  for (size_t i = 0; i < image.size(); ++i) {
    image[i] = static_cast<uint8_t>(philox4x32(1, static_cast<uint32_t>(i), 0, 0, 0).word[0]);
  }
  for (const int32_t size : {1, 2, 3, 5, 8, 15, 16, 17, 33, 64, 75, 90, 91, 128}) {
    for (const Color color : {Color::plain, Color::gray, Color::projection}) {
      for (const bool channels_last : {false, true}) {
        const uint8_t* first = image.data() + 3 * width;
        const TileSource source{{first, first + 3, first + 3 * width}, 3 * width, size, color};
        compare<TileDtype::float32>(source, TileStatistics::tile, channels_last, 0);
        compare<TileDtype::float32>(source, TileStatistics::channel, channels_last, 1);
        compare<TileDtype::float16>(source, TileStatistics::channel, channels_last, 0);
        compare<TileDtype::bfloat16>(source, TileStatistics::none, channels_last, 3);
      }
    }
  }
}

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
