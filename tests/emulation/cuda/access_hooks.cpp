// Kernels are compiled with -fsanitize=thread and -fsanitize=bounds. So every memory access, and
// every index outside the bounds of an array's type, calls one of these functions. The emulated
// machine checks the accesses instead of the compiler's own library.
#include <algorithm>

#include "machine.h"

namespace cuda_emulation {

Machine::Quiet::Quiet() { ++machine.quiet_; }
Machine::Quiet::~Quiet() { --machine.quiet_; }

bool Machine::is_shared(const void* pointer, size_t bytes, bool dynamic_only) {
  const auto* p = static_cast<const unsigned char*>(pointer);
  const Block& b = block();
  if (p >= b.shared && p + bytes <= b.shared + b.shared_bytes) return true;
  return !dynamic_only && p >= statics_.start && p + bytes <= statics_.start + statics_.bytes;
}

static const char* verb(AccessKind kind) {
  return kind == AccessKind::read ? "reads" : kind == AccessKind::write ? "writes" : "changes";
}

void Machine::access(const void* pointer, size_t bytes, AccessKind kind) {
  if (current_ == nullptr || quiet_ > 0) return;
  const auto* p = static_cast<const unsigned char*>(pointer);
  const Block& b = *active_;
  if (p >= b.shared - kGuard && p < b.shared + b.shared_bytes + kGuard) {
    if (p < b.shared || p + bytes > b.shared + b.shared_bytes) {
      fail("%s %zu bytes at byte %td of %zu bytes of dynamic shared memory", verb(kind), bytes,
           p - b.shared, b.shared_bytes);
    }
    enter(*current_, p, bytes, kind);
  } else if (b.static_log.holds(p)) {
    enter(*current_, p, bytes, kind);
  } else if (arena.holds(p)) {
    if (!arena.allows(p, bytes)) report_out_of_bounds(p, bytes, kind);
    enter(*current_, p, bytes, kind);
  }
}

void Machine::enter(const Thread& thread, const void* pointer, size_t bytes, AccessKind kind) {
  if (kind == AccessKind::atomic) return;
  const auto* p = static_cast<const unsigned char*>(pointer);
  Block& b = *thread.block;
  const bool dynamic = b.dynamic_log.holds(p), fixed = b.static_log.holds(p);
  AccessLog& log = dynamic ? b.dynamic_log : fixed ? b.static_log : b.global_log;
  const int other = log.enter(p, bytes, kind == AccessKind::write, thread.number, thread.clock);
  if (other < 0) return;
  const std::string where = dynamic
                                ? "dynamic shared memory at byte " + std::to_string(p - b.shared)
                            : fixed ? "static shared memory"
                                    : "global memory";
  fail("race: thread %d %s %zu bytes of %s, and nothing orders that with an access of thread %d",
       thread.number, verb(kind), bytes, where.c_str(), other);
}

void Machine::report_out_of_bounds(const unsigned char* p, size_t bytes, AccessKind kind) {
  const std::pair<const unsigned char*, size_t>* nearest = nullptr;
  for (const auto& array : arena.arrays) {
    if (array.first <= p && (nearest == nullptr || array.first > nearest->first)) nearest = &array;
  }
  if (nearest == nullptr) fail("%s before the start of every array", verb(kind));
  fail("%s %zu bytes at byte %td of an array of %zu bytes", verb(kind), bytes, p - nearest->first,
       nearest->second);
}

void Machine::check_guards(Block& b) {
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

}  // namespace cuda_emulation

using cuda_emulation::AccessKind;
using cuda_emulation::machine;

#define HOOK extern "C" __attribute__((visibility("hidden")))
#define HOOKS(n)                                                                          \
  HOOK void __tsan_read##n(void* p) { machine.access(p, n, AccessKind::read); }           \
  HOOK void __tsan_write##n(void* p) { machine.access(p, n, AccessKind::write); }         \
  HOOK void __tsan_unaligned_read##n(void* p) { machine.access(p, n, AccessKind::read); } \
  HOOK void __tsan_unaligned_write##n(void* p) { machine.access(p, n, AccessKind::write); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

HOOK void __tsan_read_range(void* p, size_t n) { machine.access(p, n, AccessKind::read); }
HOOK void __tsan_write_range(void* p, size_t n) { machine.access(p, n, AccessKind::write); }
HOOK void __tsan_init() {}
HOOK void __tsan_vptr_update(void*, void*) {}
HOOK void __tsan_vptr_read(void*) {}
// The guards of static variables.
HOOK char __tsan_atomic8_load(const volatile char* p, int) {
  return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

namespace {
struct IndexSite {
  const char* file;
  uint32_t line, column;
  const void* array_type;
  const void* index_type;
};
}  // namespace
HOOK void __ubsan_handle_out_of_bounds(const IndexSite* site, uintptr_t index) {
  machine.fail("index %zd at %s is outside the array", static_cast<intptr_t>(index),
               cuda_emulation::Site{site->file, static_cast<int>(site->line)}.text().c_str());
}
