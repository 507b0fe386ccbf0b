// The inner loops of kmeans_few with AVX2.
#include "kmeans_assign/cpu/avx2/row_simd.h"
#include "kmeans_assign/cpu/few_kernels.h"

namespace ktfast::cpu {
namespace {

constexpr int kLanes = 8;
// exact() reads row after row, and load_of() eight rows at a time. The hardware prefetcher does not
// fetch the next block if a row has at most this many bytes, so exact() fetches the next block: its
// computation overlaps with the memory's work.
constexpr int64_t kShortRow = 4096;
constexpr int64_t kLine = 64;  // bytes
constexpr int kVectors = kFewRows / kLanes;

// Transposes eight registers of eight numbers. Inlined, so that the numbers stay in registers.
[[gnu::always_inline]] inline void transpose_8(__m256 v[8]) {
  __m256 t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    v[i] = _mm256_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
    v[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
    v[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
    v[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) v[i] = t[i];
}

// Transposes eight features of eight rows, and writes the first `length` features as columns of the
// panel. Adds the squares of the features to the sums of the rows.
[[gnu::always_inline]] inline void store_square(__m256 v[8], int64_t length, float* column,
                                                __m256& squares) {
  transpose_8(v);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    if (i >= length) break;
    squares = _mm256_fmadd_ps(v[i], v[i], squares);
    _mm256_storeu_ps(column + i * kColumnWidth, v[i]);
  }
}

// Loads eight features of eight rows, less the mean, and stores them.
template <class T>
[[gnu::always_inline]] inline void load_square(const T* x, int64_t stride, const float* mean,
                                               float* column, __m256& squares) {
  const __m256 shift = load_8(mean);
  __m256 v[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) v[i] = shifted_8(x + i * stride, shift);
  store_square(v, 8, column, squares);
}

// The same for fewer than eight features, or fewer than eight rows.
template <class T>
[[gnu::noinline]] void load_part(const T* x, int64_t stride, int64_t rows, const float* mean,
                                 int64_t left, float* column, __m256& squares) {
  __m256 v[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    v[i] = i < rows ? shifted_8(x + i * stride, mean, left) : _mm256_setzero_ps();
  }
  store_square(v, left, column, squares);
}

template <class T>
float load_of(const T* x, int64_t stride, int64_t rows, const float* mean, int64_t length,
              float* panel) {
  __m256 longest = _mm256_setzero_ps();
  for (int r = 0; r < kFewRows; r += kLanes) {
    float* column = panel + r / kColumnWidth * length * kColumnWidth + r % kColumnWidth;
    const T* start = x + r * stride;
    const int64_t whole = r + kLanes <= rows ? length / kLanes * kLanes : 0;
    __m256 squares = _mm256_setzero_ps();
    for (int64_t p = 0; p < whole; p += kLanes) {
      load_square(start + p, stride, mean + p, column + p * kColumnWidth, squares);
    }
    for (int64_t p = whole; p < length; p += kLanes) {
      load_part(start + p, stride, rows - r, mean + p, length - p, column + p * kColumnWidth,
                squares);
    }
    longest = _mm256_max_ps(squares, longest);
  }
  float lanes[kLanes];
  _mm256_storeu_ps(lanes, longest);
  for (int i = 1; i < kLanes; ++i) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
  return lanes[0];
}

float load(const void* x, ElementType type, int64_t stride, int64_t rows, const float* mean,
           int64_t length, float* panel) {
  return by_type(type, [&](auto* element) {
    return load_of(static_cast<decltype(element)>(x), stride, rows, mean, length, panel);
  });
}

void rank(const float* products, const float* halves, int32_t first, int count, Ranking& ranking) {
  for (int v = 0; v < kVectors; ++v) {
    __m256 best = _mm256_loadu_ps(ranking.best + v * kLanes);
    __m256 second = _mm256_loadu_ps(ranking.second + v * kLanes);
    __m256 nearest = _mm256_loadu_ps(reinterpret_cast<float*>(ranking.nearest + v * kLanes));
    for (int c = 0; c < count; ++c) {
      const __m256 product = _mm256_loadu_ps(products + c * kFewRows + v * kLanes);
      const __m256 score = _mm256_sub_ps(_mm256_set1_ps(halves[c]), product);
      const __m256 id = _mm256_castsi256_ps(_mm256_set1_epi32(first + c));
      // The minimum and the maximum return their second operand if either operand is NaN.
      second = _mm256_min_ps(_mm256_max_ps(score, best), second);
      nearest = _mm256_blendv_ps(nearest, id, _mm256_cmp_ps(score, best, _CMP_LT_OQ));
      best = _mm256_min_ps(score, best);
    }
    _mm256_storeu_ps(ranking.best + v * kLanes, best);
    _mm256_storeu_ps(ranking.second + v * kLanes, second);
    _mm256_storeu_ps(reinterpret_cast<float*>(ranking.nearest + v * kLanes), nearest);
  }
}

void exact(const void* x, ElementType type, const double* centers, const int32_t* labels,
           int64_t rows, int64_t length, double* out) {
  by_type(type, [&](auto* element) {
    const auto* values = static_cast<decltype(element)>(x);
    const int64_t row_bytes = length * static_cast<int64_t>(sizeof *values);
    const int64_t fetched = row_bytes <= kShortRow ? row_bytes : 0;
    for (int64_t r = 0; r < rows; ++r, values += length) {
      const double* center = centers + labels[r] * length;
      const char* next = reinterpret_cast<const char*>(values + kFewRows * length);
      for (int64_t p = 0; p < fetched; p += kLine) __builtin_prefetch(next + p);
      out[r] = length <= 16 ? exact_short_distance(values, center, length)
                            : exact_distance(values, center, length);
    }
  });
}

}  // namespace

FewKernels few_kernels_avx2() { return {load, rank, exact}; }

}  // namespace ktfast::cpu
