// The two inner loops of a tile, for any SIMD instruction set. The file of an instruction set
// instantiates them with a type V, in an unnamed namespace. V has these members:
//
//   kPixels                   pixels per step, as many as int16 numbers fill a register
//   kLanes                    floats in a register, kPixels / 2
//   Words                     kPixels int16 numbers: zero, load, store, add, sub, times
//   load_channel<c>(from)     byte c of the kPixels pixels at `from`
//   interleave(v)             reorders three channels to r0 g0 b0 r1 ...
//   repeat(v)                 the same if all three channels are v[0]
//   Sums                      sums of numbers and of their squares, in 32-bit lanes. Members:
//                             load, save, add, across
//   Scale                     the means and inverses of kLanes neighbouring outputs
//   outputs<dtype>            outputs of kPixels numbers as stored: Words for 16-bit types, two
//                             registers of floats for float32
//   floats                    outputs of kPixels numbers in registers, with a scale for each half
//   put(outputs, stream, to)  stores outputs; streamed outputs must be aligned to a register
#pragma once

#include <cstdint>
#include <cstring>

#include "common/host_device.h"
#include "jigsaw_tiles/cpu/tile_kernels.h"

namespace ktfast::cpu {

// A step adds at most 2 * 1785^2 to a 32-bit lane of the sums. After this many steps the lanes are
// added to 64-bit sums, before they can overflow.
inline constexpr int32_t kStepsBetweenEmptying = 300;
// A row is fetched from the second-level cache to the first this many rows before its use.
inline constexpr int32_t kRowsAhead = 12;
// This many rows of a tile are read before as many rows of the previous tile are written. While
// reads wait for memory, the processor can go on with writes, and vice versa. Images per second
// with float32 and with float16 tiles (128 images of 255 px, Zen 4): 39k and 55k with whole tiles
// in turn, 45k and 55k with 4 rows, 46k and 57k with 8 rows, 44k and 59k with 16 rows.
inline constexpr int32_t kRowsInTurn = 16;

// weighted() of tile_math.h for a vector of pixels. Gray numerators are in v[0] only.
template <class V, Color color>
KTFAST_HD void color_vectors(typename V::Words (&v)[3]) {
  if (color == Color::gray) v[0] = V::add(V::add(v[0], v[1]), v[2]);
  if (color == Color::projection) {
    const auto k = V::sub(V::sub(V::add(v[1], v[1]), v[0]), v[2]);
    v[0] = V::add(V::times(v[0], 6), k);
    v[1] = V::sub(V::times(v[1], 6), V::add(k, k));
    v[2] = V::add(V::times(v[2], 6), k);
  }
}

// Colours kPixels pixels, adds the numerators to the sums and keeps them. Numbers that are written
// beyond the end of a row are overwritten by the next row.
template <class V, Color color, int channels>
KTFAST_HD void keep_pixels(const uint8_t* red, const uint8_t* green, const uint8_t* blue,
                           int64_t pitch, typename V::Sums (&sums)[channels], int16_t* kept) {
  typename V::Words v[3] = {V::template load_channel<0>(red), V::template load_channel<1>(green),
                            V::template load_channel<2>(blue)};
  color_vectors<V, color>(v);
  for (int c = 0; c < channels; ++c) {
    sums[c].add(v[c]);
    V::store(kept + c * pitch, v[c]);
  }
}

// Copies the last pixels of a row, fewer than kPixels, and appends black pixels.
template <class V>
struct RestOfRow {
  uint8_t bytes[3 * V::kPixels] = {};

  __attribute__((noinline)) RestOfRow(const uint8_t* from, int32_t n) {
    memcpy(bytes, from, 3 * static_cast<size_t>(n));
  }
};

template <class V, int channels>
KTFAST_HD void empty_lanes(typename V::Sums (&sums)[channels], TileSums* total) {
  for (int c = 0; c < channels; ++c) {
    total->sum[c] += V::across(sums[c].sum);
    total->square[c] += V::across(sums[c].square);
    sums[c] = typename V::Sums();
  }
}

template <class V, Color color>
void read_colored(const TileSource& s, TileRows rows, FetchAhead* ahead, int16_t* kept,
                  RowSums* state) {
  constexpr int kChannels = color == Color::gray ? 1 : 3;
  const int32_t size = s.size;
  const int64_t pitch = plane_pitch(size);
  const int64_t row_bytes = s.row_bytes;
  const int32_t steps = (size + V::kPixels - 1) / V::kPixels;
  const uint8_t* red = s.channel[0] + rows.first * row_bytes;
  const uint8_t* green = s.channel[1] + rows.first * row_bytes;
  const uint8_t* blue = s.channel[2] + rows.first * row_bytes;
  kept += rows.first * size;
  typename V::Sums sums[kChannels];
  for (int c = 0; c < kChannels; ++c) sums[c].load(state->lanes[c]);
  for (int32_t y = rows.first; y < rows.last; ++y) {
    if (state->steps + steps > kStepsBetweenEmptying) {
      empty_lanes<V>(sums, &state->total);
      state->steps = 0;
    }
    state->steps += steps;
    ahead->row();
    if (y + kRowsAhead < size) fetch_row<3>(green + kRowsAhead * row_bytes, 3 * int64_t{size});
    int32_t x = 0;
    for (; x + V::kPixels <= size; x += V::kPixels) {
      keep_pixels<V, color>(red + 3 * x, green + 3 * x, blue + 3 * x, pitch, sums, kept + x);
    }
    if (x < size) {
      const RestOfRow<V> r(red + 3 * x, size - x);
      const RestOfRow<V> g(green + 3 * x, size - x);
      const RestOfRow<V> b(blue + 3 * x, size - x);
      keep_pixels<V, color>(r.bytes, g.bytes, b.bytes, pitch, sums, kept + x);
    }
    red += row_bytes;
    green += row_bytes;
    blue += row_bytes;
    kept += size;
  }
  for (int c = 0; c < kChannels; ++c) sums[c].save(state->lanes[c]);
}

template <class V>
void read_tile(const TileSource& s, TileRows rows, FetchAhead* ahead, int16_t* kept,
               RowSums* sums) {
  switch (s.color) {
    case Color::gray:
      return read_colored<V, Color::gray>(s, rows, ahead, kept, sums);
    case Color::projection:
      return read_colored<V, Color::projection>(s, rows, ahead, kept, sums);
    case Color::plain:
      return read_colored<V, Color::plain>(s, rows, ahead, kept, sums);
  }
}

// A gray tile has the sums of one channel, which are valid for all three.
template <class V>
TileSums total_sums(const TileSource& s, RowSums* state) {
  typename V::Sums sums[3];
  for (int c = 0; c < 3; ++c) sums[c].load(state->lanes[c]);
  empty_lanes<V>(sums, &state->total);
  TileSums total = state->total;
  for (int c = 1; c < 3 && s.color == Color::gray; ++c) {
    total.sum[c] = total.sum[0];
    total.square[c] = total.square[0];
  }
  return total;
}

// The scale of kLanes outputs. The first output is of channel `first`, and each next output `step`
// channels further.
template <class V>
KTFAST_HD typename V::Scale scale_of(const TileScaling& f, int first, int step) {
  float mean[V::kLanes];
  float inverse[V::kLanes];
  for (int i = 0; i < V::kLanes; ++i) {
    mean[i] = f.mean[(first + step * i) % 3];
    inverse[i] = f.inverse[(first + step * i) % 3];
  }
  return V::load_scale(mean, inverse);
}

// The number of elements before the first element that is aligned to a register.
template <class V, class T>
KTFAST_HD int32_t to_boundary(const T* to) {
  constexpr uintptr_t kBytes = 2 * V::kPixels;
  const uintptr_t beyond = reinterpret_cast<uintptr_t>(to) % kBytes;
  return static_cast<int32_t>((kBytes - beyond) % kBytes / sizeof(T));
}

// Writes the first n <= kPixels outputs of one or two registers.
template <class V, class Registers, class T>
__attribute__((noinline)) void put_part(const Registers& outputs, int32_t n, T* to) {
  T all[V::kPixels];
  V::put(outputs, false, all);
  memcpy(to, all, static_cast<size_t>(n) * sizeof(T));
}

// Writes one plane of numerators to `copies` planes of outputs with the same alignment. A step
// fills a cache line of each plane, so that the processor's write buffers hold no partly written
// lines of other planes. That saves up to 5 % of the time for 16-bit tiles (Zen 3, AVX2, busy
// memory).
template <class V, TileDtype dtype, int copies, class T>
void write_plane(const int16_t* kept, int32_t n, const typename V::Scale& scale, bool stream,
                 T* const (&to)[copies]) {
  const int32_t start = to_boundary<V>(to[0]);
  const int32_t head = start < n ? start : n;
  if (head > 0) {
    const auto outputs = V::template outputs<dtype>(kept, scale);
    for (T* out : to) put_part<V>(outputs, head, out);
  }
  constexpr int32_t kLinePixels = 64 / sizeof(T);
  constexpr int32_t kStep = kLinePixels > V::kPixels ? kLinePixels : V::kPixels;
  int32_t i = head;
  for (; i + kStep <= n; i += kStep) {
    decltype(V::template outputs<dtype>(kept, scale)) line[kStep / V::kPixels];
    for (int j = 0; j < kStep / V::kPixels; ++j) {
      line[j] = V::template outputs<dtype>(kept + i + j * V::kPixels, scale);
    }
    for (T* out : to) {
      for (int j = 0; j < kStep / V::kPixels; ++j) {
        V::put(line[j], stream, out + i + j * V::kPixels);
      }
    }
  }
  for (; i < n; i += V::kPixels) {
    const auto outputs = V::template outputs<dtype>(kept + i, scale);
    const int32_t left = n - i < V::kPixels ? n - i : V::kPixels;
    for (T* out : to) put_part<V>(outputs, left, out + i);
  }
}

template <class V, TileDtype dtype, class T>
void write_planar(const TileSource& s, TileRows rows, const int16_t* kept, const TileScaling& f,
                  bool stream, T* out) {
  const int32_t plane = s.size * s.size;
  const int32_t n = (rows.last - rows.first) * s.size;
  const bool gray = s.color == Color::gray;
  kept += rows.first * s.size;
  out += rows.first * s.size;
  if (gray && to_boundary<V>(out) == to_boundary<V>(out + plane)) {
    write_plane<V, dtype, 3>(kept, n, scale_of<V>(f, 0, 0), stream,
                             {out, out + plane, out + 2 * plane});
    return;
  }
  for (int c = 0; c < 3; ++c) {
    write_plane<V, dtype, 1>(kept + (gray ? 0 : c * plane_pitch(s.size)), n, scale_of<V>(f, c, 0),
                             stream, {out + c * plane});
  }
}

// Writes three registers of interleaved outputs, of kPixels pixels. 16-bit outputs are computed per
// channel and then interleaved, so that gray outputs are converted once. For floats the numerators
// are interleaved first, because floats would fill twice as many registers.
template <class V, TileDtype dtype, bool gray, class Put>
KTFAST_HD void mix_pixels(const int16_t* kept, int64_t pitch, const typename V::Scale (&scale)[3],
                          Put put) {
  constexpr bool kFloats = dtype == TileDtype::float32;
  typename V::Words v[3];
  for (int c = 0; c < (gray ? 1 : 3); ++c) {
    if constexpr (kFloats) {
      v[c] = V::load(kept + c * pitch);
    } else {
      v[c] = V::template outputs<dtype>(kept + c * pitch, scale[c]);
    }
  }
  if constexpr (gray) {
    V::repeat(v);
  } else {
    V::interleave(v);
  }
  for (int j = 0; j < 3; ++j) {
    if constexpr (kFloats) {
      put(V::floats(v[j], scale[2 * j * V::kLanes % 3], scale[(2 * j + 1) * V::kLanes % 3]), j);
    } else {
      put(v[j], j);
    }
  }
}

template <class V, TileDtype dtype, bool gray, class T>
void write_interleaved(int32_t size, TileRows rows, const int16_t* kept, const TileScaling& f,
                       bool stream, T* out) {
  const int32_t n = (rows.last - rows.first) * size;
  const int64_t pitch = plane_pitch(size);
  kept += rows.first * size;
  out += 3 * rows.first * size;
  constexpr int kStep = dtype == TileDtype::float32 ? 1 : 0;
  const typename V::Scale scale[3] = {scale_of<V>(f, 0, kStep), scale_of<V>(f, 1, kStep),
                                      scale_of<V>(f, 2, kStep)};
  const auto write_part = [&](int32_t first, int32_t pixels) {
    mix_pixels<V, dtype, gray>(kept + first, pitch, scale, [&](const auto& outputs, int j) {
      const int32_t left = 3 * pixels - j * V::kPixels;
      T* to = out + 3 * first + j * V::kPixels;
      if (left > 0) put_part<V>(outputs, left < V::kPixels ? left : V::kPixels, to);
    });
  };
  // 3 * 11 is 1 modulo 8, 16 and 32, so the outputs are aligned to a register after `head` pixels.
  constexpr int32_t kOutputs = static_cast<int32_t>(2 * V::kPixels / sizeof(T));
  const int32_t start = to_boundary<V>(out) * 11 % kOutputs;
  const int32_t head = start < n ? start : n;
  if (head > 0) write_part(0, head);
  int32_t i = head;
  for (; i + V::kPixels <= n; i += V::kPixels) {
    mix_pixels<V, dtype, gray>(kept + i, pitch, scale, [&](const auto& outputs, int j) {
      V::put(outputs, stream, out + 3 * i + j * V::kPixels);
    });
  }
  if (i < n) write_part(i, n - i);
}

template <class V, TileDtype dtype>
void write_as(const TileSource& s, TileRows rows, const int16_t* kept, const TileScaling& f,
              const TileTarget& t) {
  auto* out = static_cast<typename Output<dtype>::Type*>(t.out);
  if (!t.channels_last) {
    write_planar<V, dtype>(s, rows, kept, f, t.stream, out);
  } else if (s.color == Color::gray) {
    write_interleaved<V, dtype, true>(s.size, rows, kept, f, t.stream, out);
  } else {
    write_interleaved<V, dtype, false>(s.size, rows, kept, f, t.stream, out);
  }
}

template <class V>
void write_tile(const TileSource& s, TileRows rows, const int16_t* kept, const TileScaling& f,
                const TileTarget& t) {
  switch (t.dtype) {
    case TileDtype::float32:
      return write_as<V, TileDtype::float32>(s, rows, kept, f, t);
    case TileDtype::float16:
      return write_as<V, TileDtype::float16>(s, rows, kept, f, t);
    case TileDtype::bfloat16:
      return write_as<V, TileDtype::bfloat16>(s, rows, kept, f, t);
  }
}

template <class V>
TileKernels tile_kernels() {
  return {&read_tile<V>, &total_sums<V>, &write_tile<V>, kRowsInTurn};
}

}  // namespace ktfast::cpu
