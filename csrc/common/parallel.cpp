#include "common/parallel.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ktfast::cpu {
namespace {

constexpr int kMostWorkers = 1024;
// An idle thread looks for work n_looks_ times before it sleeps, at most this many times. 512 looks
// take about 20 us. n_looks_ halves when a thread has found no work and doubles when a thread has
// found work, so idle threads take little time from other programs.
constexpr int kMostLooks = 512;
constexpr int kLeastLooks = 8;

void rest() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Blocks all signals while workers are created: new threads inherit the signal mask of their
// creator, and the signals must reach Python's threads, not the workers.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &callers_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &callers_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t callers_;
};

// A call of run_shares(). All members but `running` are guarded by Pool::mutex_.
struct Job {
  const ShareFunction run;
  const void* const work;
  const int n_shares;
  int next_share = 1;           // the caller takes share 0
  std::atomic<int> running{0};  // shares that workers have begun and not ended
  std::exception_ptr error = nullptr;
  Job* following = nullptr;

  bool is_open() const { return next_share < n_shares; }
};

// The threads of one process. A pool is never destroyed: its threads sleep until the process ends.
class Pool {
 public:
  void run(int n_shares, ShareFunction function, const void* work);

  const pid_t process = getpid();

 private:
  void start_workers();
  void serve();
  Job* open_job() const;
  int claim(Job& job);
  void await(Job& job);
  void remove(Job& job);
  bool look_for_work();

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* jobs_ = nullptr;
  int n_workers_ = 0, n_sleeping_ = 0, n_wanted_ = 0;
  std::atomic<int> n_unclaimed_{0};
  std::atomic<int> n_looks_{kMostLooks};
};

void attempt(Job& job, int share, std::exception_ptr& error) {
  try {
    job.run(job.work, share);
  } catch (...) {
    error = std::current_exception();
  }
}

void Pool::run(int n_shares, ShareFunction function, const void* work) {
  Job job{function, work, n_shares};
  std::exception_ptr error;
  int n_woken;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    job.following = jobs_;
    jobs_ = &job;
    n_wanted_ += n_shares - 1;
    n_unclaimed_ += n_shares - 1;
    start_workers();
    n_woken = std::min(n_sleeping_, n_shares - 1);
  }
  for (int i = 0; i < n_woken; ++i) wake_.notify_one();
  attempt(job, 0, error);
  for (;;) {
    int share = -1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (job.is_open()) share = claim(job);
    }
    if (share < 0) break;
    attempt(job, share, error);
  }
  await(job);
  if (error == nullptr) error = job.error;
  if (error != nullptr) std::rethrow_exception(error);
}

// If the system refuses a new thread, or the memory for it, the caller of run_shares() does that
// thread's work. Nothing is thrown, because the list of jobs already holds the caller's job.
void Pool::start_workers() {
  if (n_workers_ >= std::min(n_wanted_, kMostWorkers)) return;
  const SignalsBlocked blocked;
  try {
    while (n_workers_ < std::min(n_wanted_, kMostWorkers)) {
      std::thread([this] { serve(); }).detach();
      ++n_workers_;
    }
  } catch (const std::exception&) {
  }
}

Job* Pool::open_job() const {
  Job* job = jobs_;
  while (job != nullptr && !job->is_open()) job = job->following;
  return job;
}

int Pool::claim(Job& job) {
  --n_unclaimed_;
  return job.next_share++;
}

void Pool::serve() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    Job* job = open_job();
    if (job == nullptr) {
      lock.unlock();
      const bool found = look_for_work();
      lock.lock();
      if (found) continue;
      ++n_sleeping_;
      wake_.wait(lock, [this] { return n_unclaimed_ > 0; });
      --n_sleeping_;
      continue;
    }
    const int share = claim(*job);
    ++job->running;
    lock.unlock();
    std::exception_ptr error;
    attempt(*job, share, error);
    lock.lock();
    if (error != nullptr) job->error = error;
    // The caller holds the lock when it removes the job, so the job still exists here.
    if (--job->running == 0) done_.notify_all();
  }
}

bool Pool::look_for_work() {
  const int n_looks = n_looks_.load(std::memory_order_relaxed);
  for (int i = 0; i < n_looks; ++i) {
    if (n_unclaimed_.load(std::memory_order_relaxed) > 0) {
      n_looks_.store(std::min(2 * n_looks, kMostLooks), std::memory_order_relaxed);
      return true;
    }
    rest();
  }
  n_looks_.store(std::max(n_looks / 2, kLeastLooks), std::memory_order_relaxed);
  return false;
}

void Pool::await(Job& job) {
  for (int i = 0; i < kMostLooks && job.running.load(std::memory_order_acquire) > 0; ++i) rest();
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [&] { return job.running == 0; });
  remove(job);
}

void Pool::remove(Job& job) {
  Job** place = &jobs_;
  while (*place != &job) place = &(*place)->following;
  *place = job.following;
  n_wanted_ -= job.n_shares - 1;
}

std::atomic<Pool*> current{nullptr};

// A forked child has none of its parent's threads, and perhaps a locked mutex. The child makes a
// pool of its own. The comparison of process ids finds children that no handler of pthread_atfork
// saw. The handler finds children in a new namespace, whose id can be that of the parent.
Pool& pool_of_process() {
  static const int handler = pthread_atfork(nullptr, nullptr, [] { current = nullptr; });
  static_cast<void>(handler);
  Pool* pool = current.load(std::memory_order_acquire);
  if (pool != nullptr && pool->process == getpid()) return *pool;
  auto* own = new Pool;
  if (current.compare_exchange_strong(pool, own, std::memory_order_acq_rel)) return *own;
  delete own;  // another thread was faster; `pool` is its pool
  return *pool;
}

std::atomic<int> limit{0};  // 0: none

int hardware_threads() {
  return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

}  // namespace

void run_shares(int n_shares, ShareFunction run, const void* work) {
  if (n_shares > 0) pool_of_process().run(n_shares, run, work);
}

int thread_limit() { return limit; }

}  // namespace ktfast::cpu

// Without a limit, this is the number of processors. ktfast_set_num_threads() treats that number as
// no limit, so setting the number that was read changes nothing.
int ktfast_get_num_threads() {
  const int n_threads = ktfast::cpu::limit.load();
  return n_threads > 0 ? n_threads : ktfast::cpu::hardware_threads();
}

void ktfast_set_num_threads(int n_threads) {
  const bool limits = n_threads > 0 && n_threads < ktfast::cpu::hardware_threads();
  ktfast::cpu::limit.store(limits ? n_threads : 0);
}
