// Copies that the hardware does some time later, and the mbarriers that tell when: PTX ISA,
// "Data Movement and Conversion Instructions: Asynchronous copy" and "Parallel Synchronization and
// Communication Instructions: mbarrier".
//
// A destination is poisoned when the copy is asked for, and written at a random later moment, at
// the latest when somebody waits for it.
#pragma once

#include "machine.h"

namespace cuda_emulation {

inline void check_copy(const char* what, void* shared, const void* global, size_t bytes,
                       bool dynamic_only) {
  const auto odd = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 != 0; };
  if (odd(shared) || odd(global)) machine.fail("%s: an address is no multiple of 16", what);
  if (!machine.is_shared(shared, bytes, dynamic_only)) {
    machine.fail("%s: the destination is not %sshared memory of the block", what,
                 dynamic_only ? "dynamic " : "");
  }
}

inline uint32_t shared_offset(const void* shared) {
  if (!machine.is_shared(shared, 1, true)) {
    machine.fail("the address is not in the block's dynamic shared memory");
  }
  return static_cast<uint32_t>(static_cast<const unsigned char*>(shared) -
                               machine.dynamic_shared());
}

// --- cp.async
inline void copy_async_16(void* shared, const void* global) {
  check_copy("cp.async", shared, global, 16, false);
  machine.poison(shared, 16);
  Thread& me = machine.thread();
  machine.defer(&me, me.copy_group, false, [=] { std::memcpy(shared, global, 16); });
}
inline void copy_async_commit() { ++machine.thread().copy_group; }
inline void copy_async_wait(int newest) {
  machine.settle(&machine.thread(), machine.thread().copy_group - newest);
}

// --- mbarrier: its state lies in its 8 bytes, as on the device.
struct BarrierState {
  uint64_t pending : 20;   // arrivals that the present phase waits for
  uint64_t expected : 20;  // arrivals of every phase
  uint64_t bytes : 21;     // that copies still have to bring, plus kNoBytes
  uint64_t phase : 1;
  uint64_t valid : 2;
};
static_assert(sizeof(BarrierState) == 8);
constexpr uint64_t kNoBytes = 1 << 20;
constexpr uint64_t kValid = 1;  // not the top bits of a poison

inline std::string barrier_name(const void* barrier) {
  const auto* p = static_cast<const unsigned char*>(barrier);
  const Block& b = machine.block();
  if (p < b.shared || p >= b.shared + b.shared_bytes) return "mbarrier in static shared memory";
  return "mbarrier at byte " + std::to_string(p - b.shared) + " of the dynamic shared memory";
}

inline BarrierState& barrier_state(const char* what, void* barrier) {
  if (reinterpret_cast<uintptr_t>(barrier) % 8 != 0 || !machine.is_shared(barrier, 8)) {
    machine.fail("%s: a barrier is 8 aligned bytes of shared memory", what);
  }
  auto& state = *static_cast<BarrierState*>(barrier);
  if (state.valid != kValid) {
    machine.fail("%s: %s is not initialised", what, barrier_name(barrier).c_str());
  }
  return state;
}

inline void barrier_init(void* barrier, uint32_t arrivals) {
  if (!machine.is_shared(barrier, 8)) machine.fail("mbarrier.init: not shared memory");
  if (arrivals == 0 || arrivals >= 1 << 20) machine.fail("mbarrier.init: %u arrivals", arrivals);
  auto& state = *static_cast<BarrierState*>(barrier);
  state.pending = state.expected = arrivals & 0xFFFFF;
  state.bytes = kNoBytes;
  state.phase = 0;
  state.valid = kValid;
  machine.block().unfenced_barriers.push_back(barrier);
}
inline void barrier_init_fence() { machine.block().unfenced_barriers.clear(); }

inline void end_phase_if_complete(void* barrier, BarrierState& state) {
  if (state.pending != 0 || state.bytes != kNoBytes) return;
  state.phase = state.phase ^ 1u;
  state.pending = state.expected;
  for (const auto& t : machine.block().threads) {
    if (t->waits_on != barrier) continue;
    t->waits_on = nullptr;
    machine.wake(*t);
  }
  machine.yield(1);  // whoever waited may go on before the thread that came last
}

inline void barrier_arrive(void* barrier) {
  BarrierState& state = barrier_state("mbarrier.arrive", barrier);
  if (state.pending == 0) {
    machine.fail("mbarrier.arrive: more arrivals than %s expects", barrier_name(barrier).c_str());
  }
  state.pending = (state.pending - 1) & 0xFFFFF;
  end_phase_if_complete(barrier, state);
}

inline void add_bytes(void* barrier, BarrierState& state, int64_t bytes) {
  const int64_t sum = static_cast<int64_t>(state.bytes) + bytes;
  if (sum <= 0 || sum >= 2 * static_cast<int64_t>(kNoBytes)) {
    machine.fail("%s counts more bytes than it can", barrier_name(barrier).c_str());
  }
  state.bytes = static_cast<uint64_t>(sum) & 0x1FFFFF;
}

inline void barrier_expect_bytes(void* barrier, uint32_t bytes) {
  add_bytes(barrier, barrier_state("mbarrier.arrive.expect_tx", barrier), bytes);
  barrier_arrive(barrier);
}

inline void barrier_wait(void* barrier, uint32_t parity, Site site = Site::here()) {
  machine.yield();
  while (barrier_state("mbarrier.try_wait", barrier).phase == (parity & 1u)) {
    machine.thread().waits_on = barrier;
    machine.park("mbarrier.try_wait.parity " + std::to_string(parity & 1u) + " at " + site.text() +
                 " on the " + barrier_name(barrier));
  }
}

// --- cp.async.bulk and its proxy
// The asynchronous proxy (bulk copies, wgmma) sees what threads wrote only after this.
inline void async_proxy_fence() {
  Block& b = machine.block();
  std::copy(b.shared, b.shared + b.shared_bytes, b.async_view.begin());
}

inline void bulk_copy(void* shared, const void* global, uint32_t bytes, void* barrier) {
  check_copy("cp.async.bulk", shared, global, bytes, true);
  if (bytes == 0 || bytes % 16 != 0) machine.fail("cp.async.bulk: %u bytes", bytes);
  barrier_state("cp.async.bulk", barrier);
  const auto& unfenced = machine.block().unfenced_barriers;
  if (std::find(unfenced.begin(), unfenced.end(), barrier) != unfenced.end()) {
    machine.fail("cp.async.bulk: no fence since the %s was initialised",
                 barrier_name(barrier).c_str());
  }
  unsigned char* view = machine.block().async_view.data() + shared_offset(shared);
  machine.poison(shared, bytes);
  machine.poison(view, bytes);
  machine.defer(nullptr, 0, false, [=] {
    std::memcpy(shared, global, bytes);
    std::memcpy(view, global, bytes);
    BarrierState& state = barrier_state("cp.async.bulk", barrier);
    add_bytes(barrier, state, -static_cast<int64_t>(bytes));
    end_phase_if_complete(barrier, state);
  });
}

}  // namespace cuda_emulation
