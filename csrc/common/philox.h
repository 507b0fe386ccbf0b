// Philox4x32-10, the counter-based random number generator of the ops.
//
// A random number is a function of key and counter only, so it does not depend on the batch size,
// the number of threads or the backend. Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as
// easy as 1, 2, 3", SC 2011.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace ktfast {

struct PhiloxBlock {
  uint32_t word[4];
};

// The four 32-bit words of one counter; counter word 0 is the lowest.
KTFAST_HD PhiloxBlock philox4x32(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c0 = n0;
    c1 = static_cast<uint32_t>(p1);
    c2 = n2;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Maps 32 random bits to 0..n-1 with a bias below n / 2^32.
KTFAST_HD int32_t bounded(uint32_t bits, int32_t n) {
  return static_cast<int32_t>((uint64_t{bits} * static_cast<uint32_t>(n)) >> 32);
}

}  // namespace ktfast
