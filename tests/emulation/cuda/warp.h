// Collectives of a warp. Every lane of the mask waits for the others, and the last lane to arrive
// computes the results of all.
#pragma once

#include "machine.h"

namespace cuda_emulation {

constexpr int kLanes = 32;

inline int lane_of(const Thread& t) { return t.number % kLanes; }

constexpr int kGroup = 128;  // threads of a warpgroup

// Waits for the other threads of a group of `size` threads, 32 or 128: the threads of `mask`, or
// all of a warpgroup, that have not returned. The last thread to arrive calls `complete` with the
// `call` of every thread, null for threads that do not take part.
void meet(int size, const Arrival& arrival);

// Completes the collectives that waited only for a thread that has returned.
void complete_after_exit(Thread& gone);

// Call holds a thread's inputs and results, and has a static void complete(Call* const
// (&calls)[size]). The calls of threads that do not take part are null.
template <int size, class Call>
void meet(const char* what, uint32_t mask, Call& call, Site site) {
  meet(size, {what, mask,
              [](void* const* all) {
                Call* calls[size];
                for (int i = 0; i < size; ++i) calls[i] = static_cast<Call*>(all[i]);
                Call::complete(calls);
              },
              &call, site});
}

template <class Call>
void meet_warp(const char* what, uint32_t mask, Call& call, Site site) {
  const int me = lane_of(machine.thread());
  if ((mask >> me & 1) == 0) {
    machine.fail("%s at %s: mask %08x does not name the lane itself, %d", what, site.text().c_str(),
                 mask, me);
  }
  meet<kLanes>(what, mask, call, site);
}

template <class T>
struct Shuffle {
  T value;
  int source;
  T result;
  static void complete(Shuffle* const (&lanes)[kLanes]) {
    for (Shuffle* l : lanes) {
      if (l == nullptr) continue;
      if (lanes[l->source] == nullptr) {
        machine.fail("a shuffle reads lane %d, which does not take part", l->source);
      }
      l->result = lanes[l->source]->value;
    }
  }
};

template <class T>
T shuffle(const char* what, unsigned mask, T value, int source, Site site) {
  Shuffle<T> call{value, source, {}};
  meet_warp(what, mask, call, site);
  return call.result;
}

struct Vote {
  bool predicate;
  unsigned result;
  static void complete(Vote* const (&lanes)[kLanes]) {
    unsigned ballot = 0;
    for (int l = 0; l < kLanes; ++l) {
      if (lanes[l] != nullptr && lanes[l]->predicate) ballot |= 1u << l;
    }
    for (Vote* l : lanes) {
      if (l != nullptr) l->result = ballot;
    }
  }
};

template <class T>
struct Match {
  T value;
  unsigned result;
  static void complete(Match* const (&lanes)[kLanes]) {
    for (Match* l : lanes) {
      if (l == nullptr) continue;
      l->result = 0;
      for (int m = 0; m < kLanes; ++m) {
        if (lanes[m] != nullptr && lanes[m]->value == l->value) l->result |= 1u << m;
      }
    }
  }
};

struct Meeting {
  Thread* thread;
  static void complete(Meeting* const (&lanes)[kLanes]) {
    std::vector<Thread*> all;
    for (const Meeting* l : lanes) {
      if (l != nullptr) all.push_back(l->thread);
    }
    Machine::order(all);
  }
};

}  // namespace cuda_emulation

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu,
                       cuda_emulation::Site site = cuda_emulation::Site::here()) {
  cuda_emulation::Meeting call{&cuda_emulation::machine.thread()};
  cuda_emulation::meet_warp("__syncwarp", mask, call, site);
}

// `width` splits the warp into parts that shuffle among themselves.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              cuda_emulation::Site site = cuda_emulation::Site::here()) {
  const int me = cuda_emulation::lane_of(cuda_emulation::machine.thread());
  const int from = me / width * width + (source & (width - 1));
  return cuda_emulation::shuffle("__shfl_sync", mask, value, from, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 cuda_emulation::Site site = cuda_emulation::Site::here()) {
  const int me = cuda_emulation::lane_of(cuda_emulation::machine.thread());
  const int from = me % width - static_cast<int>(delta) < 0 ? me : me - static_cast<int>(delta);
  return cuda_emulation::shuffle("__shfl_up_sync", mask, value, from, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   cuda_emulation::Site site = cuda_emulation::Site::here()) {
  const int me = cuda_emulation::lane_of(cuda_emulation::machine.thread());
  const int from =
      me % width + static_cast<int>(delta) >= width ? me : me + static_cast<int>(delta);
  return cuda_emulation::shuffle("__shfl_down_sync", mask, value, from, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  cuda_emulation::Site site = cuda_emulation::Site::here()) {
  const int me = cuda_emulation::lane_of(cuda_emulation::machine.thread());
  const int from = (me ^ bits) / width > me / width ? me : me ^ bits;
  return cuda_emulation::shuffle("__shfl_xor_sync", mask, value, from, site);
}

inline unsigned __ballot_sync(unsigned mask, bool predicate,
                              cuda_emulation::Site site = cuda_emulation::Site::here()) {
  cuda_emulation::Vote call{predicate, 0};
  cuda_emulation::meet_warp("__ballot_sync", mask, call, site);
  return call.result;
}
inline bool __any_sync(unsigned mask, bool predicate,
                       cuda_emulation::Site site = cuda_emulation::Site::here()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline bool __all_sync(unsigned mask, bool predicate,
                       cuda_emulation::Site site = cuda_emulation::Site::here()) {
  return __ballot_sync(mask, !predicate, site) == 0;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value,
                          cuda_emulation::Site site = cuda_emulation::Site::here()) {
  cuda_emulation::Match<T> call{value, 0};
  cuda_emulation::meet_warp("__match_any_sync", mask, call, site);
  return call.result;
}
