// Sets the floating-point environment that the kernels need for exact results.
#pragma once

#include <cfenv>

namespace ktfast {

// Gives the calling thread the default environment for a scope: rounding to nearest, and subnormal
// numbers. The error bounds of the kernels assume subnormal numbers. A library may have switched
// them off (torch.set_flush_denormal, or any library linked with -ffast-math), and new threads
// inherit that setting.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() {
    std::fegetenv(&callers_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatEnvironment() { std::fesetenv(&callers_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  std::fenv_t callers_;
};

}  // namespace ktfast
