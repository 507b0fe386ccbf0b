// The tensor-core screen and its arithmetic as C functions; see entry_points.cpp.
#include "kmeans_assign/kmeans_tensor.h"

#include "entry_point.h"
#include "kmeans_assign/cuda/tensor/code_tile.h"
#include "kmeans_assign/cuda/tensor/tensor_math.h"

namespace {

ktfast::TensorCode code_of(int64_t code) { return static_cast<ktfast::TensorCode>(code); }

}  // namespace

EXPORT int64_t emulated_tensor_prepared_size(int64_t n_clusters, int64_t n_features, int64_t code) {
  return ktfast::cuda::kmeans_tensor_prepared_size(n_clusters, n_features, code_of(code));
}
EXPORT int64_t emulated_tensor_tile_bytes(int64_t n_features, int64_t code) {
  return ktfast::cuda::kmeans_tensor_tile_bytes(n_features, code_of(code));
}
EXPORT int64_t emulated_tensor_workspace_size(int64_t n_rows) {
  return ktfast::cuda::kmeans_tensor_workspace_size(n_rows);
}

EXPORT const char* emulated_tensor_prepare(int64_t n_clusters, int64_t n_features, int64_t code,
                                           const double* centers, const float* mean,
                                           int8_t* prepared) {
  const ktfast::KmeansTensorPrepareParams p{n_clusters, n_features, code_of(code),
                                            centers,    mean,       prepared};
  return attempt([&] { ktfast::cuda::kmeans_tensor_prepare(p, nullptr); });
}

EXPORT const char* emulated_tensor_encode(int64_t n_rows, int64_t n_features, const void* x,
                                          int64_t x_type, int64_t code, const float* mean,
                                          int8_t* codes, float* constants) {
  const ktfast::KmeansTensorEncodeParams p{
      n_rows,        n_features, x,     static_cast<ktfast::ElementType>(x_type),
      code_of(code), mean,       codes, constants};
  return attempt([&] { ktfast::cuda::kmeans_tensor_encode(p, nullptr); });
}

EXPORT const char* emulated_tensor_assign(int64_t n_rows, int64_t n_clusters, int64_t n_features,
                                          const void* x, int64_t x_type, const double* centers,
                                          int64_t code, const int8_t* prepared, const int8_t* codes,
                                          const float* constants, int32_t* labels,
                                          double* distances, int64_t guessed, int64_t certify,
                                          int64_t bounds, const double* moves, double* others,
                                          int64_t path, int64_t* workspace, int64_t* n_passed,
                                          int64_t* n_multiplied) {
  ktfast::KmeansTensorAssignParams p{};
  p.n_rows = n_rows;
  p.n_clusters = n_clusters;
  p.n_features = n_features;
  p.x = x;
  p.x_type = static_cast<ktfast::ElementType>(x_type);
  p.centers = centers;
  p.code = code_of(code);
  p.prepared = prepared;
  p.codes = codes;
  p.constants = constants;
  p.labels = labels;
  p.distances = distances;
  p.guessed = guessed != 0;
  p.certify = certify != 0;
  p.bounds = bounds != 0;
  p.moves = moves;
  p.others = others;
  p.path = static_cast<ktfast::ProductPath>(path);
  p.workspace = workspace;
  p.n_passed = n_passed;
  p.n_multiplied = n_multiplied;
  return attempt([&] { ktfast::cuda::kmeans_tensor_assign(p, nullptr); });
}

EXPORT const char* emulated_tensor_moves(int64_t n_clusters, int64_t n_features,
                                         const double* centers, const double* previous,
                                         double* moves) {
  const ktfast::KmeansTensorMovesParams p{n_clusters, n_features, centers, previous, moves};
  return attempt([&] { ktfast::cuda::kmeans_tensor_moves(p, nullptr); });
}

EXPORT const char* emulated_tensor_distances(int64_t n_rows, int64_t n_clusters, int64_t n_features,
                                             const void* x, int64_t x_type, const double* centers,
                                             const int32_t* labels, double* distances) {
  const ktfast::KmeansTensorDistancesParams p{
      n_rows,  n_clusters, n_features, x, static_cast<ktfast::ElementType>(x_type),
      centers, labels,     distances};
  return attempt([&] { ktfast::cuda::kmeans_tensor_distances(p, nullptr); });
}

// --- Arithmetic

EXPORT int64_t tensor_column_offset(int64_t tile_height, int64_t n_stages, int64_t index,
                                    int64_t column) {
  return ktfast::cuda::column_offset(static_cast<int>(tile_height), n_stages, index, column);
}
// Writes the tiles of one block as pairs of row tile and centre tile. Returns their number.
EXPORT int64_t tensor_product_tiles(int64_t block, int64_t blocks, int64_t n_row_tiles,
                                    int64_t n_center_tiles, int64_t* pairs) {
  ktfast::cuda::ProductTiles tiles(static_cast<uint32_t>(block), static_cast<uint32_t>(blocks),
                                   n_row_tiles, n_center_tiles);
  int64_t n = 0;
  for (; tiles.more(); tiles.advance(), ++n) {
    pairs[2 * n] = tiles.tile().row_tile;
    pairs[2 * n + 1] = tiles.tile().center_tile;
  }
  return n;
}
EXPORT void tensor_float16(int64_t n, const float* values, uint16_t* halves) {
  for (int64_t i = 0; i < n; ++i) halves[i] = ktfast::cuda::float16_rounded(values[i]);
}
EXPORT void tensor_packed(int64_t n, const float* scores, uint64_t* packed, float* unpacked) {
  for (int64_t i = 0; i < n; ++i) {
    packed[i] = ktfast::cuda::packed_score(scores[i], 7);
    unpacked[i] = ktfast::cuda::score_of(packed[i]);
  }
}
EXPORT void tensor_scales(int64_t n, const float* largest, int64_t code, float* scales) {
  for (int64_t i = 0; i < n; ++i) {
    scales[i] = ktfast::cuda::code_scale(largest[i], code_of(code));
  }
}
