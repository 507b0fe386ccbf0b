// Codes centres (kmeans_prepare) and rows (kmeans_encode) for the screen of kmeans_assign.
#include "kmeans_assign/kmeans_assign.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/check.h"
#include "common/float_environment.h"
#include "common/parallel.h"
#include "kmeans_assign/cpu/row_block.h"

namespace ktfast::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Adds four pairs of bytes without carries between them.
uint32_t add_bytes(uint32_t a, uint32_t b) {
  constexpr uint32_t kHigh = 0x80808080u;
  return ((a & ~kHigh) + (b & ~kHigh)) ^ ((a ^ b) & kHigh);
}

// Writes the prepared centres, step by step.
class Preparation {
 public:
  explicit Preparation(const KmeansPrepareParams& params)
      : p_(params),
        kernels_(assign_kernels(p_.code)),
        at_(p_.n_clusters, p_.n_features, p_.basis.n_coordinates, p_.code),
        length_(coded_length(p_.n_features, p_.basis.n_coordinates)),
        n_threads_(worthwhile_threads(p_.n_threads, p_.n_clusters * p_.n_features)),
        projection_(projection_error(p_.basis, p_.n_features)),
        start_(aligned(p_.prepared)) {}

  void shift();
  void project_all();
  void sort();
  void set_far_centers_aside();
  void follow_order();
  void fill_panels();

 private:
  bool has_basis() const { return p_.basis.n_coordinates > 0; }
  const float* coded(int64_t k) const {
    return has_basis() ? start_ + at_.scratch + k * at_.width
                       : start_ + at_.shifted + k * p_.n_features;
  }
  float* keys() const {  // [k]
    return start_ + at_.scratch + round_up(p_.n_clusters, kTileRows) * at_.width;
  }
  int32_t* ids() const { return reinterpret_cast<int32_t*>(start_ + at_.ids); }
  void fill_panel(int64_t panel, int64_t count, unsigned char* codes);
  void fill_slot(int64_t slot, float largest, PanelConstants& constants, unsigned char* codes);
  void fill_box(int64_t panel, int64_t count);

  const KmeansPrepareParams& p_;
  const AssignKernels kernels_;
  const PreparedLayout at_;
  const int64_t length_;
  const int n_threads_;
  const double projection_;
  float* const start_;
};

void Preparation::shift() {
  const int64_t d = p_.n_features;
  std::copy_n(p_.mean, d, start_ + at_.mean);
  for_ranges(n_threads_, p_.n_clusters, [&](int64_t first, int64_t last, int) {
    const DefaultFloatEnvironment environment;
    for (int64_t k = first; k < last; ++k) {
      float* to = start_ + at_.shifted + k * d;
      const double* center = p_.centers + k * d;
      for (int64_t f = 0; f < d; ++f) {
        to[f] = static_cast<float>(center[f] - static_cast<double>(p_.mean[f]));
      }
      const double square = kernels_.squared_distance(p_.mean, ElementType::float32, center, d);
      const double norm = std::sqrt(square) * (1 + 1e-12);
      start_[at_.norms + k] = rounded_up(norm);
      start_[at_.halves + k] = static_cast<float>(square / 2);
    }
  });
}

void Preparation::project_all() {
  if (!has_basis()) return;
  const Product product = assign_kernels(CodeType::float32).product;
  const int64_t n_tiles = (p_.n_clusters + kTileRows - 1) / kTileRows;
  for_ranges(p_.n_threads, n_tiles, [&](int64_t first, int64_t last, int) {
    const DefaultFloatEnvironment environment;
    for (int64_t k = first * kTileRows; k < last * kTileRows; k += kTileRows) {
      project(product, p_.basis, start_ + at_.shifted + k * p_.n_features, kTileRows, p_.n_features,
              start_ + at_.scratch + k * at_.width);
    }
  });
}

// Sorts the centres by the largest magnitude of their coded numbers.
void Preparation::sort() {
  float* key = keys();
  for_ranges(n_threads_, p_.n_clusters, [&](int64_t first, int64_t last, int) {
    const DefaultFloatEnvironment environment;
    for (int64_t k = first; k < last; ++k) {
      ids()[k] = static_cast<int32_t>(k);
      key[k] = Lengths(kernels_, coded(k), length_).largest;
      if (std::isnan(key[k])) key[k] = kInfinity;
    }
  });
  std::sort(ids(), ids() + p_.n_clusters,
            [key](int32_t a, int32_t b) { return key[a] < key[b] || (key[a] == key[b] && a < b); });
}

// Moves the far centres to a panel of their own. Slots without a centre get the id -1.
void Preparation::set_far_centers_aside() {
  const int64_t k = p_.n_clusters;
  const auto largest = [&](int64_t place) { return keys()[ids()[place]]; };
  int64_t n_far = 0;
  float steepest = kFarRatio;
  for (int64_t m = 1; m <= std::min(kMostFarCenters, k / 4); ++m) {
    const float ratio = largest(k - m) / largest(k - m - 1);
    if (ratio >= steepest) {
      steepest = ratio;
      n_far = m;
    }
  }
  const int64_t n_near = k - n_far;
  PreparedHeader header{0, 0, kInfinity, static_cast<int32_t>(n_near), p_.order != nullptr};
  const auto longer = [](float a, float b) {
    // Not std::max, because a norm of NaN must make every comparison exact.
    return b <= a ? a : (std::isnan(b) ? kInfinity : b);
  };
  for (int64_t place = 0; place < k; ++place) {
    const float norm = start_[at_.norms + ids()[place]];
    header.longest = longer(header.longest, norm);
    if (place < n_near) header.near_longest = longer(header.near_longest, norm);
    if (place >= n_near && !(norm >= header.far_shortest)) header.far_shortest = norm;
  }
  std::memcpy(start_, &header, sizeof header);
  int32_t far[kMostFarCenters];
  std::copy_n(ids() + n_near, n_far, far);
  std::fill(ids() + n_near, ids() + at_.n_slots, -1);
  std::copy_n(far, n_far, ids() + round_up(n_near, kPanelWidth));
}

// Arranges the near centres as the caller has ordered them.
void Preparation::follow_order() {
  if (p_.order == nullptr) return;
  const Prepared prepared(p_.prepared, at_);
  std::vector<bool> is_listed(static_cast<size_t>(p_.n_clusters));
  const int32_t* far = ids() + round_up(prepared.header.n_near, kPanelWidth);
  for (int64_t i = 0; i < prepared.n_far; ++i) is_listed[static_cast<size_t>(far[i])] = true;
  int32_t* to = ids();
  for (int64_t i = 0; i < p_.n_clusters; ++i) {
    if (!is_listed[static_cast<size_t>(p_.order[i])]) *to++ = p_.order[i];
  }
}

void Preparation::fill_panels() {
  const auto bytes = static_cast<size_t>(at_.words * kWordBytes);
  std::vector<unsigned char> codes(bytes * static_cast<size_t>(n_threads_));
  const Prepared prepared(p_.prepared, at_);
  const int64_t n_panels = prepared.n_near_panels + (prepared.n_far > 0 ? 1 : 0);
  for_ranges(n_threads_, n_panels, [&](int64_t first, int64_t last, int thread) {
    const DefaultFloatEnvironment environment;
    for (int64_t panel = first; panel < last; ++panel) {
      fill_panel(panel, prepared.count(panel), codes.data() + bytes * static_cast<size_t>(thread));
    }
  });
}

void Preparation::fill_panel(int64_t panel, int64_t count, unsigned char* codes) {
  const int64_t first = panel * kPanelWidth;
  const int64_t last = first + count;
  float largest = 0;
  for (int64_t slot = first; slot < last; ++slot) {
    largest = std::max(largest, keys()[ids()[slot]]);
    reinterpret_cast<int32_t*>(start_ + at_.panel_of)[ids()[slot]] = static_cast<int32_t>(panel);
  }
  if (p_.order != nullptr) fill_box(panel, count);
  PanelConstants constants{1, 0, 0};
  auto* panel_words = reinterpret_cast<unsigned char*>(start_ + at_.panels + first * at_.words);
  const int offset = p_.code == CodeType::int8 ? kernels_.center_levels + 1 : 0;
  const uint32_t offsets = 0x01010101u * static_cast<uint32_t>(offset);
  for (int64_t slot = first; slot < first + kPanelWidth; ++slot) {
    std::fill_n(codes, at_.words * kWordBytes, static_cast<unsigned char>(0));
    start_[at_.half_norms + slot] = kInfinity;
    start_[at_.tails + slot] = 0;
    if (slot < last) fill_slot(slot, largest, constants, codes);
    const int64_t place = slot - first;
    auto* words =
        panel_words +
        (place / kColumnWidth * at_.words * kColumnWidth + place % kColumnWidth) * kWordBytes;
    for (int64_t w = 0; w < at_.words; ++w, words += kColumnWidth * kWordBytes) {
      uint32_t word;
      std::memcpy(&word, codes + w * kWordBytes, sizeof word);
      word = add_bytes(word, offsets);
      std::memcpy(words, &word, sizeof word);
    }
  }
  reinterpret_cast<PanelConstants*>(start_ + at_.constants)[panel] = constants;
}

// A place that is not a number makes a box that every row needs.
void Preparation::fill_box(int64_t panel, int64_t count) {
  float* low = start_ + at_.boxes + panel * 2 * kPlaceNumbers;
  float* high = low + kPlaceNumbers;
  std::fill_n(low, kPlaceNumbers, kInfinity);
  std::fill_n(high, kPlaceNumbers, -kInfinity);
  for (int64_t slot = panel * kPanelWidth; slot < panel * kPanelWidth + count; ++slot) {
    const float* place = p_.places + ids()[slot] * kPlaceNumbers;
    for (int64_t i = 0; i < kPlaceNumbers; ++i) {
      low[i] = std::isnan(place[i]) ? -kInfinity : std::min(low[i], place[i]);
      high[i] = std::isnan(place[i]) ? kInfinity : std::max(high[i], place[i]);
    }
  }
}

void Preparation::fill_slot(int64_t slot, float largest, PanelConstants& constants,
                            unsigned char* codes) {
  const int32_t k = ids()[slot];
  const float reach = largest * (127.0f / static_cast<float>(kernels_.center_levels));
  const Encoded encoded = kernels_.encode(coded(k), length_, reach, p_.code, codes);
  const float norm = start_[at_.norms + k];
  const auto length = static_cast<double>(norm);
  start_[at_.half_norms + slot] = start_[at_.halves + k];
  if (has_basis()) {
    const Lengths coordinates(kernels_, coded(k), length_);
    start_[at_.tails + slot] = rounded_up(tail_length(length, coordinates, projection_));
  }
  constants.scale = encoded.scale;
  constants.norm = std::max(constants.norm, norm);
  constants.residual = std::max(constants.residual,
                                rounded_up(residual_length(encoded, length_, length, projection_)));
}

// The order comes from the caller and is used as indices.
void check_order(const KmeansPrepareParams& p) {
  if (p.order == nullptr) return;
  std::vector<bool> seen(static_cast<size_t>(p.n_clusters));
  for (int64_t i = 0; i < p.n_clusters; ++i) {
    const int32_t k = p.order[i];
    KTFAST_CHECK(k >= 0 && k < p.n_clusters && !seen[static_cast<size_t>(k)],
                 "order must hold every number from 0 to n_clusters - 1 once");
    seen[static_cast<size_t>(k)] = true;
  }
}

}  // namespace

int64_t kmeans_prepared_size(int64_t n_clusters, int64_t n_features, int64_t n_coordinates,
                             CodeType code) {
  return (Size(PreparedLayout(n_clusters, n_features, n_coordinates, code).size) + 16).value();
}

int64_t kmeans_code_bytes(int64_t n_features, int64_t n_coordinates, CodeType code) {
  const Size words = code_words(coded_length(n_features, n_coordinates), code);
  return (words * kWordBytes).value();
}

void kmeans_prepare(const KmeansPrepareParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  KTFAST_CHECK(p.n_clusters <= std::numeric_limits<int32_t>::max() - kPanelWidth,
               "centers holds more rows than int32 labels can number");
  check_order(p);
  Preparation preparation(p);
  preparation.shift();
  preparation.project_all();
  preparation.sort();
  preparation.set_far_centers_aside();
  preparation.follow_order();
  preparation.fill_panels();
}

void kmeans_encode(const KmeansEncodeParams& p) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  KTFAST_CHECK(p.workspace_size >=
                   kmeans_assign_workspace_size(p.n_features, p.basis.n_coordinates, p.n_threads),
               "workspace is smaller than kmeans_assign_workspace_size()");
  const AssignKernels kernels = assign_kernels(p.code);
  const Product product = assign_kernels(CodeType::float32).product;
  const RowEncoder encoder(kernels, p.code, p.n_features, p.basis.n_coordinates,
                           projection_error(p.basis, p.n_features));
  const BlockLayout at(p.n_features, p.basis.n_coordinates);
  const int64_t bytes = kmeans_code_bytes(p.n_features, p.basis.n_coordinates, p.code);
  const int64_t width = round_up(p.basis.n_coordinates, kPanelWidth);
  const int64_t row_bytes = p.n_features * element_size(p.x_type);
  float* workspace = aligned(p.workspace);
  const auto encode_tile = [&](int64_t first, int thread) {
    float* shifted = workspace + thread * at.size;
    float* coordinates = shifted + at.codes;
    const int64_t count = std::min<int64_t>(kTileRows, p.n_rows - first);
    for (int64_t r = 0; r < count; ++r) {
      kernels.shift(static_cast<const char*>(p.x) + (first + r) * row_bytes, p.x_type, p.mean,
                    p.n_features, shifted + r * p.n_features);
    }
    project(product, p.basis, shifted, width > 0 ? count : 0, p.n_features, coordinates);
    for (int64_t r = 0; r < count; ++r) {
      const RowCode code = encoder.encode(shifted + r * p.n_features, coordinates + r * width,
                                          p.codes + (first + r) * bytes);
      std::memcpy(p.constants + (first + r) * kRowConstants, &code, sizeof code);
    }
  };
  const int64_t n_tiles = (p.n_rows + kTileRows - 1) / kTileRows;
  for_ranges(p.n_threads, n_tiles, [&](int64_t first, int64_t last, int thread) {
    const DefaultFloatEnvironment environment;
    for (int64_t tile = first; tile < last; ++tile) encode_tile(tile * kTileRows, thread);
  });
}

}  // namespace ktfast::cpu
