// The floating-point environment that exact results need.
#pragma once

#include <cfenv>

namespace ktfast {

// Gives the calling thread the default environment for a scope: round to nearest, and subnormal
// numbers kept. Other libraries flush them to zero (torch.set_flush_denormal, any library linked
// with -ffast-math), and threads inherit that; the error bounds of the kernels assume they count.
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
