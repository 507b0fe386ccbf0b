// From Python arguments to the params of jigsaw_tiles, for both modules.
#pragma once

#include "jigsaw_tiles/jigsaw_tiles.h"

#include <optional>
#include <string>

#include "bindings/array.h"

namespace ktfast {

inline TileStatistics tile_statistics(const std::string& name) {
  if (name == "tile") return TileStatistics::tile;
  if (name == "channel") return TileStatistics::channel;
  if (name == "none") return TileStatistics::none;
  throw py::value_error("statistics must be tile, channel or none, got '" + name + "'");
}

inline TileDtype tile_dtype(const AnyArray& tiles) {
  if (tiles.has_dtype<float>()) return TileDtype::float32;
  if (tiles.has_dtype<float16_bits>()) return TileDtype::float16;
  if (tiles.has_dtype<bfloat16_bits>()) return TileDtype::bfloat16;
  throw py::type_error("tiles must be float32, float16 or bfloat16, got " +
                       dtype_name(tiles.dtype()));
}

// Calls run(params, device index) without the GIL. The keyword arguments are the arrays and numbers
// of the params struct; `indices` may be None. A missing argument raises KeyError.
template <class Run>
void with_jigsaw_tiles(Device device, const py::kwargs& a, Run run) {
  const auto given = [&a](const char* name) { return py::object(a[name]); };
  const auto number = [&a](const char* name) { return a[name].cast<int32_t>(); };

  const auto images = contiguous<const uint8_t>(given("images"), "images", device, {-1, -1, -1, 3});
  const auto sample_ids =
      contiguous<const int64_t>(given("sample_ids"), "sample_ids", device, {-1});
  const auto permutations =
      contiguous<const uint8_t>(given("permutations"), "permutations", device, {-1, -1});
  const int64_t batch = sample_ids.shape(0);
  const int64_t n_tiles = permutations.shape(1);

  JigsawTilesParams p{};
  p.batch = batch;
  p.n_images = images.shape(0);
  p.height = images.shape(1);
  p.width = images.shape(2);
  p.n_permutations = permutations.shape(0);
  while (int64_t{p.grid} * p.grid < n_tiles && p.grid <= kMaxGrid) ++p.grid;
  if (int64_t{p.grid} * p.grid != n_tiles) {
    throw py::value_error("permutations must have 1, 4, 9 or 16 columns, got " +
                          std::to_string(n_tiles));
  }
  p.tile_size = number("tile_size");
  p.jitter = number("jitter");
  p.chroma_shift = number("chroma_shift");
  p.max_occluders = number("max_occluders");
  p.gray_threshold = a["gray_threshold"].cast<uint64_t>();
  p.projection_threshold = a["projection_threshold"].cast<uint64_t>();
  p.donor_shares_color = a["donor_shares_color"].cast<bool>();
  p.channels_last = a["channels_last"].cast<bool>();
  p.statistics = tile_statistics(a["statistics"].cast<std::string>());
  p.seed = a["seed"].cast<uint64_t>();
  p.epoch = a["epoch"].cast<uint32_t>();
  p.images = images.data();
  p.sample_ids = sample_ids.data();
  p.permutations = permutations.data();

  std::optional<Array<const int64_t>> indices;
  if (!a["indices"].is_none()) {
    indices = contiguous<const int64_t>(given("indices"), "indices", device, {batch});
    p.indices = indices->data();
  }

  const AnyArray tiles(given("tiles"), "tiles", device, true);
  const int64_t t = p.tile_size;
  if (p.channels_last) {
    tiles.expect_shape({batch, n_tiles, t, t, 3});
  } else {
    tiles.expect_shape({batch, n_tiles, 3, t, t});
  }
  tiles.expect_contiguous();
  p.dtype = tile_dtype(tiles);
  p.tiles = tiles.address();

  const auto labels = contiguous<int64_t>(given("labels"), "labels", device, {batch});
  const auto offsets =
      contiguous<int32_t>(given("offsets"), "offsets", device, {batch, n_tiles, 3, 2});
  const auto cells = contiguous<int32_t>(given("cells"), "cells", device, {batch, n_tiles});
  const auto occluded =
      contiguous<uint8_t>(given("occluded"), "occluded", device, {batch, n_tiles});
  const auto donors = contiguous<int64_t>(given("donors"), "donors", device, {batch});
  const auto gray = contiguous<uint8_t>(given("gray"), "gray", device, {batch});
  const auto projection = contiguous<uint8_t>(given("projection"), "projection", device, {batch});
  const auto donor_gray = contiguous<uint8_t>(given("donor_gray"), "donor_gray", device, {batch});
  const auto donor_projection =
      contiguous<uint8_t>(given("donor_projection"), "donor_projection", device, {batch});
  p.labels = labels.data();
  p.offsets = offsets.data();
  p.cells = cells.data();
  p.occluded = occluded.data();
  p.donors = donors.data();
  p.gray = gray.data();
  p.projection = projection.data();
  p.donor_gray = donor_gray.data();
  p.donor_projection = donor_projection.data();

  expect_one_device({&images, &sample_ids, &permutations, &tiles, &labels, &offsets, &cells,
                     &occluded, &donors, &gray, &projection, &donor_gray, &donor_projection});
  if (indices) expect_one_device({&images, &*indices});
  const py::gil_scoped_release release;
  run(p, images.device_index());
}

// Reads the arguments that only the CPU has: a workspace with a buffer per thread.
template <class Run>
void with_jigsaw_tiles_workspace(const py::kwargs& a, Run run) {
  const int n_threads = a["n_threads"].cast<int>();
  const auto workspace =
      contiguous<int16_t>(py::object(a["workspace"]), "workspace", Device::cpu, {-1});
  with_jigsaw_tiles(Device::cpu, a, [&](JigsawTilesParams& p, int) {
    p.n_threads = n_threads;
    p.workspace = workspace.data();
    p.workspace_size = workspace.size();
    run(p);
  });
}

}  // namespace ktfast
