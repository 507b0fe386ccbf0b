// How the threads of a CUDA block share a tile of scores. This header holds index arithmetic only,
// so that a test can check it on a CPU.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace ktfast::cuda {

constexpr int kScreenThreads = 256;
constexpr int kScreenRows = 128;
constexpr int kScreenCenters = 128;
constexpr int kScreenFeatures = 16;  // features that shared memory holds at a time
constexpr int kThreadRows = 8;
constexpr int kThreadCenters = 8;
constexpr int kScreenClasses = kScreenCenters / kThreadCenters;
constexpr int kStageFloats = kScreenRows * kScreenFeatures / kScreenThreads;
constexpr int kPaddedRows = kScreenRows + 4;  // avoids bank conflicts of the transposing stores

static_assert(kScreenThreads == kScreenClasses * (kScreenRows / kThreadRows));
static_assert(kScreenRows == kScreenCenters, "both are staged alike");

struct alignas(16) ScreenShared {  // read 16 bytes at a time
  float x[kScreenFeatures][kPaddedRows];
  float c[kScreenFeatures][kScreenCenters];
  // For each row and class of centres: the two least scores, and the centre of the least score.
  float least[kScreenRows][kScreenClasses];
  float second[kScreenRows][kScreenClasses];
  int32_t winner[kScreenRows][kScreenClasses];
};
static_assert(sizeof(ScreenShared) <= 48 * 1024, "static shared memory");

// Centre i of class `group` within a tile. A class is the centres of a tile that one thread scores:
// two runs of four centres, so that the 16-byte reads of a warp touch every bank once.
KTFAST_HD int center_in_tile(int group, int i) {
  return i / 4 * (kScreenCenters / 2) + group * 4 + i % 4;
}

// The lowest centre of a class, or 0 if the class has no centre. The scores of a missing centre are
// infinite.
KTFAST_HD int32_t first_in_class(int group, int64_t n_clusters) {
  const int first = center_in_tile(group, 0);
  return first < n_clusters ? first : 0;
}

// Loading rows: two threads share a row and load eight features each.
KTFAST_HD int staged_row(int thread) { return thread / 2; }
KTFAST_HD int staged_row_feature(int thread, int i) { return thread % 2 * kStageFloats + i; }

// Loading centres: neighbouring threads load neighbouring centres, of every other feature.
KTFAST_HD int staged_center(int thread) { return thread % kScreenCenters; }
KTFAST_HD int staged_center_feature(int thread, int i) {
  return i * (kScreenThreads / kScreenCenters) + thread / kScreenCenters;
}

}  // namespace ktfast::cuda
