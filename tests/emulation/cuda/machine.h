// The emulated device. Runs a kernel block by block, and the threads of a block as fibers. A seed
// shuffles the order of the threads, so that a missing barrier causes a wrong result.
//
// A fiber runs until it waits for other threads at a barrier (machine.h), a warp collective
// (warp.h) or an mbarrier (async_copy.h). Asynchronous work is queued and done at a random later
// moment. access_hooks.cpp checks every memory access of a kernel.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "access.h"
#include "fiber.h"

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Set whenever a fiber continues. Not thread-local, because thread-local variables are the block's
// shared memory.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace cuda_emulation {

struct Memory {
  unsigned char* start;
  size_t bytes;
};

// The place in a source file where a primitive was called.
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

// The settings of the emulation, which tests can change.
struct Settings {
  uint64_t seed = 0;
  int capability = 90;  // ten times the compute capability
  int multiprocessors = 4;
  size_t shared_limit = 227 << 10;  // bytes that a block may opt in to
};
extern Settings settings;

// splitmix64
class Random {
 public:
  using result_type = uint64_t;
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t{0}; }
  void seed(uint64_t seed) { state_ = seed; }
  uint64_t operator()() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
  }

 private:
  uint64_t state_ = 0;
};

struct Block;

// A lane's part in a collective of its warp or warpgroup.
struct Arrival {
  const char* what = nullptr;  // nullptr: the lane does not wait at a collective
  uint32_t mask = 0;
  void (*complete)(void* const* calls) = nullptr;
  void* call = nullptr;
  Site site;
};

struct Wait {
  const char* what = "";
  Site site;
  const void* barrier = nullptr;  // an mbarrier
};

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  uint3 index{};
  int number = 0;
  bool finished = false;
  bool waiting = false;
  Wait waits_for;
  Arrival arrival;
  int64_t copy_group = 0;  // cp.async groups committed
  Clock clock;
};

// Work that the hardware does at a later time.
struct Deferred {
  const void* owner;  // the owner of the group
  int64_t group;
  uint64_t number;  // increases with each work
  bool in_order;    // after the owner's earlier work
  std::function<void()> work;
};

constexpr size_t kGuard = 4096;  // bytes before and after the dynamic shared memory
constexpr unsigned char kGuardByte = 0xC3;

struct NamedBarrier {
  int expected = 0;
  std::vector<Thread*> waiting;
};

// The accumulators of one wgmma. Threads must not access them until they have waited for the wgmma.
struct Accumulator {
  std::vector<void*> threads;    // where each thread keeps its part
  std::vector<uint32_t> values;  // [64, 256], bits of int32 or float
  int pending = 0;
  int64_t last_group = 0;
};

// Sums that a thread has waited for. They become visible when the thread fences them, because until
// then a compiler may have read the registers before the wait.
using FinishedSums = std::map<void*, std::vector<uint32_t>>;  // by the thread's part

// The operands that a wgmma reads.
struct Operands {
  int64_t group;
  uint64_t a, b;  // descriptors
};

struct WarpGroup {
  int64_t committed = 0;
  int64_t fences = 0;
  std::map<void*, Accumulator> under_way;  // by the first thread's part
  std::map<void*, int64_t> handed_back;    // the number of fences at that time
  FinishedSums finished;
  std::vector<Operands> reading;  // of wgmmas that no thread has waited for
};

struct Block {
  uint3 index{};
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Thread*> ready;
  int live = 0;
  std::unique_ptr<unsigned char, void (*)(void*)> memory{nullptr, std::free};
  unsigned char* shared = nullptr;  // dynamic
  size_t shared_bytes = 0;
  std::vector<unsigned char> async_view;  // shared memory as the asynchronous proxy sees it
  std::vector<unsigned char> statics;     // static shared memory while another block runs
  std::array<NamedBarrier, 16> barriers;
  std::vector<Deferred> deferred;
  AccessLog dynamic_log, static_log, global_log;                    // of this block's threads
  std::map<const void*, Clock> barrier_arriving, barrier_released;  // of mbarriers
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
  void park(const Wait& waits_for);
  void wake(Thread& thread);
  // May let other threads run first, of this block or of another.
  void yield(unsigned one_time_of = 4);

  // Checks a kernel's access to memory.
  void access(const void* pointer, size_t bytes, AccessKind kind);
  // Checks an access within bounds by any thread, not only by the running one.
  void enter(const Thread& thread, const void* pointer, size_t bytes, AccessKind kind);
  Arena arena;

  // The kernels launched so far, and the threads of a block.
  std::vector<std::pair<const void*, unsigned>> launches;

  // Orders the threads of `group` after each other's previous accesses.
  static void order(const std::vector<Thread*>& group);

  void barrier(int id, int expected, const char* what, Site site);

  void defer(const void* owner, int64_t group, bool in_order, std::function<void()> work);
  // Does the deferred work of `owner` in groups below `group`.
  void settle(const void* owner, int64_t group);

  void poison(void* memory, size_t bytes) const;

  // While an object lives, accesses are not checked, because the emulation makes them.
  struct Quiet {
    Quiet();
    ~Quiet();
  };

  [[noreturn]] __attribute__((format(printf, 2, 3))) void fail(const char* format, ...);

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
  [[noreturn]] void report_out_of_bounds(const unsigned char* p, size_t bytes, AccessKind kind);
  void release_barriers(Block& block);

  Random random_;
  const void* kernel_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  dim3 grid_, block_;
  size_t shared_bytes_ = 0;
  unsigned eagerness_ = 0;
  uint64_t next_number_ = 0;
  uint16_t poison_ = 0;
  Memory statics_{};
  std::vector<std::unique_ptr<Block>> resident_;
  std::vector<std::unique_ptr<Thread>> spare_threads_;
  Block* active_ = nullptr;
  Thread* current_ = nullptr;
  bool change_block_ = false;
  std::string failure_;
  int quiet_ = 0;
};
extern Machine machine;

// Runs kernel<<<grid, block, shared_bytes>>>(args...).
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, const A&... args) {
  machine.run(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
              [&] { kernel(args...); });
}

}  // namespace cuda_emulation

// The module's thread-local variables are the block's static shared memory.
#define __shared__ static thread_local

inline void __syncthreads(cuda_emulation::Site site = cuda_emulation::Site::here()) {
  cuda_emulation::machine.barrier(0, 0, "__syncthreads", site);
}
