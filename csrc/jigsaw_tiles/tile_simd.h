// The two inner loops of a tile over the vectors of an instruction set. An ISA file instantiates
// them with a type V of its own, in an unnamed namespace:
//   kPixels                pixels of a step: as many int16 as a register holds
//   kLanes                 floats in a register, kPixels / 2
//   Words                  kPixels int16: zero, load, store, add, sub, times
//   load_channel<c>(from)  byte c of the kPixels pixels at `from`
//   interleave(v)          three channels, one after the other, to r0 g0 b0 r1 ...
//   repeat(v)              the same where all three are v[0]
//   Sums                   of numbers and of their squares, in 32-bit lanes
//   Scale                  the means and inverses of kLanes neighbouring outputs
//   normalised<dtype>      kPixels outputs: Words of 16-bit types, two registers of floats
//   put(outputs, stream, to)  streamed outputs must lie on a register's boundary
#pragma once

#include <cstdint>
#include <cstring>

#include "common/host_device.h"
#include "jigsaw_tiles/tile_kernels.h"

namespace ktfast::cpu {

// A step adds at most 2 * 1785^2 to a lane of the sums, so they are emptied in time.
inline constexpr int32_t kStepsBetweenEmptying = 300;
// Rows that are brought from the second-level cache to the first before they are used.
inline constexpr int32_t kRowsAhead = 12;

// numerators() of tile_math.h for a vector of pixels; gray ones are all in v[0].
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

// The n <= kPixels pixels from x on; what is beyond a row's end counts as black.
template <class V>
KTFAST_HD void load_pixels(const uint8_t* const (&row)[3], int32_t x, int32_t n,
                           typename V::Words (&v)[3]) {
  const uint8_t* from[3] = {row[0] + 3 * x, row[1] + 3 * x, row[2] + 3 * x};
  uint8_t rest[3][3 * V::kPixels];
  if (n < V::kPixels) {
    memset(rest, 0, sizeof rest);
    for (int c = 0; c < 3; ++c) {
      memcpy(rest[c], from[c], 3 * static_cast<size_t>(n));
      from[c] = rest[c];
    }
  }
  v[0] = V::template load_channel<0>(from[0]);
  v[1] = V::template load_channel<1>(from[1]);
  v[2] = V::template load_channel<2>(from[2]);
}

template <class V, Color color>
TileSums read_colored(const TileSource& s, FetchAhead ahead, int16_t* kept) {
  constexpr int kChannels = color == Color::gray ? 1 : 3;
  const int64_t pitch = plane_pitch(s.size);
  const int32_t steps = (s.size + V::kPixels - 1) / V::kPixels;
  TileSums total;
  typename V::Sums sums[kChannels];
  int32_t since = 0;
  for (int32_t y = 0; y < s.size; ++y) {
    if (since + steps > kStepsBetweenEmptying) {
      for (int c = 0; c < kChannels; ++c) sums[c].empty_into(&total.sum[c], &total.square[c]);
      since = 0;
    }
    since += steps;
    ahead.row();
    const int64_t at = y * s.row_bytes;
    const uint8_t* const row[3] = {s.channel[0] + at, s.channel[1] + at, s.channel[2] + at};
    if (y + kRowsAhead < s.size) {
      fetch_row<3>(row[1] + kRowsAhead * s.row_bytes, 3 * int64_t{s.size});
    }
    for (int32_t x = 0; x < s.size; x += V::kPixels) {
      typename V::Words v[3];
      load_pixels<V>(row, x, s.size - x < V::kPixels ? s.size - x : V::kPixels, v);
      color_vectors<V, color>(v);
      for (int c = 0; c < kChannels; ++c) {
        sums[c].add(v[c]);
        V::store(kept + c * pitch + y * s.size + x, v[c]);  // what spills over is written again
      }
    }
  }
  for (int c = 0; c < kChannels; ++c) sums[c].empty_into(&total.sum[c], &total.square[c]);
  for (int c = kChannels; c < 3; ++c) {
    total.sum[c] = total.sum[0];
    total.square[c] = total.square[0];
  }
  return total;
}

template <class V>
TileSums read_tile(const TileSource& s, bool /*channels_last*/, FetchAhead ahead, int16_t* kept) {
  switch (s.color) {
    case Color::gray:
      return read_colored<V, Color::gray>(s, ahead, kept);
    case Color::projection:
      return read_colored<V, Color::projection>(s, ahead, kept);
    case Color::plain:
      break;
  }
  return read_colored<V, Color::plain>(s, ahead, kept);
}

// Of kLanes outputs, the first of channel `first`, each next one `step` channels on.
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

// Elements before the first that lies on a register's boundary.
template <class V, class T>
KTFAST_HD int32_t to_boundary(const T* to) {
  constexpr uintptr_t kBytes = 2 * V::kPixels;
  const uintptr_t beyond = reinterpret_cast<uintptr_t>(to) % kBytes;
  return static_cast<int32_t>((kBytes - beyond) % kBytes / sizeof(T));
}

// Writes the first n <= kPixels outputs of one or two registers.
template <class V, class Registers, class T>
KTFAST_HD void put_first(const Registers& outputs, int32_t n, bool stream, T* to) {
  if (n >= V::kPixels) {
    V::put(outputs, stream, to);
  } else if (n > 0) {
    T all[V::kPixels];
    V::put(outputs, false, all);
    memcpy(to, all, static_cast<size_t>(n) * sizeof(T));
  }
}

// One plane of numerators to `copies` planes of outputs that lie alike on registers' boundaries.
template <class V, TileDtype dtype, int copies, class T>
void write_plane(const int16_t* kept, int32_t n, const typename V::Scale& scale, bool stream,
                 T* const (&to)[copies]) {
  const int32_t start = to_boundary<V>(to[0]);
  const int32_t head = start < n ? start : n;
  if (head > 0) {
    const auto outputs = V::template normalised<dtype>(V::load(kept), scale, scale);
    for (T* out : to) put_first<V>(outputs, head, false, out);
  }
  for (int32_t i = head; i < n; i += V::kPixels) {
    const auto outputs = V::template normalised<dtype>(V::load(kept + i), scale, scale);
    for (T* out : to) put_first<V>(outputs, n - i, stream, out + i);
  }
}

template <class V, TileDtype dtype, class T>
void write_planar(const TileSource& s, const int16_t* kept, const TileScaling& f, bool stream,
                  T* out) {
  const int32_t plane = s.size * s.size;
  const bool gray = s.color == Color::gray;
  if (gray && to_boundary<V>(out) == to_boundary<V>(out + plane)) {
    write_plane<V, dtype, 3>(kept, plane, scale_of<V>(f, 0, 0), stream,
                             {out, out + plane, out + 2 * plane});
    return;
  }
  for (int c = 0; c < 3; ++c) {
    write_plane<V, dtype, 1>(kept + (gray ? 0 : c * plane_pitch(s.size)), plane,
                             scale_of<V>(f, c, 0), stream, {out + c * plane});
  }
}

// The first n <= kPixels pixels, interleaved. 16-bit outputs are made channel by channel and then
// mixed, which converts gray ones once; floats are made from mixed numerators, as they would fill
// twice as many registers to mix.
template <class V, TileDtype dtype, bool gray, class T>
KTFAST_HD void write_pixels(const int16_t* kept, int64_t pitch, const typename V::Scale (&scale)[3],
                            int32_t n, bool stream, T* to) {
  constexpr bool kFloats = dtype == TileDtype::float32;
  typename V::Words v[3];
  for (int c = 0; c < (gray ? 1 : 3); ++c) {
    v[c] = V::load(kept + c * pitch);
    if constexpr (!kFloats) v[c] = V::template normalised<dtype>(v[c], scale[c], scale[c]);
  }
  if constexpr (gray) {
    V::repeat(v);
  } else {
    V::interleave(v);
  }
  for (int j = 0; j < 3; ++j) {
    const int32_t left = 3 * n - j * V::kPixels;
    if constexpr (kFloats) {
      const auto outputs = V::template normalised<dtype>(v[j], scale[2 * j * V::kLanes % 3],
                                                         scale[(2 * j + 1) * V::kLanes % 3]);
      put_first<V>(outputs, left, stream, to + j * V::kPixels);
    } else {
      put_first<V>(v[j], left, stream, to + j * V::kPixels);
    }
  }
}

template <class V, TileDtype dtype, bool gray, class T>
void write_interleaved(int32_t size, const int16_t* kept, const TileScaling& f, bool stream,
                       T* out) {
  const int32_t plane = size * size;
  const int64_t pitch = plane_pitch(size);
  constexpr int kStep = dtype == TileDtype::float32 ? 1 : 0;
  const typename V::Scale scale[3] = {scale_of<V>(f, 0, kStep), scale_of<V>(f, 1, kStep),
                                      scale_of<V>(f, 2, kStep)};
  // 3 * 11 is 1 modulo 8, 16 and 32: after `head` pixels an output lies on a register's boundary.
  constexpr int32_t kOutputs = static_cast<int32_t>(2 * V::kPixels / sizeof(T));
  const int32_t start = to_boundary<V>(out) * 11 % kOutputs;
  const int32_t head = start < plane ? start : plane;
  if (head > 0) write_pixels<V, dtype, gray>(kept, pitch, scale, head, false, out);
  for (int32_t i = head; i < plane; i += V::kPixels) {
    const int32_t n = plane - i < V::kPixels ? plane - i : V::kPixels;
    write_pixels<V, dtype, gray>(kept + i, pitch, scale, n, stream, out + 3 * i);
  }
}

template <class V, TileDtype dtype>
void write_as(const TileSource& s, const int16_t* kept, const TileScaling& f, const TileTarget& t) {
  auto* out = static_cast<typename Output<dtype>::Type*>(t.out);
  if (!t.channels_last) {
    write_planar<V, dtype>(s, kept, f, t.stream, out);
  } else if (s.color == Color::gray) {
    write_interleaved<V, dtype, true>(s.size, kept, f, t.stream, out);
  } else {
    write_interleaved<V, dtype, false>(s.size, kept, f, t.stream, out);
  }
}

template <class V>
void write_tile(const TileSource& s, const int16_t* kept, const TileScaling& f,
                const TileTarget& t) {
  switch (t.dtype) {
    case TileDtype::float32:
      return write_as<V, TileDtype::float32>(s, kept, f, t);
    case TileDtype::float16:
      return write_as<V, TileDtype::float16>(s, kept, f, t);
    case TileDtype::bfloat16:
      return write_as<V, TileDtype::bfloat16>(s, kept, f, t);
  }
}

}  // namespace ktfast::cpu
