// The first half of an assignment pass: rows are read, centres are screened, candidates collected.
#include "kmeans_assign/kmeans_assign.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kmeans_assign/certificate.h"
#include "kmeans_assign/cpu/assign_block.h"

namespace ktfast::cpu {
namespace {

// If bounds are recorded, a row that has this many candidates drops the far ones. That lowers the
// row's limit, so fewer of the centres in later panels become candidates.
constexpr int32_t kManyCandidates = 48;

// Returns an upper bound of the `wanted` smallest numbers. The bound exceeds the largest of them by
// at most the width of a bin, 1/32 of the numbers' range. The numbers are counted in bins, because
// a sort would branch unpredictably.
float bound_of_smallest(const float* numbers, int32_t count, int32_t wanted) {
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

}  // namespace

AssignBlock::AssignBlock(const KmeansAssignParams& params, const AssignKernels& kernels,
                         float* workspace)
    : p_(params),
      kernels_(kernels),
      centers_(p_.prepared,
               PreparedLayout(p_.n_clusters, p_.n_features, p_.n_coordinates, p_.code)),
      at_(p_.n_features, p_.n_coordinates),
      start_(workspace),
      row_bytes_(p_.n_features * element_size(p_.x_type)),
      code_bytes_(centers_.at.words * kWordBytes),
      code_stride_(((code_bytes_ + 63) / 64 | 1) * 64),
      records_bounds_(p_.bounds.near != nullptr),
      screen_is_usable_(centers_.header.near_longest >= kLeastLength &&
                        centers_.header.near_longest <= kGreatestLength),
      uses_boxes_(p_.guessed && p_.places != nullptr && centers_.header.has_boxes != 0) {}

void AssignBlock::assign(int64_t first, int64_t count, int64_t next, int64_t n_next) {
  first_ = first;
  count_ = count;
  for (int64_t r = 0; r < count; ++r) load_row(r);
  for (int64_t r = count; r < round_up(count, kTileRows); ++r) fill_missing_row(r);
  plan_fetches(next, n_next);
  n_panels_ = panels_needed();
  const int64_t n_tiles = (count_ + kTileRows - 1) / kTileRows;
  if (uses_boxes_) {
    screen_reachable_panels();
  } else {
    for (int64_t panel = 0; panel < n_panels_; ++panel) {
      screen_panel({panel, 0, n_tiles}, (panel + 1) % n_panels_, (n_panels_ - panel) * n_tiles);
    }
  }
  for (int64_t r = 0; r < count; ++r) decide_row(r);
}

void AssignBlock::load_row(int64_t r) {
  RowState& row = rows_[r];
  row.n_candidates = 0;
  row.best_score = row.dropped_bound = HUGE_VAL;
  row.is_shifted = false;
  if (p_.codes != nullptr) {
    std::memcpy(codes(r), p_.codes + row_of(r) * code_bytes_, static_cast<size_t>(code_bytes_));
    std::memcpy(&row.code, p_.constants + row_of(r) * kRowConstants, sizeof row.code);
  } else {
    shift_row(r);
    row.code =
        RowEncoder(kernels_, p_.code, p_.n_features, 0, 0).encode(shifted(r), nullptr, codes(r));
  }
  // The comparison is negated so that a length of NaN counts as too long.
  row.compares_all = !screen_is_usable_ || !(row.code.norm <= kGreatestLength);
  const auto norm = static_cast<double>(row.code.norm);
  row.beats_far = centers_.n_far == 0 || centers_.far_centers_lose(norm);
  if (!row.beats_far && !(centers_.header.longest <= kGreatestLength)) row.compares_all = true;
  if (centers_.n_far > 0 && row.beats_far) {
    const auto far = static_cast<double>(centers_.header.far_shortest);
    row.dropped_bound = far * (far / 2 - norm) * 0.999;
  }
  values_.inverse_scale[r] = 1 / row.code.scale;
  values_.residual[r] = row.code.residual;
  values_.length[r] = row.code.length;
  values_.norm[r] = row.code.norm;
  values_.tail[r] = row.code.tail;
  values_.bias[r] = static_cast<float>(row.code.bias);
  // A row that is compared with every centre needs no candidates.
  values_.limit[r] = row.compares_all ? -kInfinity : kInfinity;
  if (!p_.guessed) return;
  if (uses_boxes_) {
    const float* place = p_.places + row_of(r) * kPlaceNumbers;
    for (int64_t i = 0; i < kPlaceNumbers; ++i) places_[i * kBlockRows + r] = place[i];
  }
  row.guess_distance = exact(r, p_.labels[row_of(r)]);
  lower_best_score(r,
                   (row.guess_distance * (1 + 1e-12) - static_cast<double>(row.code.square)) / 2);
}

int64_t AssignBlock::panels_needed() const {
  const auto needs_far = [](const RowState& row) { return !row.beats_far && !row.compares_all; };
  const bool far = std::any_of(rows_, rows_ + count_, needs_far);
  return centers_.n_near_panels + (far ? 1 : 0);
}

void AssignBlock::fill_missing_row(int64_t r) {
  std::memset(codes(r), 0, static_cast<size_t>(code_bytes_));
  values_.inverse_scale[r] = 1;
  values_.residual[r] = values_.length[r] = values_.norm[r] = values_.tail[r] = values_.bias[r] = 0;
  values_.limit[r] = -kInfinity;
  for (int64_t i = 0; i < kPlaceNumbers; ++i) places_[i * kBlockRows + r] = 0;
}

void AssignBlock::shift_row(int64_t r) {
  if (rows_[r].is_shifted) return;
  kernels_.shift(x(r), p_.x_type, centers_.mean, p_.n_features, shifted(r));
  rows_[r].is_shifted = true;
}

void AssignBlock::lower_best_score(int64_t r, double score) {
  RowState& row = rows_[r];
  row.best_score = std::min(row.best_score, score);
  const double squared_distance =
      2 * row.best_score + static_cast<double>(row.code.norm) * static_cast<double>(row.code.norm);
  // The limit also admits centres within the margin, because record_bounds() lists them.
  const double limit =
      row.best_score + static_cast<double>(p_.margin) * std::max(squared_distance, 0.0) / 2;
  values_.limit[r] = std::min(values_.limit[r], rounded_up(limit));
}

void AssignBlock::screen_reachable_panels() {
  const int64_t n_tiles = (count_ + kTileRows - 1) / kTileRows;
  for (int64_t tile = 0; tile < n_tiles; ++tile) own_panel_[tile] = -1;
  int64_t end = 0;
  for (int64_t tile = 0; tile < n_tiles; tile = end) {
    const int64_t own = panel_of_guess(tile);
    for (end = tile + 1; end < n_tiles && panel_of_guess(end) == own;) ++end;
    const int64_t next = end < n_tiles ? panel_of_guess(end) : own;
    screen_panel({own, tile, end - tile}, next, (n_panels_ + 1) * n_tiles);
    std::fill(own_panel_ + tile, own_panel_ + end, own);
  }
  const int64_t own = own_panel_[0];
  set_reaches();
  tasks_.clear();
  int64_t tiles_left = 0;
  for (int64_t panel = 0; panel < n_panels_; ++panel) {
    tiles_left += add_reachable_tiles(panel);
  }
  for (size_t i = 0; i < tasks_.size(); ++i) {
    screen_panel(tasks_[i], i + 1 < tasks_.size() ? tasks_[i + 1].panel : own, tiles_left);
    tiles_left -= tasks_[i].n_tiles;
  }
}

int64_t AssignBlock::panel_of_guess(int64_t tile) const {
  const int64_t panel = centers_.panel_of[p_.labels[row_of(tile * kTileRows)]];
  return panel < n_panels_ ? panel : 0;
}

// A centre that is farther from a row than `reach` has a score above the row's limit, because
// |x' - c'|^2 = |x'|^2 + 2 s(c). Places add their error, and the sum of squares in float32 a share.
void AssignBlock::set_reaches() {
  const double error = place_error(p_.n_features);
  for (int64_t r = 0; r < round_up(count_, kTileRows); ++r) {
    const auto limit = static_cast<double>(values_.limit[r]);
    const auto norm = static_cast<double>(values_.norm[r]);
    const double slack = error * (norm + static_cast<double>(centers_.header.near_longest));
    const double reach = std::sqrt(std::max(norm * norm + 2 * limit, 0.0)) + slack;
    reach_[r] = limit == -HUGE_VAL ? -1.0f : rounded_up(reach * reach * (1 + 1e-5));
  }
}

int64_t AssignBlock::add_reachable_tiles(int64_t panel) {
  const int64_t n_rows = round_up(count_, kTileRows);
  const int64_t n_tiles = n_rows / kTileRows;
  if (panel >= centers_.n_near_panels) {
    tasks_.push_back({panel, 0, n_tiles});
    return n_tiles;
  }
  float squares[kBlockRows];
  kernels_.box_gaps(places_, kBlockRows, centers_.boxes + panel * 2 * kPlaceNumbers, n_rows,
                    squares);
  int64_t added = 0, end = -1;  // the last task of this panel ends at tile `end`
  for (int64_t tile = 0; tile < n_tiles; ++tile) {
    bool reaches = false;
    for (int64_t r = tile * kTileRows; r < (tile + 1) * kTileRows; ++r) {
      reaches |= !(squares[r] > reach_[r]);  // a distance of NaN counts as near
    }
    if (!reaches || own_panel_[tile] == panel) continue;
    if (end != tile) tasks_.push_back({panel, tile, 0});
    ++tasks_.back().n_tiles;
    end = tile + 1;
    ++added;
  }
  return added;
}

void AssignBlock::screen_panel(const PanelTask& task, int64_t next, int64_t tiles_left) {
  const int64_t panel = task.panel;
  multiply_panel(task, next, tiles_left);
  set_panel_values(task);
  const int64_t end = std::min((task.first_tile + task.n_tiles) * kTileRows, count_);
  for (int64_t tile = task.first_tile * kTileRows; tile < end; tile += kTileRows) {
    if (uses_boxes_ && own_panel_[tile / kTileRows] == panel) continue;  // was screened first
    if (!p_.guessed && panel == 0) guess_from_panel(task, tile);
    const ScreenTile screened{products(tile),
                              centers_.half_norms + panel * kPanelWidth,
                              p_.n_coordinates > 0 ? centers_.tails + panel * kPanelWidth : nullptr,
                              panel_values_.inverse + tile,
                              panel_values_.tail + tile,
                              panel_values_.limit + tile};
    uint64_t masks[kTileRows];
    if (!kernels_.select(screened, masks)) continue;
    for (int64_t r = tile; r < std::min(tile + kTileRows, count_); ++r) {
      if (masks[r - tile] != 0) collect_candidates(r, panel, masks[r - tile]);
    }
  }
}

// Multiplies all rows by a stretch of the panel before the next stretch, so that the stretch stays
// in a second-level cache. During the last panel the kernels fetch the first panel for the next
// block.
void AssignBlock::multiply_panel(const PanelTask& task, int64_t next, int64_t tiles_left) {
  const int64_t panel = task.panel, first = task.first_tile * kTileRows;
  const PreparedLayout& at = centers_.at;
  const auto stretch = [&](int64_t of, int64_t word) {
    return centers_.panels + of * at.words * kPanelWidth + word * kColumnWidth;
  };
  const auto columns = static_cast<int>((centers_.count(panel) + kColumnWidth - 1) / kColumnWidth);
  const void* const* soon =
      tiles_left > kMostFetches ? nullptr : fetches_ + kMostFetches - tiles_left;
  for (int64_t w = 0; w < at.words; w += kChainLength) {
    const bool last = w + kChainLength >= at.words;
    kernels_.product({stretch(panel, 0), at.words, w, std::min(kChainLength, at.words - w),
                      codes(first), code_stride_, task.n_tiles, w > 0, products(first), columns,
                      last ? stretch(next, 0) : stretch(panel, w + kChainLength), soon});
  }
}

void AssignBlock::set_panel_values(const PanelTask& task) {
  const PanelConstants& constants = centers_.constants[task.panel];
  const int64_t end = (task.first_tile + task.n_tiles) * kTileRows;
  const auto product_rounding =
      static_cast<float>(product_error(coded_length(p_.n_features, p_.n_coordinates), p_.code));
  const auto score_rounding = static_cast<float>(kScoreRounding);
  const float panel_inverse = 1 / constants.scale;
  const RowValues& row = values_;
  for (int64_t r = task.first_tile * kTileRows; r < end; ++r) {
    const float reach = row.norm[r] + constants.norm;
    const float error = row.residual[r] * constants.norm + row.length[r] * constants.residual +
                        product_rounding * row.length[r] * constants.norm +
                        score_rounding * reach * reach + 1e-30f;
    const float inverse = row.inverse_scale[r] * panel_inverse;
    panel_values_.inverse[r] = inverse;
    panel_values_.error[r] = error;
    panel_values_.tail[r] = row.tail[r] * inverse;
    panel_values_.limit[r] = row.bias[r] - inverse * (row.limit[r] + error * 1.00001f);
  }
}

float AssignBlock::product(int64_t r, int c) const {
  const float* place = products(r) + c;
  return p_.code == CodeType::int8 ? static_cast<float>(*reinterpret_cast<const int32_t*>(place))
                                   : *place;
}

void AssignBlock::guess_from_panel(const PanelTask& task, int64_t tile) {
  const int64_t panel = task.panel;
  for (int64_t r = tile; r < std::min(tile + kTileRows, count_); ++r) {
    if (rows_[r].compares_all) continue;
    float best = -kInfinity;
    int32_t nearest = centers_.ids[panel * kPanelWidth];
    for (int c = 0; c < kPanelWidth; ++c) {
      const int64_t slot = panel * kPanelWidth + c;
      const float value = product(r, c) - panel_values_.inverse[r] * centers_.half_norms[slot];
      if (value > best) {
        best = value;
        nearest = centers_.ids[slot];
      }
    }
    shift_row(r);
    lower_best_score(r, static_cast<double>(score(r, nearest)) + gap(r, centers_.norms[nearest]));
  }
  set_panel_values(task);
}

void AssignBlock::collect_candidates(int64_t r, int64_t panel, uint64_t mask) {
  RowState& row = rows_[r];
  for (; mask != 0; mask &= mask - 1) {
    const int c = __builtin_ctzll(mask);
    const int64_t slot = panel * kPanelWidth + c;
    const int32_t k = centers_.ids[slot];
    if (k < 0) continue;
    if (row.n_candidates == kMaxCandidates) drop_far_candidates(r);
    if (row.compares_all) return;
    ++n_passed;
    const float tail = panel_values_.tail[r] * centers_.tails[slot];
    const float value = product(r, c) - values_.bias[r] + tail;
    const float error = panel_values_.error[r] * 1.00001f;
    const float bound = centers_.half_norms[slot] - value / panel_values_.inverse[r] - error;
    if (!p_.guessed || uses_boxes_) {
      const double most = static_cast<double>(bound) +
                          2 * static_cast<double>(error + tail / panel_values_.inverse[r]);
      if (most < row.best_score) lower_best_score(r, most);
    }
    candidates(r)[row.n_candidates] = k;
    bounds(r)[row.n_candidates++] = bound;
  }
  if (records_bounds_ && row.n_candidates >= kManyCandidates) drop_far_candidates(r);
}

void AssignBlock::drop_far_candidates(int64_t r) {
  RowState& row = rows_[r];
  const float least = records_bounds_
                          ? bound_of_smallest(bounds(r), row.n_candidates, kNearCenters + 1)
                          : *std::min_element(bounds(r), bounds(r) + row.n_candidates);
  const float cut = std::max(least, rounded_up(row.best_score));
  values_.limit[r] = std::min(values_.limit[r], cut);
  float dropped = kInfinity;
  int32_t kept = 0;
  for (int32_t i = 0; i < row.n_candidates; ++i) {
    const float bound = bounds(r)[i];
    candidates(r)[kept] = candidates(r)[i];
    bounds(r)[kept] = bound;
    const bool far = bound > cut;
    dropped = far ? std::min(dropped, bound) : dropped;
    kept += !far;
  }
  row.dropped_bound = std::min(row.dropped_bound, static_cast<double>(dropped));
  row.n_candidates = kept;
  row.compares_all = kept > kMaxCandidates / 2;
}

// Lists the memory that the next block reads first: its rows and their guessed centres. The last
// products of this block fetch that memory. What the next block reads first is fetched last.
void AssignBlock::plan_fetches(int64_t next, int64_t n_next) {
  const int64_t bytes = centers_.at.words * kSoonBytes;
  const void** place = fetches_ + kMostFetches;
  const auto add = [&](const void* from, int64_t length) {
    for (int64_t i = 0; i < length && place > fetches_; i += bytes) {
      *--place = static_cast<const char*>(from) + i;
    }
  };
  if (p_.subset == nullptr) {
    add(static_cast<const char*>(p_.x) + next * row_bytes_, n_next * row_bytes_);
  } else {
    for (int64_t r = 0; r < n_next; ++r) add(x(next - first_ + r), row_bytes_);
  }
  for (int64_t r = 0; p_.guessed && r < n_next; ++r) {
    add(p_.centers + p_.labels[row_of(next - first_ + r)] * p_.n_features,
        p_.n_features * static_cast<int64_t>(sizeof(double)));
  }
  std::fill(fetches_, place, codes(0));
}

}  // namespace ktfast::cpu
