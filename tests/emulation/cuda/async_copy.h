// Asynchronous copies, and the mbarriers that signal their completion: PTX ISA,
// "Data Movement and Conversion Instructions: Asynchronous copy" and "Parallel Synchronization and
// Communication Instructions: mbarrier".
//
// The destination is filled with invalid data when the copy starts. The copy is done at a random
// later moment, at the latest when a thread waits for it.
#pragma once

#include "machine.h"

namespace cuda_emulation {

// Bytes from the start of the block's dynamic shared memory.
uint32_t shared_offset(const void* shared);

void copy_async_16(void* shared, const void* global);
void copy_async_commit();
void copy_async_wait(int newest);

std::string barrier_name(const void* barrier);
void barrier_init(void* barrier, uint32_t arrivals);
void barrier_init_fence();
void barrier_arrive(void* barrier);
void barrier_expect_bytes(void* barrier, uint32_t bytes);
void barrier_wait(void* barrier, uint32_t parity, Site site);

void bulk_copy(void* shared, const void* global, uint32_t bytes, void* barrier);
// The asynchronous proxy (bulk copies, wgmma) sees the writes of threads only after this fence.
void async_proxy_fence();

}  // namespace cuda_emulation
