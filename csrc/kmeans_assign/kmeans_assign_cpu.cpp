#include "kmeans_assign/kmeans_assign.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/check.h"
#include "common/cpu_features.h"
#include "common/float_environment.h"
#include "kmeans_assign/assign_math.h"
#include "kmeans_assign/score_tile.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace ktfast::cpu {
namespace {

// A thread packs this many tiles of rows and takes every panel of centres past them, so a panel is
// read once for 96 rows; fewer tiles where their rows would not fit a second-level cache.
constexpr int64_t kBlockTiles = 8;
constexpr int64_t kBlockFloats = 1 << 18;
constexpr int kPackColumns = 16;

// The product adds at most this many features in one chain of float32 roundings, and then the
// chains: the screen's error bound grows with the length of a chain. A multiple of kPackColumns.
constexpr int64_t kChainLength = 512;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Buffers come from Python with 16 floats of slack, because a panel's rows should not straddle
// cache lines.
template <class T>
T* aligned(T* buffer) {
  const auto address = reinterpret_cast<uintptr_t>(buffer);
  return reinterpret_cast<T*>((address + 63) / 64 * 64);
}

int64_t block_tiles(int64_t n_features) {
  const int64_t fitting = kBlockFloats / (kTileRows * std::max<int64_t>(n_features, 1));
  return std::clamp<int64_t>(fitting, 1, kBlockTiles);
}

// The prepared centres: largest |c'|, padding, mean [d], half norms [k padded], panels [k / 32, d,
// 32].
struct Prepared {
  int64_t n_panels;
  int64_t mean;
  int64_t half_norms;
  int64_t panels;
  int64_t size;

  Prepared(int64_t n_clusters, int64_t n_features)
      : n_panels((n_clusters + kPanelWidth - 1) / kPanelWidth),
        mean(kPanelWidth),
        half_norms(mean + round_up(n_features, kPanelWidth)),
        panels(half_norms + n_panels * kPanelWidth),
        size(panels + n_panels * kPanelWidth * n_features) {}
};

// One thread's share of the workspace.
struct Workspace {
  float* rows;          // [tiles, n_features, kTileRows], shifted
  float* products;      // [tiles, kTileRows, kPanelWidth]
  ScreenState* states;  // [tiles, kTileRows]

  static constexpr int64_t kStateFloats = sizeof(ScreenState) / sizeof(float);

  static int64_t size(int64_t n_features) {
    const int64_t n_rows = block_tiles(n_features) * kTileRows;
    return round_up(n_rows * n_features, 16) + n_rows * (kPanelWidth + kStateFloats);
  }

  Workspace(float* start, int64_t n_features) {
    const int64_t n_rows = block_tiles(n_features) * kTileRows;
    rows = start;
    products = rows + round_up(n_rows * n_features, 16);
    states = reinterpret_cast<ScreenState*>(products + n_rows * kPanelWidth);
  }
};

template <class T>
double exact_distance(const T* x, const double* c, int64_t n_features) {
  double lanes[kDistanceLanes] = {};
  int64_t p = 0;
  for (; p + kDistanceLanes <= n_features; p += kDistanceLanes) {
    for (int lane = 0; lane < kDistanceLanes; ++lane) {
      const double difference = to_double(x[p + lane]) - c[p + lane];
      lanes[lane] += difference * difference;
    }
  }
  for (int lane = 0; p < n_features; ++p, ++lane) {
    const double difference = to_double(x[p]) - c[p];
    lanes[lane] += difference * difference;
  }
  for (int width = kDistanceLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

template <class T>
float shifted(T value, float mean) {
  return to_float(value) - mean;
}
float shifted(double value, float mean) {
  return static_cast<float>(value - static_cast<double>(mean));
}

// Shifts rows to float32 and interleaves them: to[p, r] = x[r, p] - mean[p]. Rows past the last
// repeat it; their results are dropped. Columns go through a small buffer, so that the shift is
// done on whole registers and rows a power of two apart do not evict each other.
template <class T>
void pack_tile(const T* x, int64_t n_rows, int64_t n_features, const float* mean,
               float* __restrict__ to) {
  float columns[kTileRows][kPackColumns];
  int64_t start = 0;
  for (; start + kPackColumns <= n_features; start += kPackColumns) {
    for (int r = 0; r < kTileRows; ++r) {
      const T* row = x + std::min<int64_t>(r, n_rows - 1) * n_features + start;
      for (int p = 0; p < kPackColumns; ++p) columns[r][p] = shifted(row[p], mean[start + p]);
    }
    float* block = to + start * kTileRows;
    for (int p = 0; p < kPackColumns; ++p) {
      for (int r = 0; r < kTileRows; ++r) block[p * kTileRows + r] = columns[r][p];
    }
  }
  for (; start < n_features; ++start) {
    for (int r = 0; r < kTileRows; ++r) {
      const T* row = x + std::min<int64_t>(r, n_rows - 1) * n_features;
      to[start * kTileRows + r] = shifted(row[start], mean[start]);
    }
  }
}

// Settles a row: its nearest centre is the best one of the screen or one of those that the screen
// could not tell from it, which are compared in float64.
template <class T>
void settle(const KmeansAssignParams& p, const T* x, const ScreenState& state, int64_t row) {
  const int64_t d = p.n_features;
  const auto best = std::min_element(state.least, state.least + kClasses) - state.least;
  int64_t label = state.slot[best] * kClasses + best;
  double nearest = exact_distance(x, p.centers + label * d, d);
  // |x'| <= |x - c| + |c'|
  const double c_norm = static_cast<double>(p.prepared[0]);
  const float limit =
      state.least[best] + certified_gap(std::sqrt(nearest) + c_norm, c_norm, d, kChainLength);
  const auto consider = [&](int64_t k) {
    const double distance = exact_distance(x, p.centers + k * d, d);
    if (distance < nearest || (distance == nearest && k < label)) {
      nearest = distance;
      label = k;
    }
  };
  // Negated comparisons, so that whatever overflowed to NaN is compared as well.
  for (int64_t c = 0; c < std::min<int64_t>(kClasses, p.n_clusters); ++c) {
    if (!(state.second[c] > limit)) {
      for (int64_t k = c; k < p.n_clusters; k += kClasses) consider(k);
    } else if (!(state.least[c] > limit) && c != best) {
      consider(state.slot[c] * kClasses + c);
    }
  }
  p.labels[row] = static_cast<int32_t>(label);
  p.distances[row] = nearest;
}

template <class T>
void assign_block(const KmeansAssignParams& p, const ScoreKernels& kernels, const Workspace& work,
                  int64_t first, int64_t n_rows) {
  const int64_t d = p.n_features;
  const Prepared at(p.n_clusters, d);
  const T* x = static_cast<const T*>(p.x) + first * d;
  const int64_t tiles = (n_rows + kTileRows - 1) / kTileRows;
  for (int64_t t = 0; t < tiles; ++t) {
    pack_tile(x + t * kTileRows * d, std::min<int64_t>(kTileRows, n_rows - t * kTileRows), d,
              p.prepared + at.mean, work.rows + t * kTileRows * d);
  }
  for (int64_t r = 0; r < tiles * kTileRows; ++r) {
    std::fill_n(work.states[r].least, kClasses, kInfinity);
    std::fill_n(work.states[r].second, kClasses, kInfinity);
    std::fill_n(work.states[r].slot, kClasses, 0);
  }
  for (int64_t panel = 0; panel < at.n_panels; ++panel) {
    const float* centers = p.prepared + at.panels + panel * kPanelWidth * d;
    for (int64_t start = 0; start == 0 || start < d; start += kChainLength) {
      for (int64_t t = 0; t < tiles; ++t) {
        kernels.product(centers + start * kPanelWidth, work.rows + (t * d + start) * kTileRows,
                        std::min(kChainLength, d - start), start > 0,
                        work.products + t * kTileRows * kPanelWidth);
      }
    }
    for (int64_t t = 0; t < tiles; ++t) {
      kernels.screen(work.products + t * kTileRows * kPanelWidth,
                     p.prepared + at.half_norms + panel * kPanelWidth, static_cast<int32_t>(panel),
                     work.states + t * kTileRows);
    }
  }
  for (int64_t row = 0; row < n_rows; ++row) {
    settle(p, x + row * d, work.states[row], first + row);
  }
}

void product_scalar(const float* __restrict__ panel, const float* __restrict__ rows, int64_t length,
                    bool accumulate, float* __restrict__ out) {
  for (int r = 0; r < kTileRows; ++r) {
    float sum[kPanelWidth] = {};
    for (int64_t p = 0; p < length; ++p) {
      const float x = rows[p * kTileRows + r];
      for (int c = 0; c < kPanelWidth; ++c) sum[c] += x * panel[p * kPanelWidth + c];
    }
    for (int c = 0; c < kPanelWidth; ++c) {
      float& to = out[r * kPanelWidth + c];
      to = accumulate ? to + sum[c] : sum[c];
    }
  }
}

void screen_scalar(const float* products, const float* half_norms, int32_t panel,
                   ScreenState* states) {
  for (int r = 0; r < kTileRows; ++r) {
    for (int c = 0; c < kPanelWidth; ++c) {
      const float score = half_norms[c] - products[r * kPanelWidth + c];
      float& least = states[r].least[c % kClasses];
      float& second = states[r].second[c % kClasses];
      if (score < least) {
        second = least;
        least = score;
        states[r].slot[c % kClasses] = 2 * panel + c / kClasses;
      } else if (score < second) {
        second = score;
      }
    }
  }
}

ScoreKernels score_kernels() {
#if defined(KTFAST_X86_SIMD)
  switch (simd_level()) {
    case SimdLevel::avx512:
      return score_kernels_avx512();
    case SimdLevel::avx2:
      return score_kernels_avx2();
    case SimdLevel::scalar:
      break;
  }
#endif
  return {product_scalar, screen_scalar};
}

int thread_index() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace

int64_t kmeans_prepared_size(int64_t n_clusters, int64_t n_features) {
  return Prepared(n_clusters, n_features).size + 16;
}

int64_t kmeans_assign_workspace_size(int64_t n_features, int n_threads) {
  return n_threads * round_up(Workspace::size(n_features), 16) + 16;
}

void kmeans_prepare(const KmeansPrepareParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  KTFAST_CHECK(p.n_clusters <= std::numeric_limits<int32_t>::max() - kPanelWidth,
               "centers holds more rows than int32 labels can number");
  const int64_t d = p.n_features;
  const Prepared at(p.n_clusters, d);
  float* prepared = aligned(p.prepared);
  float* mean = prepared + at.mean;
  double largest = 0;
#pragma omp parallel num_threads(p.n_threads) reduction(max : largest)
  {
    const DefaultFloatEnvironment environment;
#pragma omp for schedule(static)
    for (int64_t f = 0; f < d; ++f) {
      double sum = 0;
      for (int64_t k = 0; k < p.n_clusters; ++k) sum += p.centers[k * d + f];
      mean[f] = static_cast<float>(sum / static_cast<double>(p.n_clusters));
    }
#pragma omp for schedule(static)
    for (int64_t padded = 0; padded < at.n_panels * kPanelWidth; ++padded) {
      float* to =
          prepared + at.panels + padded / kPanelWidth * kPanelWidth * d + padded % kPanelWidth;
      float& half_norm = prepared[at.half_norms + padded];
      if (padded >= p.n_clusters) {
        for (int64_t f = 0; f < d; ++f) to[f * kPanelWidth] = 0;
        half_norm = kInfinity;
        continue;
      }
      double norm = 0;
      for (int64_t f = 0; f < d; ++f) {
        const double difference = p.centers[padded * d + f] - static_cast<double>(mean[f]);
        norm += difference * difference;
        to[f * kPanelWidth] = static_cast<float>(difference);
      }
      half_norm = static_cast<float>(norm / 2);
      // Not std::max: a norm that is not a number must make every comparison exact.
      if (!(norm <= largest)) largest = std::isnan(norm) ? HUGE_VAL : norm;
    }
  }
  const DefaultFloatEnvironment environment;
  prepared[0] = std::nextafter(static_cast<float>(std::sqrt(largest)), kInfinity);
}

void kmeans_assign(const KmeansAssignParams& given) {
  if (given.n_rows == 0) return;
  KTFAST_CHECK(given.n_threads > 0, "n_threads must be at least 1");
  KTFAST_CHECK(
      given.workspace_size >= kmeans_assign_workspace_size(given.n_features, given.n_threads),
      "workspace is smaller than kmeans_assign_workspace_size()");
  KmeansAssignParams p = given;
  p.prepared = aligned(given.prepared);
  p.workspace = aligned(given.workspace);
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  const ScoreKernels kernels = score_kernels();
  // Few rows are spread over the threads; how rows are grouped does not change their labels.
  const int64_t share = (p.n_rows + p.n_threads - 1) / p.n_threads;
  const int64_t block_rows =
      std::min(block_tiles(p.n_features) * kTileRows, round_up(share, kTileRows));
  const int64_t n_blocks = (p.n_rows + block_rows - 1) / block_rows;
  const int64_t stride = round_up(Workspace::size(p.n_features), 16);
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
#pragma omp parallel num_threads(p.n_threads)
    {
      const DefaultFloatEnvironment environment;
      const Workspace work(p.workspace + thread_index() * stride, p.n_features);
#pragma omp for schedule(static)
      for (int64_t block = 0; block < n_blocks; ++block) {
        const int64_t first = block * block_rows;
        assign_block<T>(p, kernels, work, first, std::min(block_rows, p.n_rows - first));
      }
    }
  });
}

}  // namespace ktfast::cpu
