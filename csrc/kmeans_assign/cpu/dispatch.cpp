#include "kmeans_assign/kmeans_assign.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "common/check.h"
#include "common/cpu_features.h"
#include "common/float_environment.h"
#include "kmeans_assign/certificate.h"
#include "kmeans_assign/cpu/few.h"
#include "kmeans_assign/cpu/row_block.h"

namespace ktfast::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What is known of a row so far.
struct RowState {
  RowCode code;
  double target;     // the nearest centre's score is at most this
  double dropped;    // centres that passed and were dropped have at least this score
  double nearest;    // exact squared distance to the guess
  bool shifted;      // its features are in the block, shifted
  bool whole;        // every centre is compared, because the screen cannot be relied upon
  int32_t n_passed;  // centres that passed, but for the dropped ones
};

// The same for all rows of a block, number by number, as limits() reads them.
struct RowNumbers {
  float inverse_scale[kBlockRows], residual[kBlockRows], length[kBlockRows], norm[kBlockRows],
      tail[kBlockRows], bias[kBlockRows];
  float limit[kBlockRows];  // centres whose score may be at most this pass
};

// And for one panel, in units of products:
//   score >= half_norm - (product - bias + tail x tail') / inverse - error.
struct PanelNumbers {
  float inverse[kBlockRows], error[kBlockRows], tail[kBlockRows], limit[kBlockRows];
};

// Where bounds are wanted, the far ones among the centres that passed are dropped when there are as
// many: that lowers the limit for those to come.
constexpr int32_t kCrowded = 48;

// Not less than the `wanted` least of some numbers, and hardly more than the last of them: found by
// counting, since sorting branches too often.
float bound_of_least(const float* numbers, int32_t count, int32_t wanted) {
  constexpr int kBins = 32;
  float low = numbers[0], high = numbers[0];
  for (int32_t i = 1; i < count; ++i) {
    low = std::min(low, numbers[i]);
    high = std::max(high, numbers[i]);
  }
  const float width = (high - low) * (1.0f / kBins);
  if (!(width > 0 && width < kInfinity) || wanted >= count) return high;
  const float inverse = 1 / width;
  int32_t bins[kBins + 1] = {};
  for (int32_t i = 0; i < count; ++i) {
    const float place = (numbers[i] - low) * inverse;
    ++bins[place < kBins ? static_cast<int>(place) : kBins];
  }
  int bin = 0;
  for (int32_t sum = bins[0]; sum < wanted; sum += bins[bin]) ++bin;
  return low + static_cast<float>(bin + 1) * width;
}

// Of int8 codes a tile's product fetches a quarter of a centre, or of a row of float64.
constexpr int64_t kMostFetches = 8 * kBlockRows;

// One thread's work on one block of rows.
class Block {
 public:
  Block(const KmeansAssignParams& params, const AssignKernels& kernels, float* workspace)
      : p_(params),
        kernels_(kernels),
        centers_(p_.prepared,
                 PreparedLayout(p_.n_clusters, p_.n_features, p_.n_coordinates, p_.code)),
        at_(p_.n_features, p_.n_coordinates),
        start_(workspace),
        row_bytes_(p_.n_features * element_size(p_.x_type)),
        code_bytes_(centers_.at.words * kWordBytes),
        code_stride_(((code_bytes_ + 63) / 64 | 1) * 64),
        noting_(p_.bounds.near != nullptr),
        usable_(centers_.longest >= kLeastLength && centers_.longest <= kGreatestLength) {}

  // The next call will be with the rows from `next` on.
  void assign(int64_t first, int64_t count, int64_t next, int64_t n_next) {
    first_ = first;
    count_ = count;
    for (int64_t r = 0; r < count; ++r) begin(r);
    for (int64_t r = count; r < round_up(count, kTileRows); ++r) fill(r);
    plan_fetches(next, n_next);
    for (int64_t panel = 0; panel < centers_.at.n_panels; ++panel) screen(panel);
    for (int64_t r = 0; r < count; ++r) finish(r);
  }

  int64_t n_passed = 0;

 private:
  int64_t row_of(int64_t r) const {
    return p_.subset == nullptr ? first_ + r : p_.subset[first_ + r];
  }
  const void* x(int64_t r) const { return static_cast<const char*>(p_.x) + row_of(r) * row_bytes_; }
  float* shifted(int64_t r) const { return start_ + at_.shifted + r * p_.n_features; }
  char* codes(int64_t r) const {
    return reinterpret_cast<char*>(start_ + at_.codes) + r * code_stride_;
  }
  float* products(int64_t r) const { return start_ + at_.products + r * kPanelWidth; }
  int32_t* passed(int64_t r) const {
    return reinterpret_cast<int32_t*>(start_ + at_.passed) + r * kPassing;
  }
  // Lower bounds of the scores of what passed.
  float* bounds(int64_t r) const { return start_ + at_.scores + r * kPassing; }

  double exact(int64_t r, int64_t k) const {
    return kernels_.squared_distance(x(r), p_.x_type, p_.centers + k * p_.n_features,
                                     p_.n_features);
  }
  float score(int64_t r, int64_t k) const {
    return centers_.halves[k] -
           kernels_.dot(shifted(r), centers_.shifted + k * p_.n_features, p_.n_features);
  }
  // A score may be off by as much, and the exact distance by what that leaves.
  double gap(int64_t r, float c_norm) const {
    return pair_gap(static_cast<double>(rows_[r].code.norm), c_norm, p_.n_features);
  }

  void begin(int64_t r);
  void fill(int64_t r);
  void shift(int64_t r);
  void lower_target(int64_t r, double target);
  void screen(int64_t panel);
  void limits(int64_t panel);
  void look(int64_t panel, int64_t tile);
  void plan_fetches(int64_t next, int64_t n_next);
  void multiply(int64_t panel);
  float product(int64_t r, int c) const;
  void pass(int64_t r, int64_t panel, uint64_t mask);
  void drop_far(int64_t r);
  void drop_beaten(int64_t r);
  void finish(int64_t r);
  void settle(int64_t r);
  void note(int64_t r, int32_t label);
  void compare_all(int64_t r);

  const KmeansAssignParams& p_;
  const AssignKernels& kernels_;
  const Prepared centers_;
  const BlockLayout at_;
  float* const start_;
  const int64_t row_bytes_, code_bytes_;
  // An odd number of cache lines: rows whose distance is a power of two displace one another.
  const int64_t code_stride_;
  const bool noting_, usable_;
  int64_t first_ = 0, count_ = 0;
  const void* soon_[kMostFetches];
  RowState rows_[kBlockRows];
  RowNumbers numbers_;
  PanelNumbers panel_;
};

// Reads a row and, where there is a guess, how near that is.
void Block::begin(int64_t r) {
  RowState& row = rows_[r];
  row.n_passed = 0;
  row.target = row.dropped = HUGE_VAL;
  row.shifted = false;
  if (p_.codes != nullptr) {
    std::memcpy(codes(r), p_.codes + row_of(r) * code_bytes_, static_cast<size_t>(code_bytes_));
    std::memcpy(&row.code, p_.constants + row_of(r) * kRowConstants, sizeof row.code);
  } else {
    shift(r);
    row.code =
        RowEncoder(kernels_, p_.code, p_.n_features, 0, 0).encode(shifted(r), nullptr, codes(r));
  }
  // Negated, so that what is not a number counts as too long.
  row.whole = !usable_ || !(row.code.norm <= kGreatestLength);
  numbers_.inverse_scale[r] = 1 / row.code.scale;
  numbers_.residual[r] = row.code.residual;
  numbers_.length[r] = row.code.length;
  numbers_.norm[r] = row.code.norm;
  numbers_.tail[r] = row.code.tail;
  numbers_.bias[r] = static_cast<float>(row.code.bias);
  // Nothing passes for a row that is compared with every centre anyway.
  numbers_.limit[r] = row.whole ? -kInfinity : kInfinity;
  if (!p_.guessed) return;
  row.nearest = exact(r, p_.labels[row_of(r)]);
  lower_target(r, (row.nearest * (1 + 1e-12) - static_cast<double>(row.code.square)) / 2);
}

// Stands for a row behind the last of a tile: nothing passes.
void Block::fill(int64_t r) {
  std::memset(codes(r), 0, static_cast<size_t>(code_bytes_));
  numbers_.inverse_scale[r] = 1;
  numbers_.residual[r] = numbers_.length[r] = numbers_.norm[r] = numbers_.tail[r] =
      numbers_.bias[r] = 0;
  numbers_.limit[r] = -kInfinity;
}

void Block::shift(int64_t r) {
  if (rows_[r].shifted) return;
  kernels_.shift(x(r), p_.x_type, centers_.mean, p_.n_features, shifted(r));
  rows_[r].shifted = true;
}

// A centre with a score of at most `target` is known: centres as good must pass, and those that
// are to be noted.
void Block::lower_target(int64_t r, double target) {
  RowState& row = rows_[r];
  row.target = std::min(row.target, target);
  const double squared_distance =
      2 * row.target + static_cast<double>(row.code.norm) * static_cast<double>(row.code.norm);
  const double limit =
      row.target + static_cast<double>(p_.margin) * std::max(squared_distance, 0.0) / 2;
  numbers_.limit[r] = std::min(numbers_.limit[r], rounded_up(limit));
}

void Block::limits(int64_t panel) {
  const PanelConstants& constants = centers_.constants[panel];
  const auto product_rounding =
      static_cast<float>(product_error(coded_length(p_.n_features, p_.n_coordinates), p_.code));
  const auto score_rounding = static_cast<float>(kScoreRounding);
  const float panel_inverse = 1 / constants.scale;
  const RowNumbers& row = numbers_;
  for (int64_t r = 0; r < round_up(count_, kTileRows); ++r) {
    const float reach = row.norm[r] + constants.norm;
    const float error = row.residual[r] * constants.norm + row.length[r] * constants.residual +
                        product_rounding * row.length[r] * constants.norm +
                        score_rounding * reach * reach + 1e-30f;
    const float inverse = row.inverse_scale[r] * panel_inverse;
    panel_.inverse[r] = inverse;
    panel_.error[r] = error;
    panel_.tail[r] = row.tail[r] * inverse;
    panel_.limit[r] = row.bias[r] - inverse * (row.limit[r] + error * 1.00001f);
  }
}

void Block::screen(int64_t panel) {
  multiply(panel);
  limits(panel);
  for (int64_t tile = 0; tile < count_; tile += kTileRows) {
    if (!p_.guessed && panel == 0) look(panel, tile);
    const ScreenTile what{products(tile),
                          centers_.half_norms + panel * kPanelWidth,
                          p_.n_coordinates > 0 ? centers_.tails + panel * kPanelWidth : nullptr,
                          panel_.inverse + tile,
                          panel_.tail + tile,
                          panel_.limit + tile};
    uint64_t masks[kTileRows];
    if (!kernels_.select(what, masks)) continue;
    for (int64_t r = tile; r < std::min(tile + kTileRows, count_); ++r) {
      if (masks[r - tile] != 0) pass(r, panel, masks[r - tile]);
    }
  }
}

// What the next block begins with, its rows and the centres they are guessed to be near, is fetched
// by the last products of this one, the first of it last.
void Block::plan_fetches(int64_t next, int64_t n_next) {
  const int64_t bytes = centers_.at.words * kSoonBytes;
  const void** place = soon_ + kMostFetches;
  const auto add = [&](const void* from, int64_t length) {
    for (int64_t i = 0; i < length && place > soon_; i += bytes) {
      *--place = static_cast<const char*>(from) + i;
    }
  };
  if (p_.subset == nullptr) {
    add(static_cast<const char*>(p_.x) + next * row_bytes_, n_next * row_bytes_);
  }
  for (int64_t r = 0; p_.guessed && r < n_next; ++r) {
    add(p_.centers + p_.labels[row_of(next - first_ + r)] * p_.n_features,
        p_.n_features * static_cast<int64_t>(sizeof(double)));
  }
  std::fill(soon_, place, codes(0));
}

// A stretch of the panel that fits a second-level cache goes past all rows before the next; the
// next block of rows begins with the first panel again.
void Block::multiply(int64_t panel) {
  const PreparedLayout& at = centers_.at;
  const auto stretch = [&](int64_t of, int64_t word) {
    return centers_.panels + of * at.words * kPanelWidth + word * kColumnWidth;
  };
  const int64_t left = p_.n_clusters - panel * kPanelWidth;
  const auto columns =
      static_cast<int>(std::min<int64_t>((left + kColumnWidth - 1) / kColumnWidth, kColumns));
  const int64_t n_tiles = (count_ + kTileRows - 1) / kTileRows;
  const int64_t to_come = (at.n_panels - panel) * n_tiles;
  const void* const* soon = to_come > kMostFetches ? nullptr : soon_ + kMostFetches - to_come;
  for (int64_t w = 0; w < at.words; w += kChainLength) {
    const bool last = w + kChainLength >= at.words;
    kernels_.product(
        {stretch(panel, 0), at.words, w, std::min(kChainLength, at.words - w), codes(0),
         code_stride_, n_tiles, w > 0, products(0), columns,
         last ? stretch((panel + 1) % at.n_panels, 0) : stretch(panel, w + kChainLength), soon});
  }
}

float Block::product(int64_t r, int c) const {
  const float* place = products(r) + c;
  return p_.code == CodeType::int8 ? static_cast<float>(*reinterpret_cast<const int32_t*>(place))
                                   : *place;
}

// Without a guess, what seems the best centre of the first panel becomes one.
void Block::look(int64_t panel, int64_t tile) {
  for (int64_t r = tile; r < std::min(tile + kTileRows, count_); ++r) {
    if (rows_[r].whole) continue;
    float best = -kInfinity;
    int32_t nearest = centers_.ids[panel * kPanelWidth];
    for (int c = 0; c < kPanelWidth; ++c) {
      const int64_t slot = panel * kPanelWidth + c;
      const float value = product(r, c) - panel_.inverse[r] * centers_.half_norms[slot];
      if (value > best) {
        best = value;
        nearest = centers_.ids[slot];
      }
    }
    shift(r);
    lower_target(r, static_cast<double>(score(r, nearest)) + gap(r, centers_.norms[nearest]));
  }
  limits(panel);
}

void Block::pass(int64_t r, int64_t panel, uint64_t mask) {
  RowState& row = rows_[r];
  for (; mask != 0; mask &= mask - 1) {
    const int c = __builtin_ctzll(mask);
    const int64_t slot = panel * kPanelWidth + c;
    const int32_t k = centers_.ids[slot];
    if (k < 0) continue;
    if (row.n_passed == kPassing) drop_far(r);
    if (row.whole) return;
    ++n_passed;
    const float tail = panel_.tail[r] * centers_.tails[slot];
    const float value = product(r, c) - numbers_.bias[r] + tail;
    const float error = panel_.error[r] * 1.00001f;
    const float bound = centers_.half_norms[slot] - value / panel_.inverse[r] - error;
    if (!p_.guessed) {
      const double most =
          static_cast<double>(bound) + 2 * static_cast<double>(error + tail / panel_.inverse[r]);
      if (most < row.target) lower_target(r, most);
    }
    passed(r)[row.n_passed] = k;
    bounds(r)[row.n_passed++] = bound;
  }
  if (noting_ && row.n_passed >= kCrowded) drop_far(r);
}

// Keeps the centres that may be the nearest and, where bounds are wanted, those to be named; lowers
// the limit accordingly.
void Block::drop_far(int64_t r) {
  RowState& row = rows_[r];
  const float least = noting_ ? bound_of_least(bounds(r), row.n_passed, kNearCenters + 1)
                              : *std::min_element(bounds(r), bounds(r) + row.n_passed);
  const float cut = std::max(least, rounded_up(row.target));
  numbers_.limit[r] = std::min(numbers_.limit[r], cut);
  auto dropped = kInfinity;
  int32_t kept = 0;
  for (int32_t i = 0; i < row.n_passed; ++i) {
    const float bound = bounds(r)[i];
    passed(r)[kept] = passed(r)[i];
    bounds(r)[kept] = bound;
    const bool far = bound > cut;
    dropped = far ? std::min(dropped, bound) : dropped;
    kept += !far;
  }
  row.dropped = std::min(row.dropped, static_cast<double>(dropped));
  row.n_passed = kept;
  row.whole = kept > kPassing / 2;
}

void Block::finish(int64_t r) {
  RowState& row = rows_[r];
  if (!noting_) {
    drop_beaten(r);
  } else if (row.n_passed > kNearCenters + 1 && !row.whole) {
    drop_far(r);
  }
  if (row.whole || row.n_passed == 0) return compare_all(r);
  if (!noting_ && p_.guessed && row.n_passed == 1 && passed(r)[0] == p_.labels[row_of(r)]) {
    p_.distances[row_of(r)] = row.nearest;
    return;
  }
  shift(r);
  settle(r);
}

// Leaves out centres that passed before the limit fell.
void Block::drop_beaten(int64_t r) {
  RowState& row = rows_[r];
  int32_t kept = 0;
  for (int32_t i = 0; i < row.n_passed; ++i) {
    if (static_cast<double>(bounds(r)[i]) > row.target) continue;
    passed(r)[kept] = passed(r)[i];
    bounds(r)[kept++] = bounds(r)[i];
  }
  row.n_passed = kept;
}

// The nearest of the centres that passed: the best float32 score, or one that cannot be told from
// it. Their bounds improve.
void Block::settle(int64_t r) {
  RowState& row = rows_[r];
  float scores[kPassing];
  score_centers(kernels_, centers_, shifted(r), p_.n_features, passed(r), row.n_passed, scores);
  n_passed += row.n_passed;
  const auto best = static_cast<int32_t>(std::min_element(scores, scores + row.n_passed) - scores);
  float longest = 0;
  for (int32_t i = 0; i < row.n_passed; ++i) {
    longest = std::max(longest, centers_.norms[passed(r)[i]]);
  }
  const double error = gap(r, longest);
  const auto distance = [&](int32_t k) {
    return p_.guessed && k == p_.labels[row_of(r)] ? row.nearest : exact(r, k);
  };
  int32_t label = passed(r)[best];
  double nearest = distance(label);
  for (int32_t i = 0; i < row.n_passed; ++i) {
    const auto s = static_cast<double>(scores[i]);
    if (noting_) bounds(r)[i] = std::max(bounds(r)[i], static_cast<float>(s - error) - 1e-30f);
    if (i == best || !(s <= static_cast<double>(scores[best]) + error)) continue;
    const int32_t k = passed(r)[i];
    const double d = distance(k);
    if (d < nearest || (d == nearest && k < label)) {
      nearest = d;
      label = k;
    }
  }
  if (noting_) note(r, label);
  p_.labels[row_of(r)] = label;
  p_.distances[row_of(r)] = nearest;
}

// Names the nearest of the centres that passed, with bounds; all others are bounded together.
void Block::note(int64_t r, int32_t label) {
  const RowState& row = rows_[r];
  const int64_t place = row_of(r);
  int32_t* near = p_.bounds.near + place * kNearCenters;
  float* near_bounds = p_.bounds.near_bounds + place * kNearCenters;
  // A lower bound of the distance to a centre with at least this score.
  const auto distance = [&](double least) {
    const double square = 2 * least + static_cast<double>(row.code.square);
    return square > 0 ? static_cast<float>(std::sqrt(square) * (1 - 1e-6)) : 0.0f;
  };
  int32_t order[kPassing];
  std::iota(order, order + row.n_passed, 0);
  const int32_t named = std::min<int32_t>(row.n_passed, kNearCenters);
  const float* bound = bounds(r);
  // The label is always named: rounding could leave it behind its equals.
  if (named < row.n_passed) {
    std::nth_element(order, order + named, order + row.n_passed, [&](int32_t a, int32_t b) {
      const bool a_is_label = passed(r)[a] == label, b_is_label = passed(r)[b] == label;
      return a_is_label != b_is_label ? a_is_label : bound[a] < bound[b];
    });
  }
  double rest = std::min(static_cast<double>(numbers_.limit[r]), row.dropped);
  for (int32_t i = named; i < row.n_passed; ++i) {
    rest = std::min(rest, static_cast<double>(bound[order[i]]));
  }
  for (int32_t i = 0; i < kNearCenters; ++i) {
    near[i] = i < named ? passed(r)[order[i]] : -1;
    near_bounds[i] = i < named ? distance(static_cast<double>(bound[order[i]])) : 0.0f;
  }
  p_.bounds.rest_bound[place] = distance(rest);
  p_.bounds.epoch[place] = p_.epoch;
  p_.bounds.spent[place] = 0;
}

void Block::compare_all(int64_t r) {
  shift(r);
  const int64_t place = row_of(r);
  const Nearest found = nearest_of_all(kernels_, centers_, p_, x(r), shifted(r));
  p_.labels[place] = found.label;
  p_.distances[place] = found.distance;
  n_passed += p_.n_clusters;
  if (!noting_) return;
  std::fill_n(p_.bounds.near + place * kNearCenters, kNearCenters, -1);
  p_.bounds.rest_bound[place] = 0;
  p_.bounds.epoch[place] = p_.epoch;
  p_.bounds.spent[place] = 0;
}

// Row numbers and guesses come from outside.
void check_rows(const KmeansAssignParams& p) {
  for (int64_t i = 0; p.subset != nullptr && i < p.n_subset; ++i) {
    KTFAST_CHECK(p.subset[i] >= 0 && p.subset[i] < p.n_rows,
                 "subset must hold row numbers between 0 and n_rows - 1");
  }
  if (!p.guessed) return;
  for (int64_t row = 0; row < p.n_rows; ++row) {
    KTFAST_CHECK(p.labels[row] >= 0 && p.labels[row] < p.n_clusters,
                 "labels must lie between 0 and n_clusters - 1");
  }
}

}  // namespace

AssignKernels assign_kernels(CodeType code) {
  const SimdLevel level = simd_level();
#if defined(KTFAST_X86_SIMD)
#if defined(KTFAST_X86_AMX)
  if (level == SimdLevel::amx && code != CodeType::float32) {
    AssignKernels kernels = assign_kernels_avx512(code);
    kernels.product = code == CodeType::int8 ? product_amx_int8() : product_amx_bf16();
    return kernels;
  }
#endif
  if (level >= SimdLevel::avx512) {
    AssignKernels kernels = assign_kernels_avx512(code);
    if (code == CodeType::int8) {
      kernels.product =
          has_avx512_vnni() ? product_avx512_vnni() : assign_kernels_scalar(code).product;
    } else if (code == CodeType::bfloat16) {
      kernels.product =
          has_avx512_bf16() ? product_avx512_bf16() : assign_kernels_scalar(code).product;
    }
    return kernels;
  }
  if (level == SimdLevel::avx2) return assign_kernels_avx2(code);
#endif
  static_cast<void>(level);
  return assign_kernels_scalar(code);
}

bool kmeans_has_fast(CodeType code) {
  const SimdLevel level = simd_level();
  switch (code) {
    case CodeType::float32:
      return true;
    case CodeType::bfloat16:
      return level >= SimdLevel::avx512 && has_avx512_bf16();
    case CodeType::int8:
      return level == SimdLevel::avx2 || (level >= SimdLevel::avx512 && has_avx512_vnni());
  }
  return false;
}

int64_t kmeans_assign_workspace_size(int64_t n_features, int64_t n_coordinates, int n_threads) {
  return n_threads * BlockLayout(n_features, n_coordinates).size + 16;
}

void kmeans_assign(const KmeansAssignParams& given) {
  KmeansAssignParams p = given;
  const int64_t n_rows = p.subset == nullptr ? p.n_rows : p.n_subset;
  if (n_rows == 0) return;
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  KTFAST_CHECK(
      p.workspace_size >= kmeans_assign_workspace_size(p.n_features, p.n_coordinates, p.n_threads),
      "workspace is smaller than kmeans_assign_workspace_size()");
  KTFAST_CHECK(p.n_coordinates == 0 || p.codes != nullptr,
               "centers in a basis need the rows' codes");
  check_rows(p);
  p.workspace = aligned(given.workspace);
  if (has_few_centers(p)) {
    *p.n_passed += kmeans_few(p);
    return;
  }
  const AssignKernels kernels = assign_kernels(p.code);
  const BlockLayout at(p.n_features, p.n_coordinates);
  // Few rows are spread over the threads; how rows are grouped does not change their labels.
  const int64_t share = (n_rows + p.n_threads - 1) / p.n_threads;
  const int64_t block_rows = std::min(at.rows, round_up(share, kTileRows));
  const int64_t n_blocks = (n_rows + block_rows - 1) / block_rows;
  const auto rows_of = [&](int64_t block) {
    return block < n_blocks ? std::min(block_rows, n_rows - block * block_rows) : 0;
  };
  // A thread takes a block ahead, so that it knows what to fetch; whoever is slower takes fewer.
  std::atomic<int64_t> n_taken{0};
  int64_t n_passed = 0;
#pragma omp parallel num_threads(p.n_threads) reduction(+ : n_passed)
  {
    const DefaultFloatEnvironment environment;
    Block block(p, kernels, p.workspace + thread_index() * at.size);
    for (int64_t i = n_taken++; i < n_blocks;) {
      const int64_t next = n_taken++;
      block.assign(i * block_rows, rows_of(i), next * block_rows, rows_of(next));
      i = next;
    }
    n_passed += block.n_passed;
  }
  *p.n_passed += n_passed;
}

}  // namespace ktfast::cpu
