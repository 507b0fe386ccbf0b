// Entry point of kmeans_assign on the CPU: checks, the choice of the kernels, and the threads.
#include "kmeans_assign/kmeans_assign.h"

#include <algorithm>
#include <atomic>

#include "common/check.h"
#include "common/cpu_features.h"
#include "common/float_environment.h"
#include "common/parallel.h"
#include "kmeans_assign/cpu/assign_block.h"
#include "kmeans_assign/cpu/few.h"

namespace ktfast::cpu {
namespace {

// Row numbers and guesses come from the caller and are used as indices.
void check_rows(const KmeansAssignParams& p) {
  for (int64_t i = 0; p.subset != nullptr && i < p.n_subset; ++i) {
    KTFAST_CHECK(p.subset[i] >= 0 && p.subset[i] < p.n_rows,
                 "subset must hold row numbers between 0 and n_rows - 1");
  }
  if (!p.guessed) return;
  for (int64_t row = 0; row < p.n_rows; ++row) {
    KTFAST_CHECK(p.labels[row] >= 0 && p.labels[row] < p.n_clusters,
                 "labels must lie between 0 and n_clusters - 1");
  }
}

}  // namespace

AssignKernels assign_kernels(CodeType code) {
  const SimdLevel level = simd_level();
#if defined(KTFAST_X86_SIMD)
#if defined(KTFAST_X86_AMX)
  if (level == SimdLevel::amx && code != CodeType::float32) {
    AssignKernels kernels = assign_kernels_avx512(code);
    kernels.product = code == CodeType::int8 ? product_amx_int8() : product_amx_bf16();
    return kernels;
  }
#endif
  if (level >= SimdLevel::avx512) {
    AssignKernels kernels = assign_kernels_avx512(code);
    if (code == CodeType::int8) {
      kernels.product =
          has_avx512_vnni() ? product_avx512_vnni() : assign_kernels_scalar(code).product;
    } else if (code == CodeType::bfloat16) {
      kernels.product =
          has_avx512_bf16() ? product_avx512_bf16() : assign_kernels_scalar(code).product;
    }
    return kernels;
  }
  if (level == SimdLevel::avx2) return assign_kernels_avx2(code);
#endif
#if defined(KTFAST_ARM_SIMD)
  if (level == SimdLevel::neon) {
    AssignKernels kernels = assign_kernels_neon(code);
    if (code == CodeType::int8 && has_neon_dot()) kernels.product = product_neon_dot();
    return kernels;
  }
#endif
  static_cast<void>(level);
  return assign_kernels_scalar(code);
}

bool kmeans_has_fast(CodeType code) {
  const SimdLevel level = simd_level();
  switch (code) {
    case CodeType::float32:
      return true;
    case CodeType::bfloat16:
      return level >= SimdLevel::avx512 && has_avx512_bf16();
    case CodeType::int8:
      if (level == SimdLevel::neon) return has_neon_dot();
      return level == SimdLevel::avx2 || (level >= SimdLevel::avx512 && has_avx512_vnni());
  }
  return false;
}

int64_t kmeans_assign_workspace_size(int64_t n_features, int64_t n_coordinates, int n_threads) {
  return (Size(BlockLayout(n_features, n_coordinates).size) * n_threads + 16).value();
}

void kmeans_assign(const KmeansAssignParams& given) {
  KmeansAssignParams p = given;
  const int64_t n_rows = p.subset == nullptr ? p.n_rows : p.n_subset;
  if (n_rows == 0) return;
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  KTFAST_CHECK(
      p.workspace_size >= kmeans_assign_workspace_size(p.n_features, p.n_coordinates, p.n_threads),
      "workspace is smaller than kmeans_assign_workspace_size()");
  KTFAST_CHECK(p.n_coordinates == 0 || p.codes != nullptr,
               "centers in a basis need the rows' codes");
  check_rows(p);
  p.workspace = aligned(given.workspace);
  if (has_few_centers(p)) {
    *p.n_passed += kmeans_few(p);
    return;
  }
  const AssignKernels kernels = assign_kernels(p.code);
  const BlockLayout at(p.n_features, p.n_coordinates);
  // If there are few rows, blocks are smaller, so that every thread gets rows. The size of the
  // blocks does not change the labels.
  const int64_t share = (n_rows + p.n_threads - 1) / p.n_threads;
  const int64_t block_rows = std::min(at.rows, round_up(share, kTileRows));
  const int64_t n_blocks = (n_rows + block_rows - 1) / block_rows;
  const auto rows_of = [&](int64_t block) {
    return block < n_blocks ? std::min(block_rows, n_rows - block * block_rows) : 0;
  };
  // A thread takes its next block before it assigns the present one, so that it can fetch the
  // memory of the next block. Slower threads take fewer blocks.
  std::atomic<int64_t> n_taken{0};
  std::atomic<int64_t> n_passed{0};
  in_threads(p.n_threads, [&](int thread) {
    const DefaultFloatEnvironment environment;
    AssignBlock block(p, kernels, p.workspace + thread * at.size);
    for (int64_t i = n_taken++; i < n_blocks;) {
      const int64_t next = n_taken++;
      block.assign(i * block_rows, rows_of(i), next * block_rows, rows_of(next));
      i = next;
    }
    n_passed += block.n_passed;
  });
  *p.n_passed += n_passed;
}

}  // namespace ktfast::cpu
