// Kernels that test the emulation. They use every primitive correctly and, chosen by `fault`, with
// one planted mistake that the emulation must report.
#include <exception>
#include <string>
#include <type_traits>

#include "common/tensor_core.cuh"

using namespace ktfast::cuda;

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

template <class... P, class... A>
const char* attempt(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A... args) {
  static std::string message;
  try {
    launch(kernel, grid, block, shared_bytes, nullptr, args...);
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

// --- Warps and blocks

constexpr unsigned kFull = 0xFFFFFFFFu;

// out [15, 32] from in [32].
__global__ void collectives_kernel(const int* in, int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const int v = in[lane];
  const auto put = [&](int row, int value) { out[row * 32 + lane] = value; };
  put(0, __shfl_sync(kFull, v, 5));
  put(1, __shfl_sync(kFull, v, lane * 7));  // the source counts modulo the width
  put(2, __shfl_sync(kFull, v, 3, 8));
  put(3, __shfl_up_sync(kFull, v, 3));
  put(4, __shfl_down_sync(kFull, v, 5));
  put(5, __shfl_xor_sync(kFull, v, 16));
  put(6, __shfl_up_sync(kFull, v, 2, 4));
  put(7, __shfl_down_sync(kFull, v, 1, 16));
  put(8, static_cast<int>(__ballot_sync(kFull, v % 3 == 0)));
  put(9, __any_sync(kFull, v == in[9]) ? 1 : 0);
  put(10, __all_sync(kFull, v == in[9]) ? 1 : 0);
  put(11, static_cast<int>(__match_any_sync(kFull, v % 5)));
  // Two halves that never meet, in different code.
  if (lane < 16) {
    put(12, static_cast<int>(__ballot_sync(0x0000FFFFu, v % 2 == 0)));
  } else {
    put(12, __shfl_sync(0xFFFF0000u, v, 20));
  }
  const double wide = __shfl_down_sync(kFull, v * 0.5, 1);
  put(13, static_cast<int>(wide * 2));
  __syncwarp();
  put(14, lane);
}

enum WarpFault { kNone, kDivergent, kReturned, kUnnamed };

__global__ void warp_fault_kernel(int fault, int* out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (fault == kDivergent && lane == 7) {
    __syncwarp();
  } else if (fault == kReturned && lane == 7) {
    return;
  } else if (fault == kUnnamed) {
    __syncwarp(0xFFFFFFF0u);
  }
  out[threadIdx.x] = __shfl_sync(kFull, lane, 7);
}

enum BlockFault { kNoBarrier = 1, kPartialBarrier, kPastEnd, kBeforeStart, kUninitialised, kIndex };

// Reverses each block's part of `in` through static and dynamic shared memory.
__global__ void reverse_kernel(int fault, const int* in, int* out) {
  KTFAST_DYNAMIC_SHARED(bytes);
  __shared__ int fixed[96];
  auto* dynamic = reinterpret_cast<int*>(bytes);
  const int n = static_cast<int>(blockDim.x);
  const int i = static_cast<int>(threadIdx.x);
  const int at = static_cast<int>(blockIdx.x) * n + i;
  if (fault != kUninitialised || i != 3) dynamic[i] = in[at];
  if (fault == kPastEnd && i == 0) dynamic[n] = 1;
  if (fault == kBeforeStart && i == 0) dynamic[-1] = 1;
  if (fault == kIndex && i == 7) fixed[n] = 1;
  if (fault == kPartialBarrier && i >= 64) return;
  if (fault == kPartialBarrier && i == 5) {
    named_barrier(1, n);
  } else if (fault != kNoBarrier) {
    __syncthreads();
  }
  fixed[i] = dynamic[n - 1 - i];
  __syncthreads();
  out[at] = fixed[i];
}

// The last block to finish adds the results of all blocks in `partial`.
__global__ void last_block_kernel(const int* in, int* partial, unsigned* arrived, int* total) {
  __shared__ bool last;
  const int at = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&partial[blockIdx.x], in[at]);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(arrived, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  for (unsigned b = 0; b < gridDim.x; ++b) *total += partial[b];
}

// Counts the threads: without an atomic, increments get lost.
__global__ void global_race_kernel(int fault, int* counter) {
  if (fault == 0) {
    atomicAdd(counter, 1);
    return;
  }
  const int seen = *counter;
  __threadfence();
  *counter = seen + 1;
}

// --- Asynchronous copies and tensor cores

enum CopyFault { kNoWait = 1 };

__global__ void copy_async_kernel(int fault, const uint4* in, uint4* out) {
  KTFAST_DYNAMIC_SHARED(bytes);
  auto* staged = reinterpret_cast<uint4*>(bytes);
  const unsigned n = blockDim.x, i = threadIdx.x;
  for (unsigned stage = 0; stage < 2; ++stage) {
    copy_async_16(&staged[stage * n + i], &in[stage * n + i]);
    copy_async_commit();
  }
  if (fault != kNoWait) copy_async_wait<1>();
  __syncthreads();
  out[i] = staged[n - 1 - i];
  copy_async_wait<0>();
  __syncthreads();
  out[n + i] = staged[2 * n - 1 - i];
}

// c [16, 8] = a b^T, with int8 a [16, 32] and b [8, 32], or float16 a [16, 16] and b [8, 16].
__global__ void mma_kernel(int is_half, const uint4* a, const uint4* b, void* c) {
  KTFAST_DYNAMIC_SHARED(bytes);
  const int lane = static_cast<int>(threadIdx.x);
  auto* rows = reinterpret_cast<uint4*>(bytes);  // a [16, 2], b [8, 2] pieces of 16 bytes
  rows[lane] = a[lane];
  if (lane < 16) rows[32 + lane] = b[lane];
  __syncwarp();
  uint32_t fa[4], fb[4];
  // Matrices: rows 0..7, rows 8..15, and both again 16 bytes further.
  ldmatrix_x4(fa, &rows[lane % 16 * 2 + lane / 16]);
  ldmatrix_x4(fb, &rows[32 + lane % 8 * 2 + lane / 8 % 2]);
  const uint32_t half[2] = {fb[0], fb[1]};
  int32_t ci[4] = {};
  float cf[4] = {};
  if (is_half != 0) {
    mma_f16(cf, fa, half);
  } else {
    mma_s8(ci, fa, half);
  }
  for (int i = 0; i < 4; ++i) {
    const int at = (lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2;
    if (is_half != 0) {
      static_cast<float*>(c)[at] = cf[i];
    } else {
      static_cast<int32_t*>(c)[at] = ci[i];
    }
  }
}

enum GroupFault {
  kNoFullWait = 1,
  kNoGroupWait,
  kNoGroupFence,
  kNoInitFence,
  kTooEarlyRelease,
  kNoArrival,
  kTooFewBytes,
  kNoSumsFence,
};

constexpr int kStages = 2;
constexpr uint32_t kABytes = 64 * 32, kBBytes = 256 * 32, kStageBytes = kABytes + kBBytes;

template <class Sum>
__device__ void multiply(Sum (&c)[128], uint64_t a, uint64_t b, bool accumulate) {
  if constexpr (std::is_same_v<Sum, float>) {
    wgmma_f16(c, a, b, accumulate);
  } else {
    wgmma_s8(c, a, b, accumulate);
  }
}

// c [64, 256] = a b^T. A warp copies steps of 32 bytes of K, packed in core matrices, to two
// stages, and a warpgroup multiplies them. a [steps, 64 x 32 bytes], b [steps, 256 x 32 bytes].
template <class Sum>
__global__ void __launch_bounds__(256)
    group_kernel(int fault, int steps, const unsigned char* a, const unsigned char* b, Sum* out) {
  KTFAST_DYNAMIC_SHARED(shared);
  __shared__ uint64_t full[kStages], empty[kStages];
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], 128);
    }
    if (fault != kNoInitFence) barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= 128) {
    registers_decrease<40>();
    if (threadIdx.x != 128) return;
    for (int step = 0; step < steps; ++step) {
      const int s = step % kStages;
      const auto parity = static_cast<uint32_t>(step / kStages % 2);
      unsigned char* to = shared + static_cast<uint32_t>(s) * kStageBytes;
      barrier_wait(&empty[s], parity ^ 1u);
      barrier_expect_bytes(&full[s], fault == kTooFewBytes ? kABytes : kStageBytes);
      bulk_copy(to, a + static_cast<uint32_t>(step) * kABytes, kABytes, &full[s]);
      bulk_copy(to + kABytes, b + static_cast<uint32_t>(step) * kBBytes, kBBytes, &full[s]);
    }
    return;
  }
  registers_increase<232>();
  Sum c[128];
  for (int step = 0; step < steps; ++step) {
    const int s = step % kStages;
    const unsigned char* from = shared + static_cast<uint32_t>(s) * kStageBytes;
    if (fault != kNoFullWait) barrier_wait(&full[s], static_cast<uint32_t>(step / kStages % 2));
    wgmma_fence_sums(c);
    if (fault != kNoGroupFence) wgmma_fence();
    multiply(c, matrix_descriptor(from, 128, 256), matrix_descriptor(from + kABytes, 128, 256),
             step > 0);
    wgmma_commit();
    if (fault == kTooEarlyRelease) barrier_arrive(&empty[s]);
    if (fault != kNoGroupWait) wgmma_wait<0>();
    if (fault != kTooEarlyRelease && (fault != kNoArrival || threadIdx.x != 77)) {
      barrier_arrive(&empty[s]);
    }
  }
  if (fault != kNoSumsFence) wgmma_fence_sums(c);
  const int t = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 128; ++i) {
    const int row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8;
    out[row * 256 + i / 4 * 8 + t % 4 * 2 + i % 2] = c[i];
  }
  if (fault == kNoGroupWait) wgmma_wait<0>();
}

}  // namespace

EXPORT const char* test_collectives(const int* in, int* out) {
  return attempt(collectives_kernel, 1, 32, 0, in, out);
}
EXPORT const char* test_warp_fault(int64_t fault, int* out) {
  return attempt(warp_fault_kernel, 1, 64, 0, static_cast<int>(fault), out);
}
EXPORT const char* test_reverse(int64_t fault, const int* in, int* out) {
  return attempt(reverse_kernel, 5, 96, 96 * sizeof(int), static_cast<int>(fault), in, out);
}
EXPORT const char* test_last_block(const int* in, int* partial, unsigned* arrived, int* total) {
  return attempt(last_block_kernel, 7, 32, 0, in, partial, arrived, total);
}
EXPORT const char* test_global_race(int64_t fault, int64_t blocks, int64_t threads, int* counter) {
  return attempt(global_race_kernel, static_cast<unsigned>(blocks), static_cast<unsigned>(threads),
                 0, static_cast<int>(fault), counter);
}
EXPORT const char* test_copy_async(int64_t fault, const uint4* in, uint4* out) {
  return attempt(copy_async_kernel, 1, 64, 2 * 64 * 16, static_cast<int>(fault), in, out);
}
EXPORT const char* test_mma(int64_t is_half, const uint4* a, const uint4* b, void* c) {
  return attempt(mma_kernel, 1, 32, 48 * 16, static_cast<int>(is_half), a, b, c);
}
EXPORT const char* test_group(int64_t fault, int64_t is_half, int64_t steps, const unsigned char* a,
                              const unsigned char* b, void* out) {
  const size_t bytes = kStages * kStageBytes;
  const int f = static_cast<int>(fault), n = static_cast<int>(steps);
  return is_half != 0
             ? attempt(group_kernel<float>, 1, 256, bytes, f, n, a, b, static_cast<float*>(out))
             : attempt(group_kernel<int32_t>, 1, 256, bytes, f, n, a, b,
                       static_cast<int32_t*>(out));
}
