#include "async_copy.h"

#include <algorithm>
#include <cstring>

namespace cuda_emulation {

static void check_copy(const char* what, void* shared, const void* global, size_t bytes,
                       bool dynamic_only) {
  const auto odd = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 != 0; };
  if (odd(shared) || odd(global)) machine.fail("%s: an address is no multiple of 16", what);
  if (!machine.is_shared(shared, bytes, dynamic_only)) {
    machine.fail("%s: the destination is not %sshared memory of the block", what,
                 dynamic_only ? "dynamic " : "");
  }
}

uint32_t shared_offset(const void* shared) {
  if (!machine.is_shared(shared, 1, true)) {
    machine.fail("the address is not in the block's dynamic shared memory");
  }
  return static_cast<uint32_t>(static_cast<const unsigned char*>(shared) -
                               machine.dynamic_shared());
}

// --- cp.async
void copy_async_16(void* shared, const void* global) {
  check_copy("cp.async", shared, global, 16, false);
  machine.access(shared, 16, AccessKind::write);
  machine.access(global, 16, AccessKind::read);
  machine.poison(shared, 16);
  Thread& me = machine.thread();
  machine.defer(&me, me.copy_group, false, [=] { std::memcpy(shared, global, 16); });
}
void copy_async_commit() { ++machine.thread().copy_group; }
void copy_async_wait(int newest) {
  machine.settle(&machine.thread(), machine.thread().copy_group - newest);
}

// --- mbarrier: its state lies in its 8 bytes, as on the device.
struct BarrierState {
  uint64_t pending : 20;   // arrivals that the current phase still needs
  uint64_t expected : 20;  // arrivals of every phase
  uint64_t bytes : 21;     // bytes that copies must still deliver, plus kNoBytes
  uint64_t phase : 1;
  uint64_t valid : 2;
};
static_assert(sizeof(BarrierState) == 8);
constexpr uint64_t kNoBytes = 1 << 20;
constexpr uint64_t kValid = 1;  // not the top bits of a poison

std::string barrier_name(const void* barrier) {
  const auto* p = static_cast<const unsigned char*>(barrier);
  const Block& b = machine.block();
  if (p < b.shared || p >= b.shared + b.shared_bytes) return "mbarrier in static shared memory";
  return "mbarrier at byte " + std::to_string(p - b.shared) + " of the dynamic shared memory";
}

static BarrierState& barrier_state(const char* what, void* barrier) {
  if (reinterpret_cast<uintptr_t>(barrier) % 8 != 0 || !machine.is_shared(barrier, 8)) {
    machine.fail("%s: a barrier is 8 aligned bytes of shared memory", what);
  }
  auto& state = *static_cast<BarrierState*>(barrier);
  if (state.valid != kValid) {
    machine.fail("%s: %s is not initialised", what, barrier_name(barrier).c_str());
  }
  return state;
}

void barrier_init(void* barrier, uint32_t arrivals) {
  if (!machine.is_shared(barrier, 8)) machine.fail("mbarrier.init: not shared memory");
  if (arrivals == 0 || arrivals >= 1 << 20) machine.fail("mbarrier.init: %u arrivals", arrivals);
  auto& state = *static_cast<BarrierState*>(barrier);
  state.pending = state.expected = arrivals & 0xFFFFF;
  state.bytes = kNoBytes;
  state.phase = 0;
  state.valid = kValid;
  Block& b = machine.block();
  b.unfenced_barriers.push_back(barrier);
  b.barrier_arriving.erase(barrier);
  b.barrier_released.erase(barrier);
}
void barrier_init_fence() { machine.block().unfenced_barriers.clear(); }

// Threads that see the end of the current phase are ordered after the previous accesses of `who`.
static void release_to(void* barrier, const Clock& who) {
  machine.block().barrier_arriving[barrier].learn(who);
}

static bool end_phase_if_complete(void* barrier, BarrierState& state) {
  if (state.pending != 0 || state.bytes != kNoBytes) return false;
  state.phase = state.phase ^ 1u;
  state.pending = state.expected;
  Block& b = machine.block();
  b.barrier_released[barrier] = b.barrier_arriving[barrier];
  for (const auto& t : b.threads) {
    if (t->waiting && t->waits_for.barrier == barrier) machine.wake(*t);
  }
  return true;
}

static void add_bytes(void* barrier, BarrierState& state, int64_t bytes) {
  const int64_t sum = static_cast<int64_t>(state.bytes) + bytes;
  if (sum <= 0 || sum >= 2 * static_cast<int64_t>(kNoBytes)) {
    machine.fail("%s counts more bytes than it can", barrier_name(barrier).c_str());
  }
  state.bytes = static_cast<uint64_t>(sum) & 0x1FFFFF;
}

static void arrive(const char* what, void* barrier, int64_t bytes) {
  BarrierState& state = barrier_state(what, barrier);
  if (bytes != 0) add_bytes(barrier, state, bytes);
  if (state.pending == 0) {
    machine.fail("%s: more arrivals than the %s expects", what, barrier_name(barrier).c_str());
  }
  state.pending = (state.pending - 1) & 0xFFFFF;
  Thread& me = machine.thread();
  release_to(barrier, me.clock);
  me.clock.tick(me.number);
  const bool ended = end_phase_if_complete(barrier, state);
  if (ended) machine.yield(1);  // waiting threads may continue before the last thread
}
void barrier_arrive(void* barrier) { arrive("mbarrier.arrive", barrier, 0); }
void barrier_expect_bytes(void* barrier, uint32_t bytes) {
  arrive("mbarrier.arrive.expect_tx", barrier, bytes);
}

static bool phase_ended(void* barrier, uint32_t parity) {
  return barrier_state("mbarrier.try_wait", barrier).phase != (parity & 1u);
}

void barrier_wait(void* barrier, uint32_t parity, Site site) {
  machine.yield();
  Thread& me = machine.thread();
  while (!phase_ended(barrier, parity)) {
    machine.park({(parity & 1u) != 0 ? "mbarrier.try_wait.parity 1" : "mbarrier.try_wait.parity 0",
                  site, barrier});
  }
  me.clock.learn(machine.block().barrier_released[barrier]);
}

// --- cp.async.bulk and its proxy
// The asynchronous proxy (bulk copies, wgmma) sees the writes of threads only after this fence.
void async_proxy_fence() {
  Block& b = machine.block();
  std::copy(b.shared, b.shared + b.shared_bytes, b.async_view.begin());
}

void bulk_copy(void* shared, const void* global, uint32_t bytes, void* barrier) {
  check_copy("cp.async.bulk", shared, global, bytes, true);
  if (bytes == 0 || bytes % 16 != 0) machine.fail("cp.async.bulk: %u bytes", bytes);
  phase_ended(barrier, 0);  // for its checks
  const auto& unfenced = machine.block().unfenced_barriers;
  if (std::find(unfenced.begin(), unfenced.end(), barrier) != unfenced.end()) {
    machine.fail("cp.async.bulk: no fence since the %s was initialised",
                 barrier_name(barrier).c_str());
  }
  unsigned char* view = machine.block().async_view.data() + shared_offset(shared);
  machine.access(shared, bytes, AccessKind::write);
  machine.access(global, bytes, AccessKind::read);
  machine.poison(shared, bytes);
  machine.poison(view, bytes);
  machine.defer(nullptr, 0, false, [=, asker = machine.thread().clock] {
    std::memcpy(shared, global, bytes);
    std::memcpy(view, global, bytes);
    BarrierState& state = barrier_state("cp.async.bulk", barrier);
    add_bytes(barrier, state, -static_cast<int64_t>(bytes));
    release_to(barrier, asker);
    end_phase_if_complete(barrier, state);
  });
}

}  // namespace cuda_emulation
