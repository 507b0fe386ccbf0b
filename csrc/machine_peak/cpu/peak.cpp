#include "machine_peak/machine_peak.h"

#include <chrono>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "common/cpu_features.h"
#include "common/parallel.h"
#include "machine_peak/cpu/peak_kernels.h"

namespace ktfast::cpu {

// The loop of the scalar level. The compiler may use the vectors of the baseline instruction set.
float peak_fp32_scalar(int64_t rounds) {
  constexpr int kWidth = 4;
  const volatile float factor = 1.0F;
  const float a = factor;
  const float b = factor;
  float sums[kAccumulators * kWidth] = {};
  for (int64_t round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = sum * a + b;
  }
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

namespace {

using Clock = std::chrono::steady_clock;

// The clock is read after this many rounds, which take about 0.2 ms, or after the fewer rounds that
// take kReadSeconds: on a processor whose instructions are emulated, all of them would take
// minutes.
constexpr int64_t kRounds = 100000;
constexpr double kReadSeconds = 2e-4;
// The threads copy this many bytes together, in blocks that exceed every cache.
constexpr int64_t kCopyBytes = int64_t{256} << 20;
constexpr int64_t kCopyBlock = int64_t{32} << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

PeakLoop peak_loop(PeakKind kind) {
  const SimdLevel level = simd_level();
  constexpr int64_t kOperations = 2 * kAccumulators;
#if defined(KTFAST_X86_SIMD)
#if defined(KTFAST_X86_AMX)
  if (level == SimdLevel::amx) {
    // A round has four products of 16 by 16 by 64 bytes.
    constexpr int64_t kTileOperations = 4 * 2 * 16 * 16;
    if (kind == PeakKind::bf16) return {peak_bf16_amx, kTileOperations * 32};
    if (kind == PeakKind::int8) return {peak_int8_amx, kTileOperations * 64};
  }
#endif
  if (level >= SimdLevel::avx512) {
    if (kind == PeakKind::fp32) return {peak_fp32_avx512, kOperations * 16};
    if (kind == PeakKind::bf16 && has_avx512_bf16()) return {peak_bf16_avx512, kOperations * 32};
    if (kind == PeakKind::int8 && has_avx512_vnni()) return {peak_int8_avx512, kOperations * 64};
  }
  if (level == SimdLevel::avx2 && kind == PeakKind::fp32) return {peak_fp32_avx2, kOperations * 8};
#elif defined(KTFAST_ARM_SIMD)
  if (level == SimdLevel::neon && kind == PeakKind::fp32) return {peak_fp32_neon, kOperations * 4};
#endif
  if (level == SimdLevel::scalar && kind == PeakKind::fp32) {
    return {peak_fp32_scalar, kOperations * 4};
  }
  return {nullptr, 0};
}

// The operations per second of one thread.
double compute(const PeakLoop& loop, double seconds) {
  volatile float sink = 0;
  int64_t rounds = 10;
  for (double taken = 0; taken < kReadSeconds && rounds < kRounds;) {  // wakes the vector units
    const auto before = Clock::now();
    rounds *= 10;
    sink = sink + loop.run(rounds);
    taken = seconds_since(before);
  }
  const auto start = Clock::now();
  int64_t operations = 0;
  do {
    sink = sink + loop.run(rounds);
    operations += rounds * loop.operations;
  } while (seconds_since(start) < seconds);
  return static_cast<double>(operations) / seconds_since(start);
}

// The bytes per second of one thread that copies its part repeatedly.
double copy(const char* from, char* to, int64_t length, double seconds) {
  const auto start = Clock::now();
  int64_t copied = 0;
  do {
    const int64_t place = copied % length;
    const int64_t block = length - place < kCopyBlock ? length - place : kCopyBlock;
    std::memcpy(to + place, from + place, static_cast<size_t>(block));
    copied += block;
  } while (seconds_since(start) < seconds);
  return static_cast<double>(copied) / seconds_since(start);
}

template <class Measure>
double sum_of_threads(int n_threads, const Measure& measure) {
  std::vector<double> rates(static_cast<size_t>(n_threads));
  in_threads(n_threads, [&](int thread) { rates[static_cast<size_t>(thread)] = measure(thread); });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

double copy_peak(const MachinePeakParams& p) {
  const int64_t length = kCopyBytes / p.n_threads;
  KTFAST_CHECK(length > 0, "n_threads is too large");
  const std::unique_ptr<char[]> memory(new char[static_cast<size_t>(2 * length * p.n_threads)]);
  // A page lies near the thread that first writes to it, so each thread initialises its own part.
  in_threads(p.n_threads, [&](int thread) {
    std::memset(memory.get() + 2 * length * thread, 1, static_cast<size_t>(2 * length));
  });
  return sum_of_threads(p.n_threads, [&](int thread) {
    char* part = memory.get() + 2 * length * thread;
    return copy(part, part + length, length, p.seconds);
  });
}

}  // namespace

double machine_peak(const MachinePeakParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  KTFAST_CHECK(p.seconds > 0, "seconds must be more than 0");
  if (p.kind == PeakKind::copy) return copy_peak(p);
  const PeakLoop loop = peak_loop(p.kind);
  if (loop.operations == 0) return 0;
  return sum_of_threads(p.n_threads, [&](int) { return compute(loop, p.seconds); });
}

}  // namespace ktfast::cpu
