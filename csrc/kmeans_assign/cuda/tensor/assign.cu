#include <limits>
#include <type_traits>

#include "common/check.h"
#include "common/cuda_launch.cuh"
#include "kmeans_assign/cuda/exact_distance.cuh"
#include "kmeans_assign/cuda/tensor/prepared_tensor.h"
#include "kmeans_assign/cuda/tensor/screen.cuh"
#include "kmeans_assign/kmeans_tensor.h"

namespace ktfast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
// Blocks at a time on a multiprocessor, for kernels that compare rows with all centres. Without
// this number, nvcc 13 aims at 40 registers a thread, and some kernels spill.
constexpr int kBlocks = 4;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The parts of a call's workspace.
struct Workspace {
  unsigned long long* best;        // [n] packed
  unsigned long long* candidates;  // [n, kCandidates] packed
  float* limits;                   // [n]
  int32_t* counts;                 // [n]; kKept: the bounds have decided the row
  uint32_t* others;                // [n] ordered bits of a score
  int32_t* active;                 // [1 + row tiles]

  __host__ __device__ Workspace(int64_t* words, const TensorWorkspace& at)
      : best(reinterpret_cast<unsigned long long*>(words + at.best)),
        candidates(reinterpret_cast<unsigned long long*>(words + at.candidates)),
        limits(reinterpret_cast<float*>(words + at.limits)),
        counts(reinterpret_cast<int32_t*>(words + at.counts)),
        others(reinterpret_cast<uint32_t*>(words + at.others)),
        active(reinterpret_cast<int32_t*>(words + at.active)) {}
};
constexpr int32_t kKept = -1;

__device__ bool valid_guess(const KmeansTensorAssignParams& p, int64_t row) {
  return p.guessed && p.labels[row] >= 0 && p.labels[row] < p.n_clusters;
}

// If the screen's arithmetic could overflow or underflow, the row is compared with every centre.
__device__ bool usable(const KmeansTensorAssignParams& p, float norm) {
  const TensorPrepared at(p.n_clusters, p.n_features, p.code);
  const float longest = *at.longest_in(p.prepared);
  return longest >= kLeastLength && longest <= kGreatestLength && norm <= kGreatestLength;
}

__device__ float norm_of(const KmeansTensorAssignParams& p, int64_t row) {
  return reinterpret_cast<const RowConstants*>(p.constants)[row].norm;
}

// An upper bound of the nearest centre's score, from one of the squared distance to a centre.
__device__ float limit_of(double square, float norm) {
  return rounded_up((square * (1 + 1e-12) - least_square(norm)) / 2);
}

__device__ void begin_row(const Workspace& to, int64_t row, float limit, bool kept = false) {
  to.limits[row] = kept ? -kInfinity : limit;
  to.best[row] = kNoScore;
  to.counts[row] = kept ? kKept : 0;
  to.others[row] = ordered_bits(kInfinity);
}

// Each warp computes, from the guess of one row, an upper bound of the score of the row's nearest
// centre. `distances` keeps the distance to the guess. Only a certificate needs the bound, so
// without one the rows are not read.
template <class T>
__global__ void __launch_bounds__(kThreads) guess_kernel(const KmeansTensorAssignParams p) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= p.n_rows) return;
  const int64_t d = p.n_features;
  const Workspace to(p.workspace, TensorWorkspace(p.n_rows));
  const float norm = norm_of(p, row);
  const bool screened = usable(p, norm);
  float limit = screened ? kInfinity : -kInfinity;
  if (screened && p.certify && valid_guess(p, row)) {
    const double distance = exact_distance(static_cast<const T*>(p.x) + row * d,
                                           p.centers + p.labels[row] * d, d, lane);
    limit = limit_of(distance, norm);
    if (lane == 0) p.distances[row] = distance;
  }
  if (lane == 0) begin_row(to, row, limit);
}

// Carries the bounds of one row along with the centres. Returns whether the row keeps its label.
__device__ bool carry_bounds(const KmeansTensorAssignParams& p, int64_t row) {
  const float norm = norm_of(p, row);
  const bool screened = usable(p, norm);
  float limit = screened ? kInfinity : -kInfinity;
  bool kept = false;
  if (screened && valid_guess(p, row)) {
    const double bound = carried_bound(p.distances[row], p.moves[p.labels[row]]);
    limit = limit_of(bound, norm);
    p.distances[row] = bound;
    if (p.others != nullptr) {
      const double other = carried_other(p.others[row], p.moves[p.n_clusters]);
      kept = excludes_others(bound, other);
      if (kept) p.others[row] = other;
    }
  }
  begin_row(Workspace(p.workspace, TensorWorkspace(p.n_rows)), row, limit, kept);
  return kept;
}

// With `bounds`, each thread carries the bounds of one row. The rows and the centres are not read.
// A block has the rows of one tile. With `others`, the tile is multiplied unless all its rows keep
// their labels.
__global__ void __launch_bounds__(kRowTile) bound_kernel(const KmeansTensorAssignParams p) {
  __shared__ bool moving[kRowTile / 32];
  const int64_t row = int64_t{blockIdx.x} * kRowTile + threadIdx.x;
  const bool kept = row >= p.n_rows || carry_bounds(p, row);
  if (p.others == nullptr) return;
  const unsigned all = __ballot_sync(kFullWarp, kept);
  if (threadIdx.x % 32 == 0) moving[threadIdx.x / 32] = all != kFullWarp;
  __syncthreads();
  if (threadIdx.x != 0) return;
  bool multiplied = false;
  for (const bool each : moving) multiplied = multiplied || each;
  if (!multiplied) return;
  int32_t* const active = Workspace(p.workspace, TensorWorkspace(p.n_rows)).active;
  active[1 + atomicAdd(active, 1)] = static_cast<int32_t>(blockIdx.x);
  if (p.n_multiplied != nullptr) {
    atomicAdd(reinterpret_cast<unsigned long long*>(p.n_multiplied), 1ull);
  }
}

__device__ void count_passed(const KmeansTensorAssignParams& p, int64_t passed) {
  if (p.n_passed == nullptr) return;
  atomicAdd(reinterpret_cast<unsigned long long*>(p.n_passed),
            static_cast<unsigned long long>(passed));
}

// The nearest centres that the warps of a block have found for one row.
struct BlockNearest {
  double distances[kWarps];
  int64_t labels[kWarps];
};

// The whole block compares one undecided row with every centre.
template <class T>
__device__ void compare_all(const KmeansTensorAssignParams& p, int64_t row, BlockNearest& found) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t d = p.n_features;
  const T* x = static_cast<const T*>(p.x) + row * d;
  Nearest nearest{exact_distance(x, p.centers, d, lane), 0};
  for (int64_t k = warp; k < p.n_clusters; k += kWarps) {
    nearest.consider(exact_distance(x, p.centers + k * d, d, lane), k);
  }
  __syncthreads();  // thread 0 has read the results of the previous row
  if (lane == 0) {
    found.distances[warp] = nearest.distance;
    found.labels[warp] = nearest.label;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kWarps; ++w) nearest.consider(found.distances[w], found.labels[w]);
  p.labels[row] = static_cast<int32_t>(nearest.label);
  p.distances[row] = nearest.distance;
  count_passed(p, p.n_clusters);
}

// The only candidate is the nearest centre, so the limit of the nearest centre's score bounds its
// distance. The carried bound of the guess may be less.
__device__ void accept_only(const KmeansTensorAssignParams& p, int64_t row, int64_t only,
                            float limit) {
  const double bound = bound_of_score(norm_of(p, row), limit);
  const bool carried = valid_guess(p, row) && only == p.labels[row] && p.distances[row] < bound;
  p.labels[row] = static_cast<int32_t>(only);
  if (!carried) p.distances[row] = bound;
}

// A warp compares the candidates of one row that are within the final limit. A lane holds one
// candidate. Returns false if there were too many candidates, or if the screen skipped the row.
template <class T>
__device__ bool settle_row(const KmeansTensorAssignParams& p, int64_t row, int lane) {
  const int64_t d = p.n_features;
  const Workspace from(p.workspace, TensorWorkspace(p.n_rows));
  const int32_t count = from.counts[row];
  if (count == kKept) return true;
  const float limit = fminf(from.limits[row], score_of(from.best[row]));
  const unsigned long long candidate =
      lane < count && count <= kCandidates ? from.candidates[row * kCandidates + lane] : kNoScore;
  unsigned left = __ballot_sync(kFullWarp, candidate != kNoScore && !(score_of(candidate) > limit));
  if (left == 0) return false;
  if (p.bounds && (left & (left - 1)) == 0) {
    if (left >> lane == 1) accept_only(p, row, static_cast<uint32_t>(candidate), limit);
    return true;
  }
  // With bounds, the exact distance of the guess is not known.
  const int64_t guess = !p.bounds && valid_guess(p, row) ? p.labels[row] : -1;
  if (lane == 0) count_passed(p, __popc(left));
  Nearest nearest{static_cast<double>(kInfinity), p.n_clusters};
  for (; left != 0; left &= left - 1) {
    const auto k = static_cast<int64_t>(__shfl_sync(kFullWarp, static_cast<uint32_t>(candidate),
                                                    __ffs(static_cast<int>(left)) - 1));
    nearest.consider(k == guess ? p.distances[row]
                                : exact_distance(static_cast<const T*>(p.x) + row * d,
                                                 p.centers + k * d, d, lane),
                     k);
  }
  __syncwarp();  // every lane has read the guess
  if (lane == 0) {
    p.labels[row] = static_cast<int32_t>(nearest.label);
    p.distances[row] = nearest.distance;
  }
  return true;
}

// Remembers how near a centre other than the row's can be, if the row has kept the label for which
// the screen has found this out.
__device__ void keep_other(const KmeansTensorAssignParams& p, int64_t row, int32_t former,
                           bool decided) {
  const Workspace from(p.workspace, TensorWorkspace(p.n_rows));
  if (from.counts[row] == kKept) return;
  const bool known = decided && p.guessed && p.labels[row] == former;
  const float score = score_of(static_cast<unsigned long long>(from.others[row]) << 32);
  p.others[row] = known ? distance_of_score(norm_of(p, row), score) : -1;
}

// Each warp settles one row. Then the block compares its undecided rows with every centre, so that
// undecided rows need no queue and no further launch.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    settle_kernel(const KmeansTensorAssignParams p) {
  __shared__ bool undecided[kWarps];
  __shared__ BlockNearest found;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t first = int64_t{blockIdx.x} * kWarps;
  const int64_t row = first + warp;
  const bool keeps = p.others != nullptr && row < p.n_rows && lane == 0;
  const int32_t former = keeps ? p.labels[row] : -1;
  __syncwarp();  // the label has been read
  const bool decided = row >= p.n_rows || settle_row<T>(p, row, lane);
  if (lane == 0) undecided[warp] = !decided;
  __syncthreads();
  if (keeps) keep_other(p, row, former, decided);
  for (int w = 0; w < kWarps; ++w) {
    if (undecided[w]) compare_all<T>(p, first + w, found);
  }
}

// Without certification the least score decides. Returns false if there is no score.
__device__ bool accept_row(const KmeansTensorAssignParams& p, int64_t row) {
  const Workspace from(p.workspace, TensorWorkspace(p.n_rows));
  const unsigned long long best = from.best[row];
  const auto label = static_cast<uint32_t>(best);
  if (label >= p.n_clusters) return false;
  const auto norm = static_cast<double>(norm_of(p, row));
  const double distance = norm * norm + 2 * static_cast<double>(score_of(best));
  p.labels[row] = static_cast<int32_t>(label);
  p.distances[row] = distance > 0 ? distance : 0;
  return true;
}

// Each thread decides one row. Then the block compares its undecided rows with every centre.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    accept_kernel(const KmeansTensorAssignParams p) {
  __shared__ unsigned undecided[kWarps];  // a bit per lane
  __shared__ BlockNearest found;
  const int64_t first = int64_t{blockIdx.x} * kThreads;
  const int64_t row = first + threadIdx.x;
  const bool decided = row >= p.n_rows || accept_row(p, row);
  const unsigned rest = __ballot_sync(kFullWarp, !decided);
  if (threadIdx.x % 32 == 0) undecided[threadIdx.x / 32] = rest;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) {
    for (unsigned left = undecided[w]; left != 0; left &= left - 1) {
      compare_all<T>(p, first + 32 * w + __ffs(static_cast<int>(left)) - 1, found);
    }
  }
}

void screen(const TensorScreenParams& s, const KmeansTensorAssignParams& p, CUstream_st* stream) {
  if (p.path == ProductPath::fastest && compute_capability() == 90) {
    launch_wgmma_screen(s, p.code, stream);
  } else {
    launch_mma_screen(s, p.code, stream);
  }
}

// Without guesses, one of this many centre tiles is screened first. That gives the rows limits for
// the screen of all centres.
constexpr int64_t kFirstShare = 8;

void screen_all(const KmeansTensorAssignParams& p, CUstream_st* stream) {
  const TensorPrepared at(p.n_clusters, p.n_features, p.code);
  const Workspace to(p.workspace, TensorWorkspace(p.n_rows));
  TensorScreenParams s{};
  s.n_rows = p.n_rows;
  s.n_clusters = p.n_clusters;
  s.n_stages = at.n_stages;
  s.n_row_tiles = ceil_divide(p.n_rows, kRowTile);
  s.n_center_tiles = at.n_tiles;
  s.row_codes = p.codes;
  s.rows = reinterpret_cast<const RowConstants*>(p.constants);
  s.limits = to.limits;
  s.center_codes = p.prepared + at.codes;
  s.half_norms = at.half_norms_in(p.prepared);
  s.tiles = at.tiles_in(p.prepared);
  s.best = to.best;
  s.counts = to.counts;
  s.candidates = to.candidates;
  if (p.others != nullptr) {
    s.active = to.active;
    s.others = p.guessed ? to.others : nullptr;
    s.labels = p.labels;
  }
  s.product_error = tensor_product_error(p.n_features, p.code);
  s.certify = p.certify;
  if (p.certify && !p.guessed && at.n_tiles > 1) {
    s.n_center_tiles = ceil_divide(at.n_tiles, kFirstShare);
    screen(s, p, stream);
    s.n_center_tiles = at.n_tiles;
  }
  s.collect = p.certify;
  screen(s, p, stream);
}

void forget_active(const KmeansTensorAssignParams& p, CUstream_st* stream) {
  const Workspace to(p.workspace, TensorWorkspace(p.n_rows));
  KTFAST_CUDA_CHECK(cudaMemsetAsync(to.active, 0, sizeof(int32_t), stream));
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

int64_t kmeans_tensor_workspace_size(int64_t n_rows) { return TensorWorkspace(n_rows).size; }

void kmeans_tensor_assign(const KmeansTensorAssignParams& p, CUstream_st* stream) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  KTFAST_CHECK(p.n_rows < std::numeric_limits<int32_t>::max() - kRowTile,
               "more rows than one call can take");
  KTFAST_CHECK(aligned(p.codes) && aligned(p.constants) && aligned(p.prepared),
               "codes, constants and prepared must be aligned to 16 bytes");
  KTFAST_CHECK(!p.bounds || p.certify, "bounds need certify");
  KTFAST_CHECK(!p.bounds || !p.guessed || p.moves != nullptr, "bounds of guesses need moves");
  KTFAST_CHECK(p.others == nullptr || p.bounds, "others needs bounds");
  const auto warp_blocks = static_cast<unsigned>(ceil_divide(p.n_rows, kWarps));
  const auto thread_blocks = static_cast<unsigned>(ceil_divide(p.n_rows, kThreads));
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    if (p.bounds) {
      if (p.others != nullptr) forget_active(p, stream);
      launch(bound_kernel, static_cast<unsigned>(ceil_divide(p.n_rows, kRowTile)), kRowTile, 0,
             stream, p);
    } else {
      launch(guess_kernel<T>, warp_blocks, kThreads, 0, stream, p);
    }
    screen_all(p, stream);
    if (p.certify) {
      launch(settle_kernel<T>, warp_blocks, kThreads, 0, stream, p);
    } else {
      launch(accept_kernel<T>, thread_blocks, kThreads, 0, stream, p);
    }
  });
}

}  // namespace ktfast::cuda
