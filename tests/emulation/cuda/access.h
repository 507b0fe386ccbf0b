// Records which thread accessed which word of memory, and how barriers order the threads. Reports
// two accesses to a word that no barrier orders if one of them is a write, in whatever order they
// ran.
//
// The method is that of vector clocks: Flanagan and Freund, "FastTrack: efficient and precise
// dynamic race detection", PLDI 2009. A thread's clock counts the thread's barriers and holds the
// known counts of the other threads. Barriers, __syncwarp and mbarriers order accesses. By the
// definition of the language, shuffles and votes do not.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace cuda_emulation {

// Atomic accesses never count as a race.
enum class AccessKind { read, write, atomic };

class Clock {
 public:
  void reset(int n_threads) { known_.assign(static_cast<size_t>(n_threads), 0); }
  uint32_t of(int thread) const { return known_[static_cast<size_t>(thread)]; }
  void tick(int thread) { ++known_[static_cast<size_t>(thread)]; }
  void learn(const Clock& other) {
    if (known_.size() < other.known_.size()) known_.resize(other.known_.size(), 0);
    for (size_t i = 0; i < other.known_.size(); ++i) {
      if (other.known_[i] > known_[i]) known_[i] = other.known_[i];
    }
  }

 private:
  std::vector<uint32_t> known_;
};

struct Access {
  int thread = -1;  // -1: none yet
  uint32_t clock = 0;
  uint8_t bytes = 0;  // one bit for each byte of the word

  bool conflicts(int other, const Clock& known, uint8_t other_bytes) const {
    return thread >= 0 && thread != other && (bytes & other_bytes) != 0 && clock > known.of(thread);
  }
};

// The accesses to a range of memory. Pages are allocated at the first access.
class AccessLog {
 public:
  void reset(const unsigned char* start, size_t bytes) {
    start_ = start;
    bytes_ = bytes;
    pages_.clear();
    pages_.resize(bytes / kPageBytes + 1);
  }
  bool holds(const unsigned char* p) const { return p >= start_ && p < start_ + bytes_; }

  // Returns the thread of an earlier access that races with this access, or -1.
  int enter(const unsigned char* p, size_t bytes, bool write, int thread, const Clock& known) {
    int conflict = -1;
    auto at = static_cast<size_t>(p - start_);
    for (const size_t end = at + bytes; at < end;) {
      const size_t in_word = std::min(end, (at / 4 + 1) * 4) - at;
      const auto mask = static_cast<uint8_t>(((1u << in_word) - 1) << at % 4);
      Word& word = word_at(at);
      const int other =
          write ? enter_write(word, mask, thread, known) : enter_read(word, mask, thread, known);
      if (other >= 0) conflict = other;
      at += in_word;
    }
    return conflict;
  }

 private:
  struct Word {
    Access written;
    std::vector<Access> read;  // by threads that are not ordered
  };
  static constexpr size_t kPageBytes = 256;
  using Page = std::array<Word, kPageBytes / 4>;

  Word& word_at(size_t at) {
    auto& page = pages_[at / kPageBytes];
    if (page == nullptr) page = std::make_unique<Page>();
    return (*page)[at % kPageBytes / 4];
  }

  static int enter_write(Word& word, uint8_t mask, int thread, const Clock& known) {
    int conflict = word.written.conflicts(thread, known, mask) ? word.written.thread : -1;
    for (const Access& r : word.read) {
      if (r.conflicts(thread, known, mask)) conflict = r.thread;
    }
    word.read.clear();
    if (word.written.thread == thread && word.written.clock == known.of(thread)) {
      word.written.bytes |= mask;
    } else {
      word.written = {thread, known.of(thread), mask};
    }
    return conflict;
  }

  static int enter_read(Word& word, uint8_t mask, int thread, const Clock& known) {
    size_t kept = 0;
    for (const Access& r : word.read) {
      if (r.thread == thread) {
        mask |= r.bytes;
      } else if (r.clock > known.of(r.thread)) {
        word.read[kept++] = r;
      }
    }
    word.read.resize(kept);
    word.read.push_back({thread, known.of(thread), mask});
    return word.written.conflicts(thread, known, mask) ? word.written.thread : -1;
  }

  const unsigned char* start_ = nullptr;
  size_t bytes_ = 0;
  std::vector<std::unique_ptr<Page>> pages_;
};

// The arrays that kernels may access. All lie in one arena with gaps between them. An access to the
// arena outside every array is out of bounds.
struct Arena {
  const unsigned char* start = nullptr;
  size_t bytes = 0;
  std::vector<std::pair<const unsigned char*, size_t>> arrays;

  bool holds(const unsigned char* p) const { return p >= start && p < start + bytes; }
  // The number of bytes up to the end of the last array.
  size_t used() const {
    size_t end = 0;
    for (const auto& a : arrays) {
      end = std::max(end, static_cast<size_t>(a.first - start) + a.second);
    }
    return end;
  }
  bool allows(const unsigned char* p, size_t n) {
    for (size_t i = 0; i < arrays.size(); ++i) {
      if (p < arrays[i].first || p + n > arrays[i].first + arrays[i].second) continue;
      if (i != 0) std::swap(arrays[i], arrays[0]);  // the next access is probably near
      return true;
    }
    return false;
  }
};

}  // namespace cuda_emulation
