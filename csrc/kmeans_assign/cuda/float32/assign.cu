#include "kmeans_assign/kmeans_assign.h"

#include <limits>

#include "common/check.h"
#include "common/cuda_launch.cuh"
#include "kmeans_assign/certificate.h"
#include "kmeans_assign/cuda/exact_distance.cuh"
#include "kmeans_assign/cuda/float32/screen_tile.h"

namespace ktfast::cuda {
namespace {

constexpr int kWarps = kScreenThreads / 32;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The layout of the prepared centres, in floats: largest |c'|, padding, mean [d], half norms
// [k padded], panels [k / 128, d, 128].
struct Prepared {
  int64_t n_panels;
  int64_t mean;
  int64_t half_norms;
  int64_t panels;
  int64_t size;

  __host__ __device__ Prepared(int64_t n_clusters, int64_t n_features)
      : n_panels((n_clusters + kScreenCenters - 1) / kScreenCenters),
        mean(4),
        half_norms(mean + (n_features + 3) / 4 * 4),
        panels(half_norms + n_panels * kScreenCenters),
        size(panels + n_panels * kScreenCenters * n_features) {}
};

// Each thread computes the mean of one feature, so that a warp reads neighbouring elements.
__global__ void __launch_bounds__(kScreenThreads) mean_kernel(const KmeansPrepareParams p) {
  const int64_t feature = int64_t{blockIdx.x} * kScreenThreads + threadIdx.x;
  if (feature == 0) p.prepared[0] = 0;
  if (feature >= p.n_features) return;
  double sum = 0;
  for (int64_t k = 0; k < p.n_clusters; ++k) sum += p.centers[k * p.n_features + feature];
  p.prepared[Prepared(p.n_clusters, p.n_features).mean + feature] =
      static_cast<float>(sum / static_cast<double>(p.n_clusters));
}

// Each warp arranges one centre.
__global__ void __launch_bounds__(kScreenThreads) pack_kernel(const KmeansPrepareParams p) {
  const int64_t k = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t d = p.n_features;
  const Prepared at(p.n_clusters, d);
  float* to = p.prepared + at.panels + k / kScreenCenters * kScreenCenters * d + k % kScreenCenters;
  if (k >= p.n_clusters) {
    for (int64_t f = lane; f < d; f += 32) to[f * kScreenCenters] = 0;
    if (lane == 0) p.prepared[at.half_norms + k] = kInfinity;
    return;
  }
  double norm = 0;
  for (int64_t f = lane; f < d; f += 32) {
    const double shifted = p.centers[k * d + f] - static_cast<double>(p.prepared[at.mean + f]);
    norm += shifted * shifted;
    to[f * kScreenCenters] = static_cast<float>(shifted);
  }
  norm = warp_sum(norm);
  if (lane != 0) return;
  p.prepared[at.half_norms + k] = static_cast<float>(norm / 2);
  // Rounded up. A norm of NaN must make every comparison exact.
  const float bound = norm == norm ? __double2float_ru(sqrt(norm)) : kInfinity;
  // Non-negative floats have the order of their bits.
  atomicMax(reinterpret_cast<int*>(p.prepared), __float_as_int(bound));
}

// A warp decides one row, as the CPU does: it compares the centre of the least screened score, and
// the centres whose scores are too close to the least, in float64.
template <class T>
__device__ void settle(const KmeansAssignParams& p, const ScreenShared& shared, int r, int64_t row,
                       int lane) {
  const int64_t d = p.n_features;
  const T* x = static_cast<const T*>(p.x) + row * d;
  const bool owns = lane < kScreenClasses;
  const float least = owns ? shared.least[r][lane] : kInfinity;
  const float second = owns ? shared.second[r][lane] : kInfinity;
  const int32_t winner = owns ? shared.winner[r][lane] : 0;
  float best = least;
  for (int width = 16; width > 0; width /= 2) {
    best = fminf(best, __shfl_xor_sync(kFullWarp, best, width));
  }
  const unsigned holds_best = __ballot_sync(kFullWarp, owns && least == best);
  const int best_class = holds_best == 0 ? 0 : __ffs(static_cast<int>(holds_best)) - 1;
  const int64_t first = __shfl_sync(kFullWarp, winner, best_class);
  Nearest nearest{exact_distance(x, p.centers + first * d, d, lane), first};
  const double c_norm = static_cast<double>(p.prepared[0]);
  // |x'| <= |x - c| + |c'|
  const float limit = best + certified_gap(sqrt(nearest.distance) + c_norm, c_norm, d, d);
  // The comparisons are negated so that centres with a score of NaN are compared as well.
  unsigned unclear = __ballot_sync(kFullWarp, owns && !(second > limit));
  unsigned close = __ballot_sync(kFullWarp, owns && !(least > limit) && lane != best_class);
  close &= ~unclear;
  for (; close != 0; close &= close - 1) {
    const int64_t k = __shfl_sync(kFullWarp, winner, __ffs(static_cast<int>(close)) - 1);
    nearest.consider(exact_distance(x, p.centers + k * d, d, lane), k);
  }
  for (; unclear != 0; unclear &= unclear - 1) {
    const int owner = __ffs(static_cast<int>(unclear)) - 1;
    for (int64_t start = 0; start < p.n_clusters; start += kScreenCenters) {
      for (int i = 0; i < kThreadCenters; ++i) {
        const int64_t k = start + center_in_tile(owner, i);
        if (k < p.n_clusters) {
          nearest.consider(exact_distance(x, p.centers + k * d, d, lane), k);
        }
      }
    }
  }
  if (lane == 0) {
    p.labels[row] = static_cast<int32_t>(nearest.label);
    p.distances[row] = nearest.distance;
  }
}

// The numbers of the next step, which a thread loads while it multiplies the present step.
struct Staged {
  float x[kStageFloats];
  float c[kStageFloats];
};

template <class T>
__device__ void load_stage(const KmeansAssignParams& p, const Prepared& at, int64_t first_row,
                           int64_t panel, int64_t start, Staged& staged) {
  const int64_t d = p.n_features;
  const int left = static_cast<int>(d - start < kScreenFeatures ? d - start : kScreenFeatures);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = first_row + staged_row(thread);
  const T* x = static_cast<const T*>(p.x) + (row < p.n_rows ? row : 0) * d + start;
  const float* mean = p.prepared + at.mean + start;
  const float* centers =
      p.prepared + at.panels + (panel * d + start) * kScreenCenters + staged_center(thread);
#pragma unroll
  for (int i = 0; i < kStageFloats; ++i) {
    const int f = staged_row_feature(thread, i);
    staged.x[i] = f < left ? shifted_value(x[f], mean[f]) : 0;
    const int g = staged_center_feature(thread, i);
    staged.c[i] = g < left ? centers[g * kScreenCenters] : 0;
  }
}

__device__ void store_stage(const Staged& staged, ScreenShared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < kStageFloats; ++i) {
    shared.x[staged_row_feature(thread, i)][staged_row(thread)] = staged.x[i];
    shared.c[staged_center_feature(thread, i)][staged_center(thread)] = staged.c[i];
  }
}

__device__ void multiply_stage(const ScreenShared& shared, int row_group, int center_group,
                               float (&sum)[kThreadRows][kThreadCenters]) {
#pragma unroll
  for (int f = 0; f < kScreenFeatures; ++f) {
    float x[kThreadRows];
    float c[kThreadCenters];
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) x[i] = shared.x[f][row_group * kThreadRows + i];
#pragma unroll
    for (int i = 0; i < kThreadCenters; ++i) c[i] = shared.c[f][center_in_tile(center_group, i)];
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
#pragma unroll
      for (int i = 0; i < kThreadCenters; ++i) sum[r][i] = fmaf(x[r], c[i], sum[r][i]);
    }
  }
}

// Updates the least scores of the thread's rows with the scores of a tile. Every thread has its own
// class of centres, so no synchronisation is needed.
__device__ void screen_tile(const float (&sum)[kThreadRows][kThreadCenters],
                            const float* half_norms, int64_t first_center, int row_group,
                            int center_group, ScreenShared& shared) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    const int row = row_group * kThreadRows + r;
    float least = shared.least[row][center_group];
    float second = shared.second[row][center_group];
    int32_t winner = shared.winner[row][center_group];
#pragma unroll
    for (int i = 0; i < kThreadCenters; ++i) {
      const int64_t k = first_center + center_in_tile(center_group, i);
      const float score = half_norms[k] - sum[r][i];
      if (score < least) {
        second = least;
        least = score;
        winner = static_cast<int32_t>(k);
      } else if (score < second) {
        second = score;
      }
    }
    shared.least[row][center_group] = least;
    shared.second[row][center_group] = second;
    shared.winner[row][center_group] = winner;
  }
}

// A block compares 128 rows with every tile of 128 centres. A thread computes 8 x 8 scores of a
// tile. Shared memory: 16 KB for a step of 16 features, 24 KB for the least scores of the rows.
template <class T>
__global__ void __launch_bounds__(kScreenThreads, 2) assign_kernel(const KmeansAssignParams p) {
  __shared__ ScreenShared shared;
  const int64_t first_row = int64_t{blockIdx.x} * kScreenRows;
  const Prepared at(p.n_clusters, p.n_features);
  const int center_group = static_cast<int>(threadIdx.x) % kScreenClasses;
  const int row_group = static_cast<int>(threadIdx.x) / kScreenClasses;
  for (int r = 0; r < kThreadRows; ++r) {
    shared.least[row_group * kThreadRows + r][center_group] = kInfinity;
    shared.second[row_group * kThreadRows + r][center_group] = kInfinity;
    shared.winner[row_group * kThreadRows + r][center_group] =
        first_in_class(center_group, p.n_clusters);
  }
  for (int64_t panel = 0; panel < at.n_panels; ++panel) {
    float sum[kThreadRows][kThreadCenters] = {};
    Staged staged;
    load_stage<T>(p, at, first_row, panel, 0, staged);
    for (int64_t start = 0; start < p.n_features; start += kScreenFeatures) {
      __syncthreads();  // every thread has multiplied the previous step
      store_stage(staged, shared);
      __syncthreads();
      if (start + kScreenFeatures < p.n_features) {
        load_stage<T>(p, at, first_row, panel, start + kScreenFeatures, staged);
      }
      multiply_stage(shared, row_group, center_group, sum);
    }
    screen_tile(sum, p.prepared + at.half_norms, panel * kScreenCenters, row_group, center_group,
                shared);
  }
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int r = static_cast<int>(threadIdx.x) / 32; r < kScreenRows; r += kWarps) {
    if (first_row + r < p.n_rows) settle<T>(p, shared, r, first_row + r, lane);
  }
}

unsigned blocks_for(int64_t work, int64_t per_block) {
  const int64_t blocks = (work + per_block - 1) / per_block;
  KTFAST_CHECK(blocks <= std::numeric_limits<int32_t>::max(), "more rows than one launch can take");
  return static_cast<unsigned>(blocks);
}

}  // namespace

int64_t kmeans_prepared_size(int64_t n_clusters, int64_t n_features) {
  return Prepared(n_clusters, n_features).size;
}

void kmeans_prepare(const KmeansPrepareParams& p, CUstream_st* stream) {
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  KTFAST_CHECK(p.n_clusters <= std::numeric_limits<int32_t>::max() - kScreenCenters,
               "centers holds more rows than int32 labels can number");
  const Prepared at(p.n_clusters, p.n_features);
  const int64_t features = p.n_features > 0 ? p.n_features : 1;
  launch(mean_kernel, blocks_for(features, kScreenThreads), kScreenThreads, 0, stream, p);
  launch(pack_kernel, blocks_for(at.n_panels * kScreenCenters, kWarps), kScreenThreads, 0, stream,
         p);
}

void kmeans_assign(const KmeansAssignParams& p, CUstream_st* stream) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    launch(assign_kernel<T>, blocks_for(p.n_rows, kScreenRows), kScreenThreads, 0, stream, p);
  });
}

}  // namespace ktfast::cuda
