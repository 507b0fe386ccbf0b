#include "jigsaw_tiles/jigsaw_tiles.h"

// The vector type of NEON for the loops of tile_simd.h: registers of 8 pixels.

#include <arm_neon.h>

#include "common/host_device.h"
#include "jigsaw_tiles/cpu/tile_kernels.h"
#include "jigsaw_tiles/cpu/tile_simd.h"

namespace ktfast::cpu {
namespace {

// Word w of three interleaved channels is word w / 3 of channel w % 3.
struct InterleavedBytes {
  uint8_t own[48];  // positions in a table of three registers, one per channel
  uint8_t all[48];  // positions in one register, for gray tiles
};

constexpr InterleavedBytes interleaved_bytes() {
  InterleavedBytes b{};
  for (int i = 0; i < 48; ++i) {
    const int word = i / 2;
    b.all[i] = static_cast<uint8_t>(word / 3 * 2 + i % 2);
    b.own[i] = static_cast<uint8_t>(word % 3 * 16 + b.all[i]);
  }
  return b;
}

constexpr InterleavedBytes kInterleavedBytes = interleaved_bytes();

struct Neon {
  static constexpr int32_t kPixels = 8;
  static constexpr int32_t kLanes = 4;
  using Words = int16x8_t;

  struct Scale {
    float32x4_t mean;
    float32x4_t inverse;
  };

  struct Sums {
    int32x4_t sum = vdupq_n_s32(0);
    int32x4_t square = vdupq_n_s32(0);

    KTFAST_HD void add(Words v) {
      sum = vpadalq_s16(sum, v);
      square = vmlal_s16(square, vget_low_s16(v), vget_low_s16(v));
      square = vmlal_high_s16(square, v, v);
    }
    KTFAST_HD void load(const int32_t (&from)[2][16]) {
      sum = vld1q_s32(from[0]);
      square = vld1q_s32(from[1]);
    }
    KTFAST_HD void save(int32_t (&to)[2][16]) const {
      vst1q_s32(to[0], sum);
      vst1q_s32(to[1], square);
    }
  };

  static KTFAST_HD int64_t across(int32x4_t v) { return vaddlvq_s32(v); }

  static KTFAST_HD Words load(const int16_t* from) { return vld1q_s16(from); }
  static KTFAST_HD void store(int16_t* to, Words v) { vst1q_s16(to, v); }
  static KTFAST_HD Words add(Words a, Words b) { return vaddq_s16(a, b); }
  static KTFAST_HD Words sub(Words a, Words b) { return vsubq_s16(a, b); }
  static KTFAST_HD Words times(Words a, int16_t n) { return vmulq_n_s16(a, n); }

  template <int c>
  static KTFAST_HD Words load_channel(const uint8_t* from) {
    return vreinterpretq_s16_u16(vmovl_u8(vld3_u8(from).val[c]));
  }

  static KTFAST_HD void interleave(Words (&v)[3]) {
    const uint8x16x3_t channels = {
        {vreinterpretq_u8_s16(v[0]), vreinterpretq_u8_s16(v[1]), vreinterpretq_u8_s16(v[2])}};
    for (int j = 0; j < 3; ++j) {
      const uint8x16_t places = vld1q_u8(kInterleavedBytes.own + 16 * j);
      v[j] = vreinterpretq_s16_u8(vqtbl3q_u8(channels, places));
    }
  }

  static KTFAST_HD void repeat(Words (&v)[3]) {
    const uint8x16_t gray = vreinterpretq_u8_s16(v[0]);
    for (int j = 0; j < 3; ++j) {
      const uint8x16_t places = vld1q_u8(kInterleavedBytes.all + 16 * j);
      v[j] = vreinterpretq_s16_u8(vqtbl1q_u8(gray, places));
    }
  }

  static KTFAST_HD Scale load_scale(const float* mean, const float* inverse) {
    return {vld1q_f32(mean), vld1q_f32(inverse)};
  }

  static KTFAST_HD float32x4_t normalise(int32x4_t numbers, const Scale& s) {
    return vmulq_f32(vsubq_f32(vcvtq_f32_s32(numbers), s.mean), s.inverse);
  }

  // As bfloat16_from() of tile_math.h.
  static KTFAST_HD uint16x4_t round_to_bfloat16(float32x4_t x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vshrn_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16);
  }

  struct Floats {
    float32x4_t low;
    float32x4_t high;
  };

  static KTFAST_HD Floats floats(Words words, const Scale& low, const Scale& high) {
    return {normalise(vmovl_s16(vget_low_s16(words)), low), normalise(vmovl_high_s16(words), high)};
  }

  template <TileDtype dtype>
  static KTFAST_HD auto outputs(const int16_t* from, const Scale& s) {
    const Floats v = floats(load(from), s, s);
    if constexpr (dtype == TileDtype::float32) {
      return v;
    } else if constexpr (dtype == TileDtype::float16) {
      return vreinterpretq_s16_f16(vcombine_f16(vcvt_f16_f32(v.low), vcvt_f16_f32(v.high)));
    } else {
      return vreinterpretq_s16_u16(
          vcombine_u16(round_to_bfloat16(v.low), round_to_bfloat16(v.high)));
    }
  }

  // NEON has no store that bypasses the caches.
  static KTFAST_HD void put(Words v, bool, void* to) { vst1q_s16(static_cast<int16_t*>(to), v); }
  static KTFAST_HD void put(const Floats& v, bool, float* to) {
    vst1q_f32(to, v.low);
    vst1q_f32(to + kLanes, v.high);
  }
};

}  // namespace

TileKernels tile_kernels_neon() { return tile_kernels<Neon>(); }

}  // namespace ktfast::cpu
