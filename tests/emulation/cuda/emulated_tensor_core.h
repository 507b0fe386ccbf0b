// The functions of common/tensor_core.cuh on the emulated machine.
#pragma once

#include "async_copy.h"
#include "tensor_core.h"

#define KTFAST_SITE cuda_emulation::Site site = cuda_emulation::Site::here()

namespace ktfast::cuda {

inline uint32_t shared_address(const void* shared) { return cuda_emulation::shared_offset(shared); }
inline void ldmatrix_x4(uint32_t (&r)[4], const void* shared_row, KTFAST_SITE) {
  cuda_emulation::ldmatrix_x4(r, shared_row, site);
}
inline void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], KTFAST_SITE) {
  cuda_emulation::mma_s8(c, a, b, site);
}
inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], KTFAST_SITE) {
  cuda_emulation::mma_f16(c, a, b, site);
}
inline void copy_async_16(void* shared, const void* global) {
  cuda_emulation::copy_async_16(shared, global);
}
inline void copy_async_commit() { cuda_emulation::copy_async_commit(); }
template <int newest>
void copy_async_wait() {
  cuda_emulation::copy_async_wait(newest);
}
inline void barrier_init(uint64_t* barrier, uint32_t arrivals) {
  cuda_emulation::barrier_init(barrier, arrivals);
}
inline void barrier_init_fence() { cuda_emulation::barrier_init_fence(); }
inline void barrier_arrive(uint64_t* barrier) { cuda_emulation::barrier_arrive(barrier); }
inline void barrier_expect_bytes(uint64_t* barrier, uint32_t bytes) {
  cuda_emulation::barrier_expect_bytes(barrier, bytes);
}
inline void barrier_wait(uint64_t* barrier, uint32_t parity, KTFAST_SITE) {
  cuda_emulation::barrier_wait(barrier, parity, site);
}
inline void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  cuda_emulation::bulk_copy(shared, global, bytes, barrier);
}
inline void async_proxy_fence() { cuda_emulation::async_proxy_fence(); }
inline void named_barrier(int id, int threads, KTFAST_SITE) {
  cuda_emulation::machine.barrier(id, threads, "bar.sync", site);
}
inline void wgmma_fence(KTFAST_SITE) { cuda_emulation::wgmma_fence(site); }
template <class Sum>
void wgmma_fence_sums(Sum (&c)[128]) {
  cuda_emulation::wgmma_fence_sums(c);
}
inline void wgmma_commit(KTFAST_SITE) { cuda_emulation::wgmma_commit(site); }
template <int newest>
void wgmma_wait(KTFAST_SITE) {
  cuda_emulation::wgmma_wait(newest, site);
}
inline void wgmma_s8(int32_t (&c)[128], uint64_t a, uint64_t b, bool accumulate, KTFAST_SITE) {
  cuda_emulation::wgmma_s8(c, a, b, accumulate, site);
}
inline void wgmma_f16(float (&c)[128], uint64_t a, uint64_t b, bool accumulate, KTFAST_SITE) {
  cuda_emulation::wgmma_f16(c, a, b, accumulate, site);
}
template <int count>
void registers_increase(KTFAST_SITE) {
  cuda_emulation::set_registers(site);
}
template <int count>
void registers_decrease(KTFAST_SITE) {
  cuda_emulation::set_registers(site);
}

}  // namespace ktfast::cuda

#undef KTFAST_SITE
