// The second half of an assignment pass: the nearest of a row's candidates, by exact distances.
#include "kmeans_assign/kmeans_assign.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kmeans_assign/cpu/assign_block.h"

namespace ktfast::cpu {

void AssignBlock::decide_row(int64_t r) {
  RowState& row = rows_[r];
  if (!records_bounds_) {
    drop_beaten_candidates(r);
  } else if (row.n_candidates > kNearCenters + 1 && !row.compares_all) {
    drop_far_candidates(r);
  }
  if (row.compares_all || row.n_candidates == 0) return compare_all_centers(r);
  if (!records_bounds_ && p_.guessed && row.n_candidates == 1 &&
      candidates(r)[0] == p_.labels[row_of(r)]) {
    p_.distances[row_of(r)] = row.guess_distance;
    return;
  }
  shift_row(r);
  settle_exactly(r);
}

void AssignBlock::drop_beaten_candidates(int64_t r) {
  RowState& row = rows_[r];
  int32_t kept = 0;
  for (int32_t i = 0; i < row.n_candidates; ++i) {
    if (static_cast<double>(bounds(r)[i]) > row.best_score) continue;
    candidates(r)[kept] = candidates(r)[i];
    bounds(r)[kept++] = bounds(r)[i];
  }
  row.n_candidates = kept;
}

void AssignBlock::settle_exactly(int64_t r) {
  RowState& row = rows_[r];
  float scores[kMaxCandidates];
  score_centers(kernels_, centers_, shifted(r), p_.n_features, candidates(r), row.n_candidates,
                scores);
  n_passed += row.n_candidates;
  const auto best =
      static_cast<int32_t>(std::min_element(scores, scores + row.n_candidates) - scores);
  float longest = 0;
  for (int32_t i = 0; i < row.n_candidates; ++i) {
    longest = std::max(longest, centers_.norms[candidates(r)[i]]);
  }
  const double error = gap(r, longest);
  const auto distance = [&](int32_t k) {
    return p_.guessed && k == p_.labels[row_of(r)] ? row.guess_distance : exact(r, k);
  };
  int32_t label = candidates(r)[best];
  double nearest = distance(label);
  for (int32_t i = 0; i < row.n_candidates; ++i) {
    const auto s = static_cast<double>(scores[i]);
    if (records_bounds_)
      bounds(r)[i] = std::max(bounds(r)[i], static_cast<float>(s - error) - 1e-30f);
    if (i == best || !(s <= static_cast<double>(scores[best]) + error)) continue;
    const int32_t k = candidates(r)[i];
    const double d = distance(k);
    if (d < nearest || (d == nearest && k < label)) {
      nearest = d;
      label = k;
    }
  }
  if (records_bounds_) record_bounds(r, label);
  p_.labels[row_of(r)] = label;
  p_.distances[row_of(r)] = nearest;
}

void AssignBlock::record_bounds(int64_t r, int32_t label) {
  const RowState& row = rows_[r];
  const int64_t place = row_of(r);
  int32_t* near = p_.bounds.near + place * kNearCenters;
  float* near_bounds = p_.bounds.near_bounds + place * kNearCenters;
  // A lower bound of the distance to a centre whose score is at least `least`.
  const auto distance = [&](double least) {
    const double square = 2 * least + static_cast<double>(row.code.square);
    return square > 0 ? static_cast<float>(std::sqrt(square) * (1 - 1e-6)) : 0.0f;
  };
  int32_t order[kMaxCandidates];
  std::iota(order, order + row.n_candidates, 0);
  const int32_t named = std::min<int32_t>(row.n_candidates, kNearCenters);
  const float* bound = bounds(r);
  // The nearest centre is always listed in `near`. Its lower bound alone would not ensure that,
  // because rounding can give a smaller bound to a centre at an equal distance.
  if (named < row.n_candidates) {
    std::nth_element(order, order + named, order + row.n_candidates, [&](int32_t a, int32_t b) {
      const bool a_is_label = candidates(r)[a] == label, b_is_label = candidates(r)[b] == label;
      return a_is_label != b_is_label ? a_is_label : bound[a] < bound[b];
    });
  }
  double rest = std::min(static_cast<double>(values_.limit[r]), row.dropped_bound);
  for (int32_t i = named; i < row.n_candidates; ++i) {
    rest = std::min(rest, static_cast<double>(bound[order[i]]));
  }
  for (int32_t i = 0; i < kNearCenters; ++i) {
    near[i] = i < named ? candidates(r)[order[i]] : -1;
    near_bounds[i] = i < named ? distance(static_cast<double>(bound[order[i]])) : 0.0f;
  }
  p_.bounds.rest_bound[place] = distance(rest);
  p_.bounds.epoch[place] = p_.epoch;
  p_.bounds.spent[place] = 0;
}

void AssignBlock::compare_all_centers(int64_t r) {
  shift_row(r);
  const int64_t place = row_of(r);
  const Nearest found = nearest_of_all(kernels_, centers_, p_, x(r), shifted(r));
  p_.labels[place] = found.label;
  p_.distances[place] = found.distance;
  n_passed += p_.n_clusters;
  if (!records_bounds_) return;
  std::fill_n(p_.bounds.near + place * kNearCenters, kNearCenters, -1);
  p_.bounds.rest_bound[place] = 0;
  p_.bounds.epoch[place] = p_.epoch;
  p_.bounds.spent[place] = 0;
}

}  // namespace ktfast::cpu
