#include "tensor_core.h"

#include <xmmintrin.h>

#include <algorithm>
#include <cstring>

#include "async_copy.h"
#include "common/element.h"
#include "warp.h"

namespace cuda_emulation {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

struct LoadMatrices {
  uint32_t* r;  // [4]
  const unsigned char* row;

  // Lane l names row l % 8 of matrix l / 8 and receives the four bytes l % 4 of row l / 4 of each.
  static void complete(LoadMatrices* const (&lanes)[kLanes]) {
    for (int l = 0; l < kLanes; ++l) {
      for (int matrix = 0; matrix < 4; ++matrix) {
        std::memcpy(&lanes[l]->r[matrix], lanes[8 * matrix + l / 4]->row + 4 * (l % 4), 4);
      }
    }
  }
};

void ldmatrix_x4(uint32_t* r, const void* row, Site site) {
  if (!machine.is_shared(row, 16) || reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    machine.fail("ldmatrix: a row is 16 aligned bytes of the block's shared memory");
  }
  machine.access(row, 16, AccessKind::read);
  LoadMatrices call{r, static_cast<const unsigned char*>(row)};
  meet_warp("ldmatrix", kAllLanes, call, site);
}

static int8_t byte_of(uint32_t word, int i) { return static_cast<int8_t>(word >> (8 * i)); }
static float half_of(uint32_t word, int i) {
  return ktfast::to_float(ktfast::float16_bits{static_cast<uint16_t>(word >> (16 * i))});
}

// Adds products to sums in truncated float32, as tensor cores do. The product of two float16
// numbers is exact.
__attribute__((noinline)) static void add_product_truncated(const float* a, const float* b, int n,
                                                            float* sum) {
  const unsigned mode = _MM_GET_ROUNDING_MODE();
  _MM_SET_ROUNDING_MODE(_MM_ROUND_TOWARD_ZERO);
  volatile float total = *sum;
  for (int i = 0; i < n; ++i) total = total + a[i] * b[i];
  *sum = total;
  _MM_SET_ROUNDING_MODE(mode);
}
static void add_product(const float* a, const float* b, int n, float* sum) {
  add_product_truncated(a, b, n, sum);
}
static void add_product(const int8_t* a, const int8_t* b, int n, int32_t* sum) {
  uint32_t total = static_cast<uint32_t>(*sum);  // wraps around
  for (int i = 0; i < n; ++i) total += static_cast<uint32_t>(a[i] * b[i]);
  *sum = static_cast<int32_t>(total);
}

// m16n8k32 of int8, and m16n8k16 of float16. A register holds `n` neighbours of a row.
template <class Element, class Sum, int n, Element (*part)(uint32_t, int)>
struct Mma {
  Sum* c;             // [4]
  const uint32_t* a;  // [4]
  const uint32_t* b;  // [2]

  static void complete(Mma* const (&lanes)[kLanes]) {
    constexpr int k = 8 * n;
    Element a[16][k], b[8][k];  // b by columns
    for (int l = 0; l < kLanes; ++l) {
      for (int i = 0; i < n; ++i) {
        const int column = l % 4 * n + i;
        for (int r = 0; r < 4; ++r) {
          a[l / 4 + r % 2 * 8][column + r / 2 * k / 2] = part(lanes[l]->a[r], i);
        }
        for (int r = 0; r < 2; ++r) b[l / 4][column + r * k / 2] = part(lanes[l]->b[r], i);
      }
    }
    for (int l = 0; l < kLanes; ++l) {
      for (int i = 0; i < 4; ++i) {
        add_product(a[l / 4 + i / 2 * 8], b[l % 4 * 2 + i % 2], k, &lanes[l]->c[i]);
      }
    }
  }
};
using MmaInt8 = Mma<int8_t, int32_t, 4, byte_of>;
using MmaHalf = Mma<float, float, 2, half_of>;

void mma_s8(int32_t* c, const uint32_t* a, const uint32_t* b, Site site) {
  MmaInt8 call{c, a, b};
  meet_warp("mma.m16n8k32.s8", kAllLanes, call, site);
}
void mma_f16(float* c, const uint32_t* a, const uint32_t* b, Site site) {
  MmaHalf call{c, a, b};
  meet_warp("mma.m16n8k16.f16", kAllLanes, call, site);
}

// --- wgmma
constexpr int kWgmmaRows = 64;
constexpr int kWgmmaColumns = 256;
constexpr int kWgmmaBytes = 32;  // of a row of A or B, along K

constexpr size_t kPiece = 16;  // bytes of a row within a core matrix

// The offsets of an operand's pieces in shared memory, row by row, two pieces per row. The layout
// is K-major without swizzle, with contiguous core matrices of 8 rows x 16 bytes.
static std::vector<size_t> pieces(uint64_t descriptor, int rows) {
  const auto field = [&](int at) { return static_cast<size_t>(descriptor >> at & 0x3FFF) * 16; };
  const size_t start = field(0), leading = field(16), stride = field(32);
  if (descriptor >> 62 != 0) machine.fail("wgmma: the emulation knows layouts without swizzle");
  std::vector<size_t> all;
  for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
    for (size_t half = 0; half < kWgmmaBytes / kPiece; ++half) {
      all.push_back(start + row / 8 * stride + half * leading + row % 8 * kPiece);
      if (all.back() + kPiece > machine.block().shared_bytes) {
        machine.fail("wgmma: an operand reaches past the dynamic shared memory");
      }
    }
  }
  return all;
}

static std::vector<unsigned char> wgmma_operand(uint64_t descriptor, int rows) {
  std::vector<unsigned char> operand;
  for (const size_t at : pieces(descriptor, rows)) {
    const unsigned char* piece = &machine.block().async_view[at];
    operand.insert(operand.end(), piece, piece + kPiece);
  }
  return operand;
}

static std::vector<int8_t> elements(const std::vector<unsigned char>& bytes, int32_t) {
  return {bytes.begin(), bytes.end()};
}
static std::vector<float> elements(const std::vector<unsigned char>& bytes, float) {
  std::vector<float> values(bytes.size() / 2);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = half_of(static_cast<uint32_t>(bytes[2 * i] | bytes[2 * i + 1] << 8), 0);
  }
  return values;
}

template <class Sum>
void wgmma_now(Accumulator& to, uint64_t a_descriptor, uint64_t b_descriptor, bool accumulate) {
  const auto a = elements(wgmma_operand(a_descriptor, kWgmmaRows), Sum{});
  const auto b = elements(wgmma_operand(b_descriptor, kWgmmaColumns), Sum{});
  const int k = static_cast<int>(a.size()) / kWgmmaRows;
  for (int m = 0; m < kWgmmaRows; ++m) {
    for (int n = 0; n < kWgmmaColumns; ++n) {
      uint32_t& bits = to.values[static_cast<size_t>(m * kWgmmaColumns + n)];
      Sum sum = accumulate ? bits_as<Sum>(bits) : Sum{};
      add_product(&a[static_cast<size_t>(m * k)], &b[static_cast<size_t>(n * k)], k, &sum);
      bits = bits_as<uint32_t>(sum);
    }
  }
  --to.pending;
}

// The position of element i of thread t in the 64 x 256 matrix.
static size_t wgmma_place(int t, int i) {
  const int row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8;
  const int column = i / 4 * 8 + t % 4 * 2 + i % 2;
  return static_cast<size_t>(row * kWgmmaColumns + column);
}
constexpr int kWgmmaParts = kWgmmaRows * kWgmmaColumns / kGroup;  // elements of a thread

static WarpGroup& group_of(const Thread& t) {
  return t.block->groups[static_cast<size_t>(t.number / kGroup)];
}

template <class Sum>
struct Wgmma {
  Thread* thread;
  Sum* c;  // [128]
  uint64_t a, b;
  bool accumulate;

  static void complete(Wgmma* const (&all)[kGroup]) {
    for (const Wgmma* w : all) {
      if (w == nullptr) machine.fail("wgmma: a thread of the warpgroup has returned");
      if (w->a != all[0]->a || w->b != all[0]->b || w->accumulate != all[0]->accumulate) {
        machine.fail("wgmma: the threads of a warpgroup disagree on the operands");
      }
    }
    WarpGroup& group = group_of(*all[0]->thread);
    Accumulator& to = take(group, all);
    ++to.pending;
    to.last_group = group.committed;
    group.reading.push_back({group.committed, all[0]->a, all[0]->b});
    const uint64_t a = all[0]->a, b = all[0]->b;
    const bool accumulate = all[0]->accumulate;
    machine.defer(&group, group.committed, true,
                  [&to, a, b, accumulate] { wgmma_now<Sum>(to, a, b, accumulate); });
  }

  static Accumulator& take(WarpGroup& group, Wgmma* const (&all)[kGroup]) {
    const auto [at, is_new] = group.under_way.try_emplace(all[0]->c);
    Accumulator& to = at->second;
    if (!is_new) return to;
    const auto back = group.handed_back.find(all[0]->c);
    if (group.fences <= (back == group.handed_back.end() ? 0 : back->second)) {
      machine.fail("wgmma: no wgmma.fence since the accumulators could last be touched");
    }
    to.values.resize(kWgmmaRows * kWgmmaColumns);
    for (int t = 0; t < kGroup; ++t) {
      to.threads.push_back(all[t]->c);
      for (int i = 0; i < kWgmmaParts; ++i) {
        to.values[wgmma_place(t, i)] = bits_as<uint32_t>(all[t]->c[i]);
      }
      machine.poison(all[t]->c, sizeof(Sum) * kWgmmaParts);
    }
    return to;
  }
};

template <class Sum>
void wgmma(const char* what, Sum* c, uint64_t a, uint64_t b, bool accumulate, Site site) {
  Wgmma<Sum> call{&machine.thread(), c, a, b, accumulate};
  meet<kGroup>(what, kAllLanes, call, site);
}

void wgmma_s8(int32_t* c, uint64_t a, uint64_t b, bool accumulate, Site site = Site::here()) {
  wgmma("wgmma.m64n256k32.s8", c, a, b, accumulate, site);
}
void wgmma_f16(float* c, uint64_t a, uint64_t b, bool accumulate, Site site) {
  wgmma("wgmma.m64n256k16.f16", c, a, b, accumulate, site);
}

// An operation of a warpgroup that exchanges no data. The last thread to arrive does the parts of
// all threads.
template <void (*action)(WarpGroup&, int)>
struct GroupAction {
  Thread* thread;
  int argument;
  static void complete(GroupAction* const (&all)[kGroup]) {
    for (const GroupAction* g : all) {
      if (g == nullptr) machine.fail("a thread of the warpgroup has returned");
    }
    action(group_of(*all[0]->thread), all[0]->argument);
  }
  static void meet_all(const char* what, int argument, Site site) {
    GroupAction call{&machine.thread(), argument};
    meet<kGroup>(what, kAllLanes, call, site);
  }
};

static void add_fence(WarpGroup& group, int) { ++group.fences; }
static void add_commit(WarpGroup& group, int) { ++group.committed; }
// A thread may overwrite an operand only after every warp has waited for the wgmma, because only
// then the operand has been read.
static void note_reads(const Operands& operands, const std::vector<Thread*>& warp) {
  const std::pair<uint64_t, int> both[] = {{operands.a, kWgmmaRows}, {operands.b, kWgmmaColumns}};
  for (const auto& [descriptor, rows] : both) {
    for (const size_t at : pieces(descriptor, rows)) {
      const unsigned char* piece = machine.dynamic_shared() + at;
      machine.enter(*warp[0], piece, kPiece, AccessKind::read);
    }
  }
}

static void hand_back(WarpGroup& group, int newest) {
  const int64_t done = group.committed - newest;
  machine.settle(&group, done);
  const auto first = static_cast<size_t>(&group - machine.block().groups.data()) * kGroup;
  for (size_t w = 0; w < kGroup; w += kLanes) {
    std::vector<Thread*> warp;
    for (size_t l = 0; l < kLanes; ++l) {
      warp.push_back(machine.block().threads[first + w + l].get());
    }
    for (const Operands& operands : group.reading) {
      if (operands.group < done) note_reads(operands, warp);
    }
    Machine::order(warp);
  }
  const auto over = [&](const Operands& operands) { return operands.group < done; };
  group.reading.erase(std::remove_if(group.reading.begin(), group.reading.end(), over),
                      group.reading.end());
  for (auto at = group.under_way.begin(); at != group.under_way.end();) {
    const Accumulator& from = at->second;
    if (from.pending != 0 || from.last_group >= done) {
      ++at;
      continue;
    }
    for (int t = 0; t < kGroup; ++t) {
      std::vector<uint32_t>& to = group.finished[from.threads[static_cast<size_t>(t)]];
      to.clear();
      for (int i = 0; i < kWgmmaParts; ++i) to.push_back(from.values[wgmma_place(t, i)]);
    }
    group.handed_back[at->first] = group.fences;
    at = group.under_way.erase(at);
  }
}
static void nothing(WarpGroup&, int) {}

void wgmma_fence(Site site) { GroupAction<add_fence>::meet_all("wgmma.fence", 0, site); }
void wgmma_fence_sums(void* sums) {
  FinishedSums& finished = group_of(machine.thread()).finished;
  const auto found = finished.find(sums);
  if (found == finished.end()) return;
  std::memcpy(sums, found->second.data(), found->second.size() * sizeof(uint32_t));
  finished.erase(found);
}
void wgmma_commit(Site site) { GroupAction<add_commit>::meet_all("wgmma.commit_group", 0, site); }
void wgmma_wait(int newest, Site site) {
  GroupAction<hand_back>::meet_all("wgmma.wait_group", newest, site);
}
void set_registers(Site site) { GroupAction<nothing>::meet_all("setmaxnreg", 0, site); }

}  // namespace cuda_emulation
