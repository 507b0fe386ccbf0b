#include "warp.h"

namespace cuda_emulation {
namespace {

bool names(int size, uint32_t mask, int i) { return size != kLanes || (mask >> i & 1) != 0; }

void complete_if_all_there(int size, Thread& waiting) {
  const Arrival mine = waiting.arrival;
  const int first = waiting.number / size * size;
  const auto& threads = waiting.block->threads;
  void* calls[kGroup] = {};
  for (int i = 0; i < size && first + i < static_cast<int>(threads.size()); ++i) {
    const Thread& other = *threads[static_cast<size_t>(first + i)];
    if (!names(size, mine.mask, i) || other.finished) continue;
    const Arrival& theirs = other.arrival;
    if (theirs.what == nullptr) return;
    if (theirs.mask != mine.mask || theirs.complete != mine.complete) {
      // Another warp of the warpgroup may first have a collective of its own.
      if (other.number / kLanes != waiting.number / kLanes) return;
      if (!names(size, theirs.mask, lane_of(waiting))) return;
      machine.fail("%s at %s with mask %08x, while thread %d waits at %s at %s with mask %08x",
                   mine.what, mine.site.text().c_str(), mine.mask, other.number, theirs.what,
                   theirs.site.text().c_str(), theirs.mask);
    }
    calls[i] = theirs.call;
  }
  mine.complete(calls);
  for (int i = 0; i < size; ++i) {
    if (calls[i] == nullptr) continue;
    Thread& other = *threads[static_cast<size_t>(first + i)];
    other.arrival = {};
    machine.wake(other);
  }
}

}  // namespace

void meet(int size, const Arrival& arrival) {
  Thread& me = machine.thread();
  me.arrival = arrival;
  me.waiting = true;
  me.waits_for = {arrival.what, arrival.site, nullptr};
  complete_if_all_there(size, me);
  me.fiber.suspend();
}

void complete_after_exit(Thread& gone) {
  const int first = gone.number / kLanes * kLanes;
  const auto& threads = gone.block->threads;
  for (int i = first; i < first + kLanes && i < static_cast<int>(threads.size()); ++i) {
    Thread& other = *threads[static_cast<size_t>(i)];
    if (other.arrival.what != nullptr && names(kLanes, other.arrival.mask, lane_of(gone))) {
      complete_if_all_there(kLanes, other);
    }
  }
}

}  // namespace cuda_emulation
