// Functions for the PTX instructions of tensor cores, asynchronous copies and barriers, one
// function per instruction. Tests that run kernels on a CPU use the functions of the emulation
// instead.
//
// Pointers called `shared` must point into the block's shared memory. If the compiled architecture
// lacks an instruction, a call of the instruction's function traps.
#pragma once

#include <cstdint>

#include "common/cuda_launch.cuh"

// Whether this compilation has bulk copies and transaction barriers (sm_90), and wgmma (sm_90a).
// Code that needs a missing feature can be left out.
#if defined(KTFAST_CUDA_EMULATION) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define KTFAST_HAS_BULK_COPY 1
#else
#define KTFAST_HAS_BULK_COPY 0
#endif
#if defined(KTFAST_CUDA_EMULATION) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KTFAST_HAS_WGMMA 1
#else
#define KTFAST_HAS_WGMMA 0
#endif

#if defined(KTFAST_CUDA_EMULATION)
#include "emulated_tensor_core.h"  // everything below except matrix_descriptor
#endif

namespace ktfast::cuda {

#if !defined(KTFAST_CUDA_EMULATION)

#define KTFAST_DEVICE __device__ __forceinline__

KTFAST_DEVICE uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// --- A warp's tensor cores

// Loads four matrices of 8 rows of 16 bytes. Lane 8 m + i passes the address of row i of matrix m.
// From each matrix, lane 4 i + j receives bytes 4 j + 0..3 of row i.
KTFAST_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared_row))
               : "memory");
}

// c [16, 8] += a [16, 32] b [32, 8]. With g = lane / 4 and t = lane % 4, a lane's registers hold
//   a[0], a[1]  rows g and g + 8, columns 4t + 0..3
//   a[2], a[3]  rows g and g + 8, columns 4t + 16..19
//   b[0], b[1]  column g, rows 4t + 0..3 and rows 4t + 16..19
//   c[0], c[1]  row g, columns 2t and 2t + 1
//   c[2], c[3]  row g + 8, columns 2t and 2t + 1
KTFAST_DEVICE void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                   : "+r"(c[2 * half]), "+r"(c[2 * half + 1])
                   : "r"(a[2 * k + half]), "r"(b[k]));
    }
  }
#else
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// c [16, 8] += a [16, 16] b [16, 8], where a and b are float16 and a register holds two of them.
// The rows of a and the columns of b are those of mma_s8. a[0], a[1] hold columns 2t and 2t + 1,
// and a[2], a[3] columns 2t + 8 and 2t + 9. b[0] and b[1] hold the rows of the same numbers. Sums
// are float32, and truncated rather than rounded.
KTFAST_DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
  }
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// --- Copies of 16 bytes by one thread, asynchronous from sm_80 on
//
// copy_async_wait<n> waits for the thread's own copies, except the copies of the newest n commits.

KTFAST_DEVICE void copy_async_16(void* shared, const void* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global))
               : "memory");
#endif
}

KTFAST_DEVICE void copy_async_commit() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int newest>
KTFAST_DEVICE void copy_async_wait() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(newest) : "memory");
#endif
}

// Waits until `threads` threads of the block, a multiple of 32, have called this with the same id.
// Id 0 is the barrier of __syncthreads.
KTFAST_DEVICE void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// --- Barriers that count arrivals and bytes, in 8 bytes of shared memory
//
// A phase ends when two conditions hold: as many threads have arrived as barrier_init() was told,
// and all expected bytes have been copied. The first phase has parity 0, the second parity 1, and
// so on in turn. barrier_wait(parity) returns when the phase of this parity has ended.

#if KTFAST_HAS_BULK_COPY
#define KTFAST_SM90(...) __VA_ARGS__
#else
#define KTFAST_SM90(...) __trap()
#endif

KTFAST_DEVICE void barrier_init(uint64_t* barrier, uint32_t arrivals) {
  KTFAST_SM90(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                           "r"(arrivals) : "memory"));
}

// Makes the initialisation of barriers visible to bulk copies. A __syncthreads makes the
// initialisation visible to threads.
KTFAST_DEVICE void barrier_init_fence() {
  KTFAST_SM90(asm volatile("fence.mbarrier_init.release.cluster;" :: : "memory"));
}

KTFAST_DEVICE void barrier_arrive(uint64_t* barrier) {
  KTFAST_SM90(asm volatile(
      "mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory"));
}

// Arrives, and raises the number of bytes that the phase expects by `bytes`.
KTFAST_DEVICE void barrier_expect_bytes(uint64_t* barrier, uint32_t bytes) {
  KTFAST_SM90(asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes) : "memory"));
}

KTFAST_DEVICE void barrier_wait(uint64_t* barrier, uint32_t parity) {
#if KTFAST_HAS_BULK_COPY
  uint32_t ended = 0;
  while (ended == 0) {
    asm volatile(
        "{\n.reg .pred ended;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
        "selp.u32 %0, 1, 0, ended;\n}"
        : "=r"(ended)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  }
#else
  __trap();
#endif
}

// Copies `bytes` bytes. The addresses and `bytes` must be multiples of 16. When the copy ends, the
// barrier expects `bytes` fewer bytes.
KTFAST_DEVICE void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  KTFAST_SM90(asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared)),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(shared_address(barrier)) : "memory"));
}

// Makes the thread's earlier writes to shared memory visible to bulk copies and wgmma.
KTFAST_DEVICE void async_proxy_fence() {
  KTFAST_SM90(asm volatile("fence.proxy.async.shared::cta;" :: : "memory"));
}
#undef KTFAST_SM90

// --- A warpgroup's tensor cores: 128 threads, operands in shared memory
//
// From wgmma_fence to the matching wgmma_wait, no thread may read or write the sums or write the
// operands.

#if KTFAST_HAS_WGMMA
#define KTFAST_SM90A(...) __VA_ARGS__
#else
#define KTFAST_SM90A(...) __trap()
#endif

KTFAST_DEVICE void wgmma_fence() {
  KTFAST_SM90A(asm volatile("wgmma.fence.sync.aligned;" :: : "memory"));
}

// Keeps the compiler from moving reads and writes of the sums across this point. The instructions
// below name the sums as operands, but change them later, until wgmma_wait() has returned. So a
// kernel calls this function before the first wgmma_fence() of a product and after the last
// wgmma_wait(). Without the calls, a compiler might read a sum before the wait.
KTFAST_DEVICE void wgmma_fence_sums(int32_t (&c)[128]) {
#pragma unroll
  for (int i = 0; i < 128; ++i) asm volatile("" : "+r"(c[i])::"memory");
}
KTFAST_DEVICE void wgmma_fence_sums(float (&c)[128]) {
#pragma unroll
  for (int i = 0; i < 128; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

KTFAST_DEVICE void wgmma_commit() {
  KTFAST_SM90A(asm volatile("wgmma.commit_group.sync.aligned;" :: : "memory"));
}

template <int newest>
KTFAST_DEVICE void wgmma_wait() {
  KTFAST_SM90A(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(newest) : "memory"));
}

#define KTFAST_WGMMA_C                                                                             \
  "{"                                                                                              \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                         \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "               \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "               \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "               \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "               \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "               \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "   \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127" \
  "}"
#define KTFAST_WGMMA_OPERANDS(C)                                                                 \
  C(0), C(1), C(2), C(3), C(4), C(5), C(6), C(7), C(8), C(9), C(10), C(11), C(12), C(13), C(14), \
      C(15), C(16), C(17), C(18), C(19), C(20), C(21), C(22), C(23), C(24), C(25), C(26), C(27), \
      C(28), C(29), C(30), C(31), C(32), C(33), C(34), C(35), C(36), C(37), C(38), C(39), C(40), \
      C(41), C(42), C(43), C(44), C(45), C(46), C(47), C(48), C(49), C(50), C(51), C(52), C(53), \
      C(54), C(55), C(56), C(57), C(58), C(59), C(60), C(61), C(62), C(63), C(64), C(65), C(66), \
      C(67), C(68), C(69), C(70), C(71), C(72), C(73), C(74), C(75), C(76), C(77), C(78), C(79), \
      C(80), C(81), C(82), C(83), C(84), C(85), C(86), C(87), C(88), C(89), C(90), C(91), C(92), \
      C(93), C(94), C(95), C(96), C(97), C(98), C(99), C(100), C(101), C(102), C(103), C(104),   \
      C(105), C(106), C(107), C(108), C(109), C(110), C(111), C(112), C(113), C(114), C(115),    \
      C(116), C(117), C(118), C(119), C(120), C(121), C(122), C(123), C(124), C(125), C(126),    \
      C(127)

// c [64, 256] = a [64, 32] b [256, 32]^T, or c += if `accumulate`. With w = thread / 32 % 4,
// g = lane / 4 and t = lane % 4, a thread's registers hold
//   c[4j], c[4j + 1]      row 16w + g, columns 8j + 2t and 8j + 2t + 1
//   c[4j + 2], c[4j + 3]  row 16w + g + 8, the same columns
KTFAST_DEVICE void wgmma_s8(int32_t (&c)[128], uint64_t a, uint64_t b, bool accumulate) {
#if KTFAST_HAS_WGMMA
#define KTFAST_C(i) "+r"(c[i])
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 " KTFAST_WGMMA_C
      ", %128, %129, accumulate;\n}"
      : KTFAST_WGMMA_OPERANDS(KTFAST_C)
      : "l"(a), "l"(b), "r"(static_cast<int32_t>(accumulate)));
#undef KTFAST_C
#else
  __trap();
#endif
}

// c [64, 256] = a [64, 16] b [256, 16]^T, or c += if `accumulate`, where a and b are float16. The
// layout of c is that of wgmma_s8.
KTFAST_DEVICE void wgmma_f16(float (&c)[128], uint64_t a, uint64_t b, bool accumulate) {
#if KTFAST_HAS_WGMMA
#define KTFAST_C(i) "+f"(c[i])
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 " KTFAST_WGMMA_C
      ", %128, %129, accumulate, 1, 1, 0, 0;\n}"
      : KTFAST_WGMMA_OPERANDS(KTFAST_C)
      : "l"(a), "l"(b), "r"(static_cast<int32_t>(accumulate)));
#undef KTFAST_C
#else
  __trap();
#endif
}
#undef KTFAST_WGMMA_C
#undef KTFAST_WGMMA_OPERANDS

// Set the number of registers that each thread of this warpgroup may use from here on. The number
// is a multiple of 8.
template <int count>
KTFAST_DEVICE void registers_increase() {
  KTFAST_SM90A(asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count)));
}
template <int count>
KTFAST_DEVICE void registers_decrease() {
  KTFAST_SM90A(asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count)));
}
#undef KTFAST_SM90A
#undef KTFAST_DEVICE

#endif

// Describes an operand of wgmma in shared memory, without swizzle. The operand consists of core
// matrices of 8 rows x 16 bytes, each of which takes 128 contiguous bytes. The distance between
// neighbouring core matrices is `leading_bytes` along K and `stride_bytes` along the rows. To move
// the operand by 32 bytes along K, add 2 * leading_bytes / 16 to the descriptor.
__device__ __forceinline__ uint64_t matrix_descriptor(const void* shared, uint32_t leading_bytes,
                                                      uint32_t stride_bytes) {
  return (shared_address(shared) & 0x3FFFF) >> 4 |
         static_cast<uint64_t>((leading_bytes & 0x3FFFF) >> 4) << 16 |
         static_cast<uint64_t>((stride_bytes & 0x3FFFF) >> 4) << 32;
}

}  // namespace ktfast::cuda
