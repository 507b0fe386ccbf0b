// The emulated processor has NEON's dot product, unless NEON_EMULATION_LACKS is set to a text.
#include <cstdlib>

#include "common/cpu_features.h"

namespace ktfast {

bool has_neon_dot() {
  const char* lacks = std::getenv("NEON_EMULATION_LACKS");
  return lacks == nullptr || *lacks == '\0';
}

}  // namespace ktfast
