// One thread's work on one block of rows during an assignment pass.
//
// assign() takes three steps. load_row() reads a row's code and, if the caller guessed a centre,
// computes the distance to that centre. screen_panel() screens 64 centres for all rows of the block
// and collects every row's candidates (both in screen.cpp). decide_row() finds the nearest of a
// row's candidates by exact distances (decide.cpp).
#pragma once

#include "kmeans_assign/kmeans_assign.h"

#include <limits>
#include <vector>

#include "kmeans_assign/cpu/row_block.h"

namespace ktfast::cpu {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What the pass knows about one row.
struct RowState {
  RowCode code;
  double best_score;      // upper bound of the nearest centre's score
  double dropped_bound;   // lower bound of the scores of the candidates that were dropped
  double guess_distance;  // exact squared distance to the guessed centre
  bool is_shifted;        // the block holds the row's features less the mean
  bool beats_far;         // every near centre is nearer than every far centre
  bool compares_all;      // the screen's bounds do not hold, so every centre is compared exactly
  int32_t n_candidates;   // candidates collected and not dropped
};

// The rows' constants once more, one array per constant, because set_panel_values() reads them for
// all rows in turn.
struct RowValues {
  float inverse_scale[kBlockRows], residual[kBlockRows], length[kBlockRows], norm[kBlockRows],
      tail[kBlockRows], bias[kBlockRows];
  float limit[kBlockRows];  // a centre whose score may be at most this becomes a candidate
};

// What the screen of one panel needs for each row. With these values
//   score >= half_norm - (product - bias + tail * tail') / inverse - error,
// where half_norm and tail' belong to the centre.
struct PanelValues {
  float inverse[kBlockRows], error[kBlockRows], tail[kBlockRows], limit[kBlockRows];
};

// While it multiplies a tile of int8 codes by a panel, a product fetches as many bytes as a quarter
// of a float64 row or of a float64 centre has. The next block has up to kBlockRows rows and as many
// guessed centres, so this many products fetch them.
constexpr int64_t kMostFetches = 8 * kBlockRows;

class AssignBlock {
 public:
  AssignBlock(const KmeansAssignParams& params, const AssignKernels& kernels, float* workspace);

  // Assigns `count` rows from row `first` on. The next call must be for the `n_next` rows from row
  // `next` on, because this call fetches their memory ahead.
  void assign(int64_t first, int64_t count, int64_t next, int64_t n_next);

  int64_t n_passed = 0;  // candidates collected, plus candidates scored

 private:
  // --- Accessors. r counts the rows of the block; k is the number of a centre. ---
  int64_t row_of(int64_t r) const {
    return p_.subset == nullptr ? first_ + r : p_.subset[first_ + r];
  }
  const void* x(int64_t r) const { return static_cast<const char*>(p_.x) + row_of(r) * row_bytes_; }
  float* shifted(int64_t r) const { return start_ + at_.shifted + r * p_.n_features; }
  char* codes(int64_t r) const {
    return reinterpret_cast<char*>(start_ + at_.codes) + r * code_stride_;
  }
  float* products(int64_t r) const { return start_ + at_.products + r * kPanelWidth; }
  int32_t* candidates(int64_t r) const {
    return reinterpret_cast<int32_t*>(start_ + at_.candidates) + r * kMaxCandidates;
  }
  // Lower bounds of the candidates' scores.
  float* bounds(int64_t r) const { return start_ + at_.bounds + r * kMaxCandidates; }

  double exact(int64_t r, int64_t k) const {
    return kernels_.squared_distance(x(r), p_.x_type, p_.centers + k * p_.n_features,
                                     p_.n_features);
  }
  float score(int64_t r, int64_t k) const {
    return centers_.halves[k] -
           kernels_.dot(shifted(r), centers_.shifted + k * p_.n_features, p_.n_features);
  }
  // Centres of length `c_norm` at most whose float32 scores differ by more than this gap are in the
  // order of their exact distances.
  double gap(int64_t r, float c_norm) const {
    return pair_gap(static_cast<double>(rows_[r].code.norm), c_norm, p_.n_features);
  }

  // --- screen.cpp ---
  // Reads a row's code, or makes one, and measures the distance to the guessed centre.
  void load_row(int64_t r);
  // The last tile of a block can have fewer than kTileRows rows. Fills the place of a missing row
  // such that no centre becomes a candidate.
  void fill_missing_row(int64_t r);
  void shift_row(int64_t r);
  // A centre with a score of at most `score` is known. Lowers the row's limit accordingly.
  void lower_best_score(int64_t r, double score);
  // Some tiles of the block, to be screened against a panel.
  struct PanelTask {
    int64_t panel, first_tile, n_tiles;
  };
  // Screens the panel of each tile's guess, and then the panels whose boxes some rows may reach.
  void screen_reachable_panels();
  int64_t panel_of_guess(int64_t tile) const;
  // Sets the squared distance within which a centre may become a candidate, for all rows.
  void set_reaches();
  // Adds tasks for the tiles of which some row may reach the panel; returns how many tiles.
  int64_t add_reachable_tiles(int64_t panel);
  // After `tiles_left` more tiles, this one's included, the block's products are done. The products
  // fetch the panel `next` ahead.
  void screen_panel(const PanelTask& task, int64_t next, int64_t tiles_left);
  void multiply_panel(const PanelTask& task, int64_t next, int64_t tiles_left);
  // The number of panels that the rows of the block need: near panels, and perhaps the far one.
  int64_t panels_needed() const;
  void set_panel_values(const PanelTask& task);
  // Guesses for the rows of a tile: the centre of the panel with the best screened score.
  void guess_from_panel(const PanelTask& task, int64_t tile);
  float product(int64_t r, int c) const;
  // Adds the centres of the mask's bits to the row's candidates, each with a bound of its score.
  void collect_candidates(int64_t r, int64_t panel, uint64_t mask);
  // Drops the candidates that can neither be the nearest centre nor be named by record_bounds().
  void drop_far_candidates(int64_t r);
  void plan_fetches(int64_t next, int64_t n_next);

  // --- decide.cpp ---
  void decide_row(int64_t r);
  // Drops the candidates that were collected before the best score fell below their bound.
  void drop_beaten_candidates(int64_t r);
  // Finds the nearest candidate: the one of the best float32 score, or one of nearly that score.
  void settle_exactly(int64_t r);
  // Writes the nearest centres and lower bounds of the distances, for kmeans_reassign.
  void record_bounds(int64_t r, int32_t label);
  // Compares the row with every centre, without the screen.
  void compare_all_centers(int64_t r);

  const KmeansAssignParams& p_;
  const AssignKernels& kernels_;
  const Prepared centers_;
  const BlockLayout at_;
  float* const start_;
  const int64_t row_bytes_, code_bytes_;
  // An odd number of cache lines. Rows at a distance of a power of two would evict one another.
  const int64_t code_stride_;
  const bool records_bounds_, screen_is_usable_, uses_boxes_;
  int64_t first_ = 0, count_ = 0, n_panels_ = 0;
  const void* fetches_[kMostFetches];
  RowState rows_[kBlockRows];
  RowValues values_;
  PanelValues panel_values_;
  // Used with boxes only.
  float places_[kPlaceNumbers * kBlockRows], reach_[kBlockRows];
  int64_t own_panel_[kBlockRows / kTileRows];  // the panel of a tile's guess once screened, or -1
  std::vector<PanelTask> tasks_;
};

}  // namespace ktfast::cpu
