// The emulated device: runs a kernel block by block, the threads of a block as fibers, in an order
// that a seed shuffles, so that a missing barrier shows as a wrong result.
//
// A fiber runs until it waits for others (machine.h knows barriers, warp.h warp collectives,
// async_copy.h mbarriers). Asynchronous work is queued and done at a random later moment.
#pragma once

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"
#include "symbols.h"

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Set whenever a fiber goes on. Not thread-local: such variables are the block's shared memory.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace cuda_emulation {

// Where in a source file a primitive was called.
struct Site {
  const char* file = "";
  int line = 0;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  std::string text() const {
    const std::string path = file;
    return path.substr(path.rfind('/') + 1) + ":" + std::to_string(line);
  }
};

template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// What the tests may set; the defaults suit most.
struct Settings {
  uint64_t seed = 0;
  int capability = 90;  // ten times the compute capability
  int multiprocessors = 4;
  size_t shared_limit = 227 << 10;  // bytes that a block may opt in to
};
inline Settings settings;

struct Block;

// What a lane brings to a collective of its warp or warpgroup.
struct Arrival {
  const char* what = nullptr;  // nullptr: it is not waiting at a collective
  uint32_t mask = 0;
  void (*complete)(void* const* calls) = nullptr;
  void* call = nullptr;
  Site site;
};

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  uint3 index{};
  int number = 0;
  bool finished = false;
  bool waiting = false;
  std::string waits_for;
  const void* waits_on = nullptr;  // an mbarrier
  Arrival arrival;
  int64_t copy_group = 0;  // cp.async groups committed
};

// Work that the hardware does some time later.
struct Deferred {
  const void* owner;  // whose groups it counts in
  int64_t group;
  bool in_order;  // after the owner's earlier work
  std::function<void()> work;
};

constexpr size_t kGuard = 4096;  // bytes before and after the dynamic shared memory
constexpr unsigned char kGuardByte = 0xC3;

struct NamedBarrier {
  int expected = 0;
  std::vector<Thread*> waiting;
};

// The accumulators of one wgmma, taken from the threads until they have waited for it.
struct Accumulator {
  std::vector<void*> threads;    // where each thread keeps its part
  std::vector<uint32_t> values;  // [64, 256], bits of int32 or float
  int pending = 0;
  int64_t last_group = 0;
};

struct WarpGroup {
  int64_t committed = 0;
  int64_t fences = 0;
  std::map<void*, Accumulator> under_way;  // by the first thread's part
  std::map<void*, int64_t> handed_back;    // the fences there had been then
};

struct Block {
  uint3 index{};
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Thread*> ready;
  int live = 0;
  std::unique_ptr<unsigned char, void (*)(void*)> memory{nullptr, std::free};
  unsigned char* shared = nullptr;  // dynamic
  size_t shared_bytes = 0;
  std::vector<unsigned char> async_view;  // what the asynchronous proxy sees of it
  std::vector<unsigned char> statics;     // while another block is on the machine
  std::array<NamedBarrier, 16> barriers;
  std::vector<Deferred> deferred;
  std::vector<const void*> unfenced_barriers;  // mbarriers the async proxy may not see yet
  std::array<WarpGroup, 8> groups;
};

class Machine {
 public:
  void run(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
           const std::function<void()>& body);

  Thread& thread() { return *current_; }
  Block& block() { return *active_; }
  unsigned char* dynamic_shared() { return block().shared; }
  bool is_shared(const void* pointer, size_t bytes, bool dynamic_only = false);

  // Suspends the calling thread until wake().
  void park(std::string waits_for) {
    Thread& me = *current_;
    me.waiting = true;
    me.waits_for = std::move(waits_for);
    me.fiber.suspend();
  }
  void wake(Thread& thread) {
    if (!thread.waiting) return;
    thread.waiting = false;
    thread.waits_for.clear();
    thread.block->ready.push_back(&thread);
  }
  // Lets others run first, perhaps.
  void yield(unsigned one_time_of = 4) {
    if (current_ == nullptr || random_() % one_time_of != 0) return;
    block().ready.push_back(current_);
    current_->fiber.suspend();
  }

  void barrier(int id, int expected, const char* what, Site site);

  void defer(const void* owner, int64_t group, bool in_order, std::function<void()> work) {
    block().deferred.push_back({owner, group, in_order, std::move(work)});
  }
  // Does what `owner` deferred in groups below `group`.
  void settle(const void* owner, int64_t group);

  void poison(void* memory, size_t bytes) const;

  [[noreturn]] __attribute__((format(printf, 2, 3))) void fail(const char* format, ...);
  // After a lane's or thread's exit: those who waited for it may go on. Set by warp.h.
  void (*on_exit)(Thread&) = nullptr;

 private:
  static void thread_main();
  void begin(uint3 index);
  void activate(Block& block);
  void step(Block& block);
  void end(Block& block);
  bool do_deferred(Block& block);
  void check_guards(Block& block);
  [[noreturn]] void report_deadlock();
  std::string place() const;
  void release_barriers(Block& block);

  std::mt19937_64 random_;
  const void* kernel_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  dim3 grid_, block_;
  size_t shared_bytes_ = 0;
  unsigned eagerness_ = 0;  // of 256 steps, how many do deferred work unasked
  uint16_t poison_ = 0;
  Memory statics_{};
  std::vector<std::unique_ptr<Block>> resident_;
  std::vector<std::unique_ptr<Thread>> spare_threads_;
  Block* active_ = nullptr;
  Thread* current_ = nullptr;
  std::string failure_;
};
inline Machine machine;

// NaN of every width; then numbers near zero; then numbers near one.
constexpr uint16_t kPoisons[] = {0xFFA5, 0x8080, 0x3C3C};

inline void Machine::poison(void* memory, size_t bytes) const {
  auto* to = static_cast<unsigned char*>(memory);
  for (size_t i = 0; i < bytes; ++i) {
    to[i] = static_cast<unsigned char>(poison_ >> (i % 2 * 8));
  }
}

inline bool Machine::is_shared(const void* pointer, size_t bytes, bool dynamic_only) {
  const auto* p = static_cast<const unsigned char*>(pointer);
  const Block& b = block();
  if (p >= b.shared && p + bytes <= b.shared + b.shared_bytes) return true;
  return !dynamic_only && p >= statics_.start && p + bytes <= statics_.start + statics_.bytes;
}

inline std::string Machine::place() const {
  std::string text = "kernel " + function_name(kernel_);
  if (active_ != nullptr) {
    const uint3 b = active_->index;
    text += ", block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " +
            std::to_string(b.z) + ")";
  }
  if (current_ != nullptr) text += ", thread " + std::to_string(current_->number);
  return text;
}

inline void Machine::fail(const char* format, ...) {
  char message[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  const std::string text = place() + ": " + message;
  if (current_ == nullptr) throw std::runtime_error(text);
  failure_ = text;  // thrown by the scheduler, on the caller's stack; this fiber never goes on
  for (;;) current_->fiber.suspend();
}

inline void Machine::release_barriers(Block& b) {
  for (NamedBarrier& barrier : b.barriers) {
    const int expected = barrier.expected > 0 ? barrier.expected : b.live;
    if (barrier.waiting.empty() || static_cast<int>(barrier.waiting.size()) < expected) continue;
    for (Thread* thread : std::exchange(barrier.waiting, {})) wake(*thread);
  }
}

// `expected` 0 stands for all threads that have not returned.
inline void Machine::barrier(int id, int expected, const char* what, Site site) {
  check_guards(block());
  NamedBarrier& barrier = block().barriers.at(static_cast<size_t>(id));
  if (!barrier.waiting.empty() && barrier.expected != expected) {
    fail("%s at %s: others wait at barrier %d for %d threads, this one for %d", what,
         site.text().c_str(), id, barrier.expected, expected);
  }
  barrier.expected = expected;
  barrier.waiting.push_back(current_);
  current_->waiting = true;
  release_barriers(block());
  current_->waits_for = current_->waiting ? std::string(what) + " at " + site.text() : "";
  current_->fiber.suspend();
}

inline void Machine::settle(const void* owner, int64_t group) {
  std::vector<Deferred>& all = block().deferred;
  std::vector<std::function<void()>> due;
  for (size_t i = 0; i < all.size();) {
    if (all[i].owner == owner && all[i].group < group) {
      due.push_back(std::move(all[i].work));
      all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  for (const auto& work : due) work();
}

// One piece of deferred work, any that may be next.
inline bool Machine::do_deferred(Block& b) {
  if (b.deferred.empty()) return false;
  activate(b);
  size_t chosen = random_() % b.deferred.size();
  if (b.deferred[chosen].in_order) {
    for (size_t i = 0; i < chosen; ++i) {
      if (b.deferred[i].owner == b.deferred[chosen].owner) chosen = i;
    }
  }
  const auto work = std::move(b.deferred[chosen].work);
  b.deferred.erase(b.deferred.begin() + static_cast<std::ptrdiff_t>(chosen));
  work();
  return true;
}

inline void Machine::activate(Block& b) {
  blockIdx = b.index;
  if (active_ == &b) return;
  if (active_ != nullptr) {
    active_->statics.assign(statics_.start, statics_.start + statics_.bytes);
  }
  std::copy(b.statics.begin(), b.statics.end(), statics_.start);
  active_ = &b;
}

inline void Machine::thread_main() {
  machine.current_->fiber.entered();
  (*machine.body_)();
  machine.current_->finished = true;
  machine.current_->fiber.suspend();
  std::abort();  // a finished thread is never resumed
}

inline void Machine::begin(uint3 index) {
  auto b = std::make_unique<Block>();
  b->index = index;
  const size_t aligned = (shared_bytes_ + 1023) / 1024 * 1024;
  if (CUDA_EMULATION_ASAN) {  // its own red zones, which also see reads
    b->memory.reset(static_cast<unsigned char*>(std::aligned_alloc(1024, aligned + 1024)));
    // The end, not the start, lies against a red zone when the size is no multiple of 1024.
    b->shared = b->memory.get();
  } else {
    b->memory.reset(static_cast<unsigned char*>(std::aligned_alloc(1024, aligned + 2 * kGuard)));
    std::memset(b->memory.get(), kGuardByte, aligned + 2 * kGuard);
    b->shared = b->memory.get() + kGuard;
  }
  b->shared_bytes = shared_bytes_;
  poison(b->shared, shared_bytes_);
  b->async_view.resize(shared_bytes_);
  poison(b->async_view.data(), shared_bytes_);
  b->statics.resize(statics_.bytes);
  poison(b->statics.data(), statics_.bytes);
  const auto n_threads = static_cast<int>(block_.x * block_.y * block_.z);
  b->live = n_threads;
  for (int i = 0; i < n_threads; ++i) {
    std::unique_ptr<Thread> t;
    if (spare_threads_.empty()) {
      t = std::make_unique<Thread>();
    } else {
      t = std::move(spare_threads_.back());
      spare_threads_.pop_back();
    }
    const auto u = static_cast<unsigned>(i);
    t->index = {u % block_.x, u / block_.x % block_.y, u / (block_.x * block_.y)};
    t->block = b.get();
    t->number = i;
    t->finished = t->waiting = false;
    t->arrival = {};
    t->copy_group = 0;
    t->waits_for.clear();
    t->fiber.start(&Machine::thread_main);
    b->ready.push_back(t.get());
    b->threads.push_back(std::move(t));
  }
  resident_.push_back(std::move(b));
}

inline void Machine::step(Block& b) {
  activate(b);
  const size_t chosen = random_() % b.ready.size();
  std::swap(b.ready[chosen], b.ready.back());
  Thread* thread = b.ready.back();
  b.ready.pop_back();
  threadIdx = thread->index;
  current_ = thread;
  thread->fiber.resume();
  current_ = nullptr;
  if (!failure_.empty()) throw std::runtime_error(failure_);
  if (!thread->finished) return;
  --b.live;
  on_exit(*thread);
  release_barriers(b);
}

inline void Machine::check_guards(Block& b) {
  if (CUDA_EMULATION_ASAN) return;
  const unsigned char* end = b.shared + b.shared_bytes;
  const size_t after = (1024 - b.shared_bytes % 1024) % 1024 + kGuard;
  const auto whole = [](unsigned char byte) { return byte == kGuardByte; };
  if (!std::all_of(b.shared - kGuard, b.shared, whole)) {
    fail("a thread wrote before the start of the dynamic shared memory");
  }
  const unsigned char* touched = std::find_if_not(end, end + after, whole);
  if (touched != end + after) {
    fail("a thread wrote %zd bytes past the %zu bytes of dynamic shared memory", touched - end,
         b.shared_bytes);
  }
}

inline void Machine::end(Block& b) {
  activate(b);
  check_guards(b);
  for (const Deferred& left : b.deferred) {
    // A thread's own cp.async may be left; hardware drops them with the block.
    if (left.owner == nullptr) fail("returned while a bulk copy was under way");
  }
  for (const WarpGroup& group : b.groups) {
    if (!group.under_way.empty()) fail("returned without waiting for its wgmma");
  }
  for (auto& thread : b.threads) spare_threads_.push_back(std::move(thread));
  active_ = nullptr;
}

inline void Machine::report_deadlock() {
  std::string text = "deadlock, nothing can go on:";
  for (const auto& b : resident_) {
    std::map<std::string, std::vector<int>> places;
    for (const auto& t : b->threads) {
      if (!t->finished) places[t->waits_for].push_back(t->number);
    }
    for (const auto& [what, numbers] : places) {
      text += " block " + std::to_string(b->index.x) + ": " + std::to_string(numbers.size()) +
              " threads (" + std::to_string(numbers.front()) + " to " +
              std::to_string(numbers.back()) + ") wait at " + what + ";";
    }
  }
  active_ = nullptr;
  fail("%s", text.c_str());
}

inline void Machine::run(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                         const std::function<void()>& body) {
  kernel_ = kernel;
  body_ = &body;
  grid_ = grid;
  block_ = block;
  shared_bytes_ = shared_bytes;
  active_ = nullptr;
  current_ = nullptr;
  failure_.clear();
  resident_.clear();
  random_.seed(settings.seed);
  poison_ = kPoisons[settings.seed % 3];
  const unsigned eagerness[] = {0, 1, 128};
  eagerness_ = eagerness[random_() % 3];
  statics_ = thread_local_memory();
  if (block.x * block.y * block.z > 1024) fail("more than 1024 threads in a block");
  if (block.z > 64 || grid.y > 65535 || grid.z > 65535) fail("a dimension is too large");
  if (uint64_t{grid.x} * grid.y * grid.z * block.x * block.y * block.z == 0) fail("empty launch");
  if (shared_bytes > settings.shared_limit) fail("%zu bytes of shared memory", shared_bytes);
  blockDim = block;
  gridDim = grid;
  std::vector<uint32_t> order(uint64_t{grid.x} * grid.y * grid.z);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  std::shuffle(order.begin(), order.end(), random_);
  const size_t together = 1 + random_() % 3;  // blocks on the machine at a time
  size_t next = 0;
  size_t turn = 0;
  while (next < order.size() || !resident_.empty()) {
    while (next < order.size() && resident_.size() < together) {
      const uint32_t i = order[next++];
      begin({i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)});
    }
    if (turn >= resident_.size() || random_() % 64 == 0) turn = random_() % resident_.size();
    if (random_() % 256 < eagerness_) do_deferred(*resident_[turn]);
    // The block whose turn it is, or any that can go on.
    bool went = false;
    for (size_t i = 0; i < resident_.size() && !went; ++i) {
      const size_t at = (turn + i) % resident_.size();
      if (resident_[at]->ready.empty()) continue;
      turn = at;
      step(*resident_[at]);
      went = true;
    }
    for (size_t i = 0; i < resident_.size() && !went; ++i) went = do_deferred(*resident_[i]);
    if (!went) report_deadlock();
    if (resident_[turn]->live == 0) {
      end(*resident_[turn]);
      resident_.erase(resident_.begin() + static_cast<std::ptrdiff_t>(turn));
    }
  }
  kernel_ = nullptr;
}

// As kernel<<<grid, block, shared_bytes>>>(args...).
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, const A&... args) {
  machine.run(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
              [&] { kernel(args...); });
}

}  // namespace cuda_emulation

#define __shared__ static thread_local

inline void __syncthreads(cuda_emulation::Site site = cuda_emulation::Site::here()) {
  cuda_emulation::machine.barrier(0, 0, "__syncthreads", site);
}
