// CUDA error handling. A failed call throws an exception with its expression, file and line.
#pragma once

#include <cuda_runtime.h>

#include <new>
#include <stdexcept>
#include <string>

#define KTFAST_CUDA_CHECK(expression) \
  ::ktfast::cuda_check((expression), #expression, __FILE__, __LINE__)

namespace ktfast {

inline void cuda_check(cudaError_t error, const char* expression, const char* file, int line) {
  if (error == cudaSuccess) return;
  // Clears the error that the runtime keeps, which the check of the next launch would report again.
  static_cast<void>(cudaGetLastError());
  if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw std::runtime_error(std::string(cudaGetErrorName(error)) + " (" + cudaGetErrorString(error) +
                           ") from " + expression + " at " + file + ":" + std::to_string(line));
}

// Makes `device` current for a scope, and then restores the caller's device.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    int current = 0;
    KTFAST_CUDA_CHECK(cudaGetDevice(&current));
    if (current == device) return;
    KTFAST_CUDA_CHECK(cudaSetDevice(device));
    previous_ = current;
  }
  ~DeviceGuard() {
    // A destructor must not throw. The call cannot fail, because this device was current before.
    if (previous_ >= 0) static_cast<void>(cudaSetDevice(previous_));
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = -1;
};

}  // namespace ktfast
