// The integer sums of K-means as C functions; see entry_points.cpp.
#include "kmeans_update/kmeans_update.h"

#include "entry_point.h"

EXPORT int64_t emulated_kmeans_move_workspace_size(int64_t n_rows, int64_t n_clusters) {
  return ktfast::cuda::kmeans_move_workspace_size(n_rows, n_clusters);
}

EXPORT const char* emulated_kmeans_move(int64_t n_rows, int64_t n_clusters, int64_t n_features,
                                        const void* x, int64_t x_type, const int32_t* before,
                                        const int32_t* after, const double* sample_weight,
                                        const double* scale, int64_t* workspace, int64_t* sums,
                                        int64_t* low, int64_t* counts) {
  ktfast::KmeansMoveParams p{};
  p.n_rows = n_rows;
  p.n_clusters = n_clusters;
  p.n_features = n_features;
  p.x = x;
  p.x_type = static_cast<ktfast::ElementType>(x_type);
  p.before = before;
  p.after = after;
  p.sample_weight = sample_weight;
  p.scale = scale;
  p.workspace = workspace;
  p.sums = sums;
  p.low = low;
  p.counts = counts;
  return attempt([&] { ktfast::cuda::kmeans_move(p, nullptr); });
}

EXPORT const char* emulated_kmeans_ranges(int64_t n_rows, int64_t n_features, const void* x,
                                          int64_t x_type, double* largest) {
  ktfast::KmeansRangeParams p{};
  p.n_rows = n_rows;
  p.n_features = n_features;
  p.x = x;
  p.x_type = static_cast<ktfast::ElementType>(x_type);
  p.largest = largest;
  return attempt([&] { ktfast::cuda::kmeans_ranges(p, nullptr); });
}

EXPORT const char* emulated_kmeans_means(int64_t n_clusters, int64_t n_features,
                                         const int64_t* sums, const int64_t* low,
                                         const int64_t* counts, const double* weights,
                                         const double* step, const double* previous, int64_t narrow,
                                         double* centers, double* shifts) {
  ktfast::KmeansMeansParams p{};
  p.n_clusters = n_clusters;
  p.n_features = n_features;
  p.sums = sums;
  p.low = low;
  p.counts = counts;
  p.weights = weights;
  p.step = step;
  p.previous = previous;
  p.narrow = narrow != 0;
  p.centers = centers;
  p.shifts = shifts;
  return attempt([&] { ktfast::cuda::kmeans_means(p, nullptr); });
}

EXPORT const char* emulated_kmeans_costs(int64_t n_clusters, int64_t n_features,
                                         const int64_t* sums, const int64_t* low,
                                         const int64_t* counts, const double* step,
                                         const double* mean, const double* centers, double* costs,
                                         double* errors) {
  const ktfast::KmeansCostsParams p{n_clusters, n_features, sums,    low,   counts,
                                    step,       mean,       centers, costs, errors};
  return attempt([&] { ktfast::cuda::kmeans_costs(p, nullptr); });
}

EXPORT int64_t emulated_kmeans_totals_workspace_size(int64_t n_rows) {
  return ktfast::cuda::kmeans_totals_workspace_size(n_rows);
}

EXPORT const char* emulated_kmeans_totals(int64_t n_rows, const double* distances,
                                          const double* sample_weight, const int32_t* before,
                                          const int32_t* after, double* workspace, double* totals) {
  ktfast::KmeansTotalsParams p{};
  p.n_rows = n_rows;
  p.distances = distances;
  p.sample_weight = sample_weight;
  p.before = before;
  p.after = after;
  p.workspace = workspace;
  p.totals = totals;
  return attempt([&] { ktfast::cuda::kmeans_totals(p, nullptr); });
}
