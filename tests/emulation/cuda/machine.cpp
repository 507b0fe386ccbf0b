#include "machine.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <stdexcept>

#include "async_copy.h"
#include "symbols.h"
#include "warp.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_emulation {

Settings settings;
Machine machine;

// Initial contents of memory: NaN of every width, numbers near zero, numbers near one.
constexpr uint16_t kPoisons[] = {0xFFA5, 0x8080, 0x3C3C};
// How many of 256 steps do deferred work although no thread waits for it: none, few, many.
constexpr unsigned kEagerness[] = {0, 1, 128};

void Machine::poison(void* memory, size_t bytes) const {
  auto* to = static_cast<unsigned char*>(memory);
  const auto low = static_cast<unsigned char>(poison_),
             high = static_cast<unsigned char>(poison_ >> 8);
  for (size_t i = 0; i + 1 < bytes; i += 2) to[i] = low, to[i + 1] = high;
  if (bytes % 2 != 0) to[bytes - 1] = low;
}

std::string Machine::place() const {
  std::string text = "kernel " + function_name(kernel_);
  if (active_ != nullptr) {
    const uint3 b = active_->index;
    text += ", block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " +
            std::to_string(b.z) + ")";
  }
  if (current_ != nullptr) text += ", thread " + std::to_string(current_->number);
  return text;
}

void Machine::fail(const char* format, ...) {
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

void Machine::park(const Wait& waits_for) {
  Thread& me = *current_;
  me.waiting = true;
  me.waits_for = waits_for;
  me.fiber.suspend();
}

void Machine::wake(Thread& thread) {
  if (!thread.waiting) return;
  thread.waiting = false;
  thread.block->ready.push_back(&thread);
}

void Machine::yield(unsigned one_time_of) {
  if (current_ == nullptr || random_() % one_time_of != 0) return;
  block().ready.push_back(current_);
  change_block_ = true;
  current_->fiber.suspend();
}

void Machine::order(const std::vector<Thread*>& group) {
  Clock all;
  for (const Thread* t : group) all.learn(t->clock);
  for (Thread* t : group) {
    t->clock.learn(all);
    t->clock.tick(t->number);
  }
}

void Machine::defer(const void* owner, int64_t group, bool in_order, std::function<void()> work) {
  block().deferred.push_back({owner, group, next_number_++, in_order, std::move(work)});
}

void Machine::release_barriers(Block& b) {
  for (NamedBarrier& barrier : b.barriers) {
    const int expected = barrier.expected > 0 ? barrier.expected : b.live;
    if (barrier.waiting.empty() || static_cast<int>(barrier.waiting.size()) < expected) continue;
    order(barrier.waiting);
    for (Thread* thread : std::exchange(barrier.waiting, {})) wake(*thread);
  }
}

// `expected` 0 means all threads that have not returned.
void Machine::barrier(int id, int expected, const char* what, Site site) {
  if (id < 0 || id > 15 || expected % 32 != 0) {
    fail("%s at %s: barrier %d of %d threads", what, site.text().c_str(), id, expected);
  }
  NamedBarrier& barrier = block().barriers[static_cast<size_t>(id)];
  if (!barrier.waiting.empty() && barrier.expected != expected) {
    fail("%s at %s: others wait at barrier %d for %d threads, this one for %d", what,
         site.text().c_str(), id, barrier.expected, expected);
  }
  barrier.expected = expected;
  barrier.waiting.push_back(current_);
  current_->waiting = true;
  current_->waits_for = {what, site, nullptr};
  release_barriers(block());
  current_->fiber.suspend();
}

// Removes an element of a vector, and puts the last element in its place.
static Deferred remove(std::vector<Deferred>& all, size_t at) {
  Deferred removed = std::move(all[at]);
  if (at + 1 < all.size()) all[at] = std::move(all.back());
  all.pop_back();
  return removed;
}

void Machine::settle(const void* owner, int64_t group) {
  // The last element takes the place of a removed one, because a block may have thousands.
  std::vector<Deferred>& all = block().deferred;
  std::vector<Deferred> due;
  for (size_t i = 0; i < all.size();) {
    if (all[i].owner == owner && all[i].group < group) {
      due.push_back(remove(all, i));
    } else {
      ++i;
    }
  }
  const auto earlier = [](const Deferred& a, const Deferred& b) { return a.number < b.number; };
  std::sort(due.begin(), due.end(), earlier);
  for (const Deferred& each : due) each.work();
}

// Does one piece of deferred work, chosen among those that may be next.
bool Machine::do_deferred(Block& b) {
  if (b.deferred.empty()) return false;
  activate(b);
  size_t chosen = random_() % b.deferred.size();
  if (b.deferred[chosen].in_order) {
    for (size_t i = 0; i < b.deferred.size(); ++i) {
      const Deferred &one = b.deferred[i], &other = b.deferred[chosen];
      if (one.owner == other.owner && one.number < other.number) chosen = i;
    }
  }
  remove(b.deferred, chosen).work();
  return true;
}

void Machine::activate(Block& b) {
  blockIdx = b.index;
  if (active_ == &b) return;
  if (active_ != nullptr) {
    active_->statics.assign(statics_.start, statics_.start + statics_.bytes);
  }
  std::copy(b.statics.begin(), b.statics.end(), statics_.start);
  active_ = &b;
}

void Machine::thread_main() {
  (*machine.body_)();
  machine.current_->finished = true;
  machine.current_->fiber.suspend();
  std::abort();  // a finished thread is never resumed
}

void Machine::begin(uint3 index) {
  auto b = std::make_unique<Block>();
  b->index = index;
  const size_t aligned = (shared_bytes_ + 1023) / 1024 * 1024;
  b->memory.reset(static_cast<unsigned char*>(std::aligned_alloc(1024, aligned + 2 * kGuard)));
  std::memset(b->memory.get(), kGuardByte, aligned + 2 * kGuard);
  b->shared = b->memory.get() + kGuard;
  b->shared_bytes = shared_bytes_;
  poison(b->shared, shared_bytes_);
  b->async_view.resize(shared_bytes_);
  poison(b->async_view.data(), shared_bytes_);
  b->dynamic_log.reset(b->shared, shared_bytes_);
  b->static_log.reset(statics_.start, statics_.bytes);
  b->global_log.reset(arena.start, arena.used());
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
    t->clock.reset(n_threads);
    t->clock.tick(i);
    t->fiber.start(&Machine::thread_main);
    b->ready.push_back(t.get());
    b->threads.push_back(std::move(t));
  }
  resident_.push_back(std::move(b));
}

void Machine::step(Block& b) {
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
  complete_after_exit(*thread);
  release_barriers(b);
}

void Machine::end(Block& b) {
  activate(b);
  check_guards(b);
  for (const Deferred& left : b.deferred) {
    // A thread may end before its cp.async copies are done. The hardware drops them.
    if (left.owner == nullptr) fail("returned while a bulk copy was under way");
  }
  for (const WarpGroup& group : b.groups) {
    if (!group.under_way.empty()) fail("returned without waiting for its wgmma");
  }
  for (auto& thread : b.threads) spare_threads_.push_back(std::move(thread));
  active_ = nullptr;
}

void Machine::report_deadlock() {
  std::string text = "deadlock, nothing can go on:";
  for (const auto& b : resident_) {
    active_ = b.get();
    std::map<std::string, std::vector<int>> places;
    for (const auto& t : b->threads) {
      if (t->finished) continue;
      std::string at = t->waits_for.what + (" at " + t->waits_for.site.text());
      if (t->waits_for.barrier != nullptr) at += " on the " + barrier_name(t->waits_for.barrier);
      places[at].push_back(t->number);
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

void Machine::run(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                  const std::function<void()>& body) {
  launches.emplace_back(kernel, block.x * block.y * block.z);
  kernel_ = kernel;
  body_ = &body;
  grid_ = grid;
  block_ = block;
  shared_bytes_ = shared_bytes;
  active_ = nullptr;
  current_ = nullptr;
  failure_.clear();
  quiet_ = 0;
  resident_.clear();
  random_.seed(settings.seed);
  // Three consecutive seeds cover all of these choices.
  const auto choice = static_cast<size_t>(settings.seed % 3);
  poison_ = kPoisons[choice];
  eagerness_ = kEagerness[choice];
  const size_t together = choice + 1;  // blocks on the machine at a time
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
  size_t next = 0;
  size_t turn = 0;
  while (next < order.size() || !resident_.empty()) {
    while (next < order.size() && resident_.size() < together) {
      const uint32_t i = order[next++];
      begin({i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)});
    }
    if (turn >= resident_.size() || change_block_ || random_() % 64 == 0) {
      turn = random_() % resident_.size();
      change_block_ = false;
    }
    if (random_() % 256 < eagerness_) do_deferred(*resident_[turn]);
    // The block whose turn it is, or else any block that can continue.
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

}  // namespace cuda_emulation
