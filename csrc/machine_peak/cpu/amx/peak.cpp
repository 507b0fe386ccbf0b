#include "common/amx.h"
#include "machine_peak/cpu/peak_kernels.h"

namespace ktfast::cpu {
namespace {

// Four products into registers 0 to 3. The time does not depend on the numbers in the registers.
template <class Multiply>
float peak(int64_t rounds, Multiply multiply) {
  const TileScope scope;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t round = 0; round < rounds; ++round) multiply();
  return 0;
}

}  // namespace

float peak_int8_amx(int64_t rounds) {
  return peak(rounds, [] {
    _tile_dpbsud(0, 4, 5);
    _tile_dpbsud(1, 4, 5);
    _tile_dpbsud(2, 4, 5);
    _tile_dpbsud(3, 4, 5);
  });
}

float peak_bf16_amx(int64_t rounds) {
  return peak(rounds, [] {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  });
}

}  // namespace ktfast::cpu
