// Runs a kernel in several threads. The only place where ktfast starts threads.
//
// The threads belong to ktfast, because OpenMP's threads have two faults. Other libraries use the
// same threads before a fork, and a forked child then waits for ever for threads that it does not
// have. Idle threads of OpenMP also busy-wait, which takes cores from other programs. ktfast's idle
// threads sleep after a short wait, and a forked child starts threads of its own. The caller itself
// does the work that no thread has begun, so it never waits for a thread that has no core yet.
//
// Results must not depend on the number of threads, nor on which thread does which part.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace ktfast::cpu {

using ShareFunction = void (*)(const void* work, int share);

// Calls run(work, share) once for each share 0 .. n_shares - 1, several at a time, and returns when
// all calls have ended. If calls throw, rethrows one of their exceptions.
void run_shares(int n_shares, ShareFunction run, const void* work);

// Calls work(thread) once for each thread 0 .. n_threads - 1. The calls need not overlap: the last
// may begin after the first has ended.
template <class Work>
void in_threads(int n_threads, const Work& work) {
  if (n_threads <= 1) return work(0);
  run_shares(
      n_threads, [](const void* of, int thread) { (*static_cast<const Work*>(of))(thread); },
      &work);
}

// Hands out the tasks 0 .. n_tasks - 1 of a loop in ranges. A slow thread takes fewer ranges.
class TaskRanges {
 public:
  TaskRanges(int64_t n_tasks, int n_threads)
      : n_tasks_(n_tasks), step_(std::max<int64_t>(n_tasks / (kRangesPerThread * n_threads), 1)) {}

  // Returns false if no task is left.
  bool take(int64_t& first, int64_t& last) {
    first = next_.fetch_add(step_, std::memory_order_relaxed);
    last = std::min(first + step_, n_tasks_);
    return first < n_tasks_;
  }

 private:
  static constexpr int64_t kRangesPerThread = 16;
  const int64_t n_tasks_, step_;
  std::atomic<int64_t> next_{0};
};

// Calls body(first, last, thread) for ranges that make up 0 .. n_tasks - 1. Calls that run at the
// same time have different numbers `thread`.
template <class Body>
void for_ranges(int n_threads, int64_t n_tasks, const Body& body) {
  if (n_tasks <= 0) return;
  TaskRanges ranges(n_tasks, std::max(n_threads, 1));
  in_threads(static_cast<int>(std::min<int64_t>(n_threads, n_tasks)), [&](int thread) {
    for (int64_t first, last; ranges.take(first, last);) body(first, last, thread);
  });
}

// The largest of the numbers that several threads give, at least 0. No number is NaN.
class Maximum {
 public:
  void raise(double number) {
    double known = value_.load(std::memory_order_relaxed);
    while (number > known && !value_.compare_exchange_weak(known, number)) {
    }
  }
  double value() const { return value_; }

 private:
  std::atomic<double> value_{0};
};

// The number of threads, at most n_threads, that a loop of n_operations additions or products
// should use. Waking a thread takes as long as about ten thousand additions.
inline int worthwhile_threads(int n_threads, int64_t n_operations) {
  constexpr int64_t kLeastOperations = 1 << 15;
  return static_cast<int>(std::clamp<int64_t>(n_operations / kLeastOperations, 1, n_threads));
}

// The most threads that a kernel should be called with; 0: no limit. ktfast/native/threads.py
// applies the limit. The kernels do not, because their caller has allocated memory for each thread.
int thread_limit();

}  // namespace ktfast::cpu

// threadpoolctl reads and sets the limit through these symbols of the module.
extern "C" {
__attribute__((visibility("default"))) int ktfast_get_num_threads();
__attribute__((visibility("default"))) void ktfast_set_num_threads(int n_threads);
}
