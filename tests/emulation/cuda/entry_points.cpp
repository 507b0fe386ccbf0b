// The CUDA entry points as C functions on host pointers, for ctypes. Each returns nullptr or an
// error message.
#include "jigsaw_tiles/jigsaw_tiles.h"
#include "kmeans_assign/kmeans_assign.h"
#include "kmeans_update/kmeans_update.h"

#include "entry_point.h"
#include "machine.h"
#include "symbols.h"

EXPORT void emulation_set(uint64_t seed, int capability) {
  cuda_emulation::settings.seed = seed;
  cuda_emulation::settings.capability = capability;
  cuda_emulation::machine.launches.clear();  // those of earlier tests of the process
}

// Sets the arrays that the next calls may access: addresses and sizes [n, 2].
EXPORT void emulation_arrays(const unsigned char* arena, int64_t arena_bytes, const int64_t* arrays,
                             int64_t n) {
  auto& known = cuda_emulation::machine.arena;
  known = {arena, static_cast<size_t>(arena_bytes), {}};
  for (int64_t i = 0; i < n; ++i) {
    known.arrays.emplace_back(reinterpret_cast<const unsigned char*>(arrays[2 * i]),
                              static_cast<size_t>(arrays[2 * i + 1]));
  }
}

// The kernels launched since the last call, one line each: the threads of a block, and the name.
EXPORT const char* emulation_launches() {
  static std::string text;
  text.clear();
  for (const auto& [kernel, threads] : cuda_emulation::machine.launches) {
    text += std::to_string(threads) + " " + cuda_emulation::function_name(kernel) + "\n";
  }
  cuda_emulation::machine.launches.clear();
  return text.c_str();
}

// sizes: batch, n_images, height, width, n_permutations. options: grid, tile_size, jitter,
// chroma_shift, max_occluders, donor_shares_color, channels_last, statistics, dtype, epoch.
// chances: gray, projection, seed.
EXPORT const char* emulated_jigsaw_tiles(const int64_t* sizes, const int32_t* options,
                                         const uint64_t* chances, const uint8_t* images,
                                         const int64_t* indices, const int64_t* sample_ids,
                                         const uint8_t* permutations, void* tiles, int64_t* labels,
                                         int32_t* offsets, int32_t* cells, uint8_t* occluded,
                                         int64_t* donors, uint8_t* gray, uint8_t* projection,
                                         uint8_t* donor_gray, uint8_t* donor_projection) {
  ktfast::JigsawTilesParams p{};
  p.batch = sizes[0];
  p.n_images = sizes[1];
  p.height = sizes[2];
  p.width = sizes[3];
  p.n_permutations = sizes[4];
  p.grid = options[0];
  p.tile_size = options[1];
  p.jitter = options[2];
  p.chroma_shift = options[3];
  p.max_occluders = options[4];
  p.donor_shares_color = options[5] != 0;
  p.channels_last = options[6] != 0;
  p.statistics = static_cast<ktfast::TileStatistics>(options[7]);
  p.dtype = static_cast<ktfast::TileDtype>(options[8]);
  p.epoch = static_cast<uint32_t>(options[9]);
  p.gray_threshold = chances[0];
  p.projection_threshold = chances[1];
  p.seed = chances[2];
  p.images = images;
  p.indices = indices;
  p.sample_ids = sample_ids;
  p.permutations = permutations;
  p.tiles = tiles;
  p.labels = labels;
  p.offsets = offsets;
  p.cells = cells;
  p.occluded = occluded;
  p.donors = donors;
  p.gray = gray;
  p.projection = projection;
  p.donor_gray = donor_gray;
  p.donor_projection = donor_projection;
  return attempt([&] { ktfast::cuda::jigsaw_tiles(p, nullptr); });
}

EXPORT int64_t emulated_kmeans_prepared_size(int64_t n_clusters, int64_t n_features) {
  return ktfast::cuda::kmeans_prepared_size(n_clusters, n_features);
}

EXPORT const char* emulated_kmeans_prepare(int64_t n_clusters, int64_t n_features,
                                           const double* centers, float* prepared) {
  ktfast::KmeansPrepareParams p{};
  p.n_clusters = n_clusters;
  p.n_features = n_features;
  p.centers = centers;
  p.prepared = prepared;
  return attempt([&] { ktfast::cuda::kmeans_prepare(p, nullptr); });
}

EXPORT const char* emulated_kmeans_assign(int64_t n_rows, int64_t n_clusters, int64_t n_features,
                                          const void* x, int x_type, const double* centers,
                                          const float* prepared, int32_t* labels,
                                          double* distances) {
  ktfast::KmeansAssignParams p{};
  p.n_rows = n_rows;
  p.n_clusters = n_clusters;
  p.n_features = n_features;
  p.x = x;
  p.x_type = static_cast<ktfast::ElementType>(x_type);
  p.centers = centers;
  p.prepared = prepared;
  p.labels = labels;
  p.distances = distances;
  return attempt([&] { ktfast::cuda::kmeans_assign(p, nullptr); });
}

EXPORT int64_t emulated_kmeans_update_workspace_size(int64_t n_rows, int64_t n_clusters) {
  return ktfast::cuda::kmeans_update_workspace_size(n_rows, n_clusters);
}

EXPORT const char* emulated_kmeans_update(int64_t n_rows, int64_t n_clusters, int64_t n_features,
                                          const void* x, int x_type, const int32_t* labels,
                                          const double* sample_weight, int64_t* workspace,
                                          double* sums, double* counts) {
  ktfast::KmeansUpdateParams p{};
  p.n_rows = n_rows;
  p.n_clusters = n_clusters;
  p.n_features = n_features;
  p.x = x;
  p.x_type = static_cast<ktfast::ElementType>(x_type);
  p.labels = labels;
  p.sample_weight = sample_weight;
  p.workspace = workspace;
  p.sums = sums;
  p.counts = counts;
  return attempt([&] { ktfast::cuda::kmeans_update(p, nullptr); });
}
