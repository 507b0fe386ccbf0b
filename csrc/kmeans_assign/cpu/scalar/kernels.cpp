// The inner loops of kmeans_assign in plain C++, for processors without AVX2. The other instruction
// sets give the same labels and distances.
#include "kmeans_assign/cpu/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kmeans_assign/certificate.h"
#include "kmeans_assign/cpu/box_gaps.h"

namespace ktfast::cpu {
namespace {

template <class T>
float shifted_value(T value, float mean) {
  return to_float(value) - mean;
}
float shifted_value(double value, float mean) {
  return static_cast<float>(value - static_cast<double>(mean));
}

void shift(const void* x, ElementType type, const float* mean, int64_t length,
           float* __restrict__ shifted) {
  with_element(type, [&](auto* element) {
    const auto* values = static_cast<decltype(element)>(x);
    for (int64_t p = 0; p < length; ++p) shifted[p] = shifted_value(values[p], mean[p]);
  });
}

Magnitude magnitude(const float* values, int64_t length) {
  float squares[kSquareLanes] = {};
  Magnitude result{};
  for (int64_t p = 0; p < length; ++p) {
    squares[p % kSquareLanes] += values[p] * values[p];
    const float size = std::fabs(values[p]);
    if (size > result.largest) result.largest = size;
  }
  for (const float square : squares) result.square += square;
  return result;
}

template <int kLanes, class T>
T sum_as_tree(T* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

float dot(const float* a, const float* b, int64_t length) {
  float lanes[kDotLanes] = {};
  int64_t p = 0;
  for (; p + kDotLanes <= length; p += kDotLanes) {
    for (int lane = 0; lane < kDotLanes; ++lane) lanes[lane] += a[p + lane] * b[p + lane];
  }
  for (int lane = 0; p < length; ++p, ++lane) lanes[lane] += a[p] * b[p];
  return sum_as_tree<kDotLanes>(lanes);
}

void dots(const float* x, const float* const* vectors, int64_t length, float* products) {
  for (int i = 0; i < kDots; ++i) products[i] = dot(x, vectors[i], length);
}

double squared_distance(const void* x, ElementType type, const double* c, int64_t length) {
  double lanes[kDistanceLanes] = {};
  with_element(type, [&](auto* element) {
    const auto* values = static_cast<decltype(element)>(x);
    int64_t p = 0;
    for (; p + kDistanceLanes <= length; p += kDistanceLanes) {
      for (int lane = 0; lane < kDistanceLanes; ++lane) {
        const double difference = to_double(values[p + lane]) - c[p + lane];
        lanes[lane] += difference * difference;
      }
    }
    for (int lane = 0; p < length; ++p, ++lane) {
      const double difference = to_double(values[p]) - c[p];
      lanes[lane] += difference * difference;
    }
  });
  return sum_as_tree<kDistanceLanes>(lanes);
}

Encoded encode_bfloat16(const float* values, int64_t length, uint16_t* codes) {
  Encoded result{1, 0, 0};
  for (int64_t p = 0; p < length; ++p) {
    const uint32_t bits = bfloat16_rounded(values[p]);
    const float rest = values[p] - float_from_bits(bits << 16);
    codes[p] = static_cast<uint16_t>(bits);
    result.residual_square += rest * rest;
  }
  return result;
}

Encoded encode_int8(const float* values, int64_t length, float reach, int8_t* codes) {
  Encoded result{int8_scale(reach), 0, 0};
  const float inverse = 1 / result.scale;
  for (int64_t p = 0; p < length; ++p) {
    const float rounded = std::nearbyintf(values[p] * inverse);
    const float rest = values[p] - rounded * result.scale;
    codes[p] = static_cast<int8_t>(static_cast<int32_t>(rounded));
    result.sum += codes[p];
    result.residual_square += rest * rest;
  }
  return result;
}

Encoded encode(const float* values, int64_t length, float reach, CodeType code, void* codes) {
  if (code == CodeType::int8) {
    return encode_int8(values, length, reach, static_cast<int8_t*>(codes));
  }
  if (code == CodeType::bfloat16) {
    return encode_bfloat16(values, length, static_cast<uint16_t*>(codes));
  }
  std::copy_n(values, length, static_cast<float*>(codes));
  return {1, 0, 0};
}

template <class T>
T element(const char* word, int i) {
  T value;
  std::memcpy(&value, word + i * static_cast<int>(sizeof(T)), sizeof(T));
  return value;
}

float add_word_float32(float sum, const char* x, const char* c) {
  return sum + element<float>(x, 0) * element<float>(c, 0);
}

float add_word_bfloat16(float sum, const char* x, const char* c) {
  for (int i = 0; i < 2; ++i) {
    sum += to_float(element<bfloat16_bits>(x, i)) * to_float(element<bfloat16_bits>(c, i));
  }
  return sum;
}

int32_t add_word_int8(int32_t sum, const char* x, const char* c) {
  for (int i = 0; i < kWordBytes; ++i) sum += element<int8_t>(x, i) * element<uint8_t>(c, i);
  return sum;
}

float row_reach(const float*, int64_t, float largest) { return largest; }

template <class Sum, Sum (*add_word)(Sum, const char*, const char*)>
void product(const PanelProduct& p) {
  auto* to = static_cast<Sum*>(p.out);
  for (int64_t row = 0; row < p.n_tiles * kTileRows; ++row, to += kPanelWidth) {
    for (int column = 0; column < kColumns; ++column) {
      Sum sums[kColumnWidth] = {};
      const char* x = p.row(0) + row * p.stride;
      const char* centers = p.column(column);
      for (int64_t w = 0; w < p.words; ++w, x += kWordBytes) {
        for (int c = 0; c < kColumnWidth; ++c, centers += kWordBytes) {
          sums[c] = add_word(sums[c], x, centers);
        }
      }
      Sum* place = to + column * kColumnWidth;
      for (int c = 0; c < kColumnWidth; ++c) {
        place[c] = p.accumulate ? place[c] + sums[c] : sums[c];
      }
    }
  }
}

template <class Sum>
bool select(const ScreenTile& tile, uint64_t* masks) {
  const auto* products = static_cast<const Sum*>(tile.products);
  uint64_t any = 0;
  for (int r = 0; r < kTileRows; ++r, products += kPanelWidth) {
    masks[r] = 0;
    for (int c = 0; c < kPanelWidth; ++c) {
      float value = static_cast<float>(products[c]);
      if (tile.tails != nullptr) value += tile.row_tail[r] * tile.tails[c];
      value -= tile.row_inverse[r] * tile.half_norms[c];
      // The comparison is negated so that NaN sets the bit.
      if (!(value < tile.row_limit[r])) masks[r] |= uint64_t{1} << c;
    }
    any |= masks[r];
  }
  return any != 0;
}

}  // namespace

AssignKernels assign_kernels_scalar(CodeType code) {
  constexpr Product products[] = {product<float, add_word_float32>,
                                  product<float, add_word_bfloat16>,
                                  product<int32_t, add_word_int8>};
  return {shift,
          magnitude,
          dot,
          dots,
          squared_distance,
          encode,
          row_reach,
          127,
          products[static_cast<int>(code)],
          code == CodeType::int8 ? select<int32_t> : select<float>,
          box_gaps};
}

}  // namespace ktfast::cpu
