// Loops that the compiler vectorises; included by one file per instruction set.
#pragma once

#include <type_traits>

#include "kmeans_update/cpu/sum_kernels.h"
#include "kmeans_update/sum_math.h"

namespace ktfast::cpu {
namespace {  // unnamed, because each including file is built with its own flags

void add(const void* values, ElementType type, const double* __restrict__ scale, int64_t length,
         bool leaves, int64_t* __restrict__ sums) {
  with_element(type, [&](auto* element) {
    const auto* x = static_cast<decltype(element)>(values);
    if (leaves) {
      for (int64_t f = 0; f < length; ++f) sums[f] -= fixed_point(to_double(x[f]), scale[f]);
    } else {
      for (int64_t f = 0; f < length; ++f) sums[f] += fixed_point(to_double(x[f]), scale[f]);
    }
  });
}

void move(const void* values, ElementType type, const double* __restrict__ scale, int64_t length,
          int64_t* __restrict__ joined, int64_t* __restrict__ left) {
  if (left == nullptr) return add(values, type, scale, length, false, joined);
  with_element(type, [&](auto* element) {
    const auto* x = static_cast<decltype(element)>(values);
    for (int64_t f = 0; f < length; ++f) {
      const int64_t value = fixed_point(to_double(x[f]), scale[f]);
      joined[f] += value;
      left[f] -= value;
    }
  });
}

void add_limbs(const void* values, ElementType type, double weight,
               const double* __restrict__ scale, int64_t length, int64_t* __restrict__ high,
               int64_t* __restrict__ low) {
  with_element(type, [&](auto* element) {
    const auto* x = static_cast<decltype(element)>(values);
    for (int64_t f = 0; f < length; ++f) {
      const Limbs limbs = limbs_of(multiply(weight, to_double(x[f])), scale[f]);
      high[f] += limbs.high;
      low[f] += limbs.low;
    }
  });
}

void carry_limbs(int64_t length, int64_t* __restrict__ high, int64_t* __restrict__ low) {
  for (int64_t f = 0; f < length; ++f) carry(high[f], low[f]);
}

void add_weighted(const void* values, ElementType type, double weight, int64_t length,
                  double* __restrict__ sums) {
  with_element(type, [&](auto* element) {
    const auto* x = static_cast<decltype(element)>(values);
    for (int64_t f = 0; f < length; ++f) sums[f] += weight * to_double(x[f]);
  });
}

void range(const void* values, ElementType type, int64_t rows, int64_t stride, int64_t length,
           double* __restrict__ largest) {
  with_element(type, [&](auto* element) {
    const auto* x = static_cast<decltype(element)>(values);
    // Narrow types are compared as float: every number of them is a float, and twice as many fit a
    // register.
    using T = std::remove_const_t<std::remove_pointer_t<decltype(element)>>;
    using Compared = std::conditional_t<std::is_same_v<T, double>, double, float>;
    Compared found[kTaskFeatures] = {};
    for (int64_t row = 0; row < rows; ++row, x += stride) {
      for (int64_t f = 0; f < length; ++f) {
        const auto size = magnitude(static_cast<Compared>(to_double(x[f])));
        found[f] = size > found[f] ? size : found[f];
      }
    }
    for (int64_t f = 0; f < length; ++f) {
      const auto size = static_cast<double>(found[f]);
      largest[f] = size > largest[f] ? size : largest[f];
    }
  });
}

template <bool kNarrow, class Sum>
double mean_of_sums(const KmeansMeansParams& p, int64_t cluster, Sum sum) {
  const double weight =
      p.weights == nullptr ? static_cast<double>(p.counts[cluster]) : p.weights[cluster];
  const double* previous = p.previous + cluster * p.n_features;
  double* __restrict__ center = p.centers + cluster * p.n_features;
  double lanes[kShiftLanes] = {};
  for (int64_t f = 0; f < p.n_features; f += kShiftLanes) {
    const int64_t width = p.n_features - f < kShiftLanes ? p.n_features - f : kShiftLanes;
    for (int64_t lane = 0; lane < width; ++lane) {
      const double before = previous[f + lane];
      const double after = mean_of(sum(f + lane), weight, p.step[f + lane], before, kNarrow);
      center[f + lane] = after;
      lanes[lane] += squared_move(after, before);
    }
  }
  return tree_sum(lanes);
}

double mean(const KmeansMeansParams& p, int64_t cluster) {
  const int64_t* sums = p.sums + cluster * p.n_features;
  const auto one = [=](int64_t f) { return static_cast<double>(sums[f]); };
  if (p.low == nullptr) {
    return p.narrow ? mean_of_sums<true>(p, cluster, one) : mean_of_sums<false>(p, cluster, one);
  }
  const int64_t* low = p.low + cluster * p.n_features;
  const auto two = [=](int64_t f) { return sum_of(sums[f], low[f]); };
  return p.narrow ? mean_of_sums<true>(p, cluster, two) : mean_of_sums<false>(p, cluster, two);
}

constexpr SumKernels kSumKernels{add, move, add_limbs, carry_limbs, add_weighted, range, mean};

}  // namespace
}  // namespace ktfast::cpu
