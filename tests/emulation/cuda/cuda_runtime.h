// Replaces CUDA's header of this name when g++ compiles kernels for the emulation. Defines the
// keywords of the language, the built-in functions that ktfast uses, and the used functions of the
// runtime.
#pragma once

#include <math.h>

#include <cfenv>
#include <cstdint>
#include <cstring>

#include "machine.h"
#include "warp.h"

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

constexpr int warpSize = 32;

// --- Vectors
#define CUDA_EMULATION_VECTOR(type, name)                                                     \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                    \
  struct alignas(4 * sizeof(type) < 16 ? 4 * sizeof(type) : 16) name##4 { type x, y, z, w; }; \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                            \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CUDA_EMULATION_VECTOR(int, int)
CUDA_EMULATION_VECTOR(unsigned, uint)
CUDA_EMULATION_VECTOR(float, float)
CUDA_EMULATION_VECTOR(double, double)
#undef CUDA_EMULATION_VECTOR

// --- Bits
inline int __float_as_int(float v) { return cuda_emulation::bits_as<int>(v); }
inline unsigned __float_as_uint(float v) { return cuda_emulation::bits_as<unsigned>(v); }
inline float __int_as_float(int v) { return cuda_emulation::bits_as<float>(v); }
inline float __uint_as_float(unsigned v) { return cuda_emulation::bits_as<float>(v); }
inline long long __double_as_longlong(double v) { return cuda_emulation::bits_as<long long>(v); }
inline double __longlong_as_double(long long v) { return cuda_emulation::bits_as<double>(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __clzll(long long v) {
  return v == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(v));
}

// --- Arithmetic with a stated rounding. Compile without contraction and with -frounding-math.
namespace cuda_emulation {
template <class Operation>
__attribute__((noinline)) auto with_rounding(int mode, Operation operation) {
  const int before = std::fegetround();
  std::fesetround(mode);
  const volatile auto result = operation();
  std::fesetround(before);
  return static_cast<std::remove_cv_t<decltype(result)>>(result);
}
}  // namespace cuda_emulation

#define CUDA_EMULATION_ROUNDED(suffix, mode)                                                     \
  inline float __fadd_##suffix(float a, float b) {                                               \
    return cuda_emulation::with_rounding(mode, [=] { return a + b; });                           \
  }                                                                                              \
  inline float __fsub_##suffix(float a, float b) {                                               \
    return cuda_emulation::with_rounding(mode, [=] { return a - b; });                           \
  }                                                                                              \
  inline float __fmul_##suffix(float a, float b) {                                               \
    return cuda_emulation::with_rounding(mode, [=] { return a * b; });                           \
  }                                                                                              \
  inline float __fdiv_##suffix(float a, float b) {                                               \
    return cuda_emulation::with_rounding(mode, [=] { return a / b; });                           \
  }                                                                                              \
  inline float __fmaf_##suffix(float a, float b, float c) {                                      \
    return cuda_emulation::with_rounding(mode, [=] { return fmaf(a, b, c); });                   \
  }                                                                                              \
  inline float __fsqrt_##suffix(float a) {                                                       \
    return cuda_emulation::with_rounding(mode, [=] { return sqrtf(a); });                        \
  }                                                                                              \
  inline double __dadd_##suffix(double a, double b) {                                            \
    return cuda_emulation::with_rounding(mode, [=] { return a + b; });                           \
  }                                                                                              \
  inline double __dsub_##suffix(double a, double b) {                                            \
    return cuda_emulation::with_rounding(mode, [=] { return a - b; });                           \
  }                                                                                              \
  inline double __dmul_##suffix(double a, double b) {                                            \
    return cuda_emulation::with_rounding(mode, [=] { return a * b; });                           \
  }                                                                                              \
  inline double __ddiv_##suffix(double a, double b) {                                            \
    return cuda_emulation::with_rounding(mode, [=] { return a / b; });                           \
  }                                                                                              \
  inline double __fma_##suffix(double a, double b, double c) {                                   \
    return cuda_emulation::with_rounding(mode, [=] { return fma(a, b, c); });                    \
  }                                                                                              \
  inline double __dsqrt_##suffix(double a) {                                                     \
    return cuda_emulation::with_rounding(mode, [=] { return sqrt(a); });                         \
  }                                                                                              \
  inline float __double2float_##suffix(double a) {                                               \
    return cuda_emulation::with_rounding(mode, [=] { return static_cast<float>(a); });           \
  }                                                                                              \
  inline float __int2float_##suffix(int a) {                                                     \
    return cuda_emulation::with_rounding(mode, [=] { return static_cast<float>(a); });           \
  }                                                                                              \
  inline int __float2int_##suffix(float a) {                                                     \
    return cuda_emulation::with_rounding(mode, [=] { return static_cast<int>(nearbyintf(a)); }); \
  }
CUDA_EMULATION_ROUNDED(ru, FE_UPWARD)
CUDA_EMULATION_ROUNDED(rd, FE_DOWNWARD)
CUDA_EMULATION_ROUNDED(rz, FE_TOWARDZERO)
#undef CUDA_EMULATION_ROUNDED

// Kernels run in the mode that rounds to nearest, so these functions need not set it.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline int __float2int_rn(float a) { return static_cast<int>(nearbyintf(a)); }

// --- Memory
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T v) {
  *p = v;
}
inline void __threadfence() { cuda_emulation::machine.yield(); }
inline void __threadfence_block() { cuda_emulation::machine.yield(); }
inline void __nanosleep(unsigned) { cuda_emulation::machine.yield(); }

// Every atomic operation first lets other threads run, so that a loop that waits for another block
// ends.
namespace cuda_emulation {
template <class T, class F>
T atomically(T* p, F f) {
  machine.yield();
  machine.access(p, sizeof(T), AccessKind::atomic);
  const Machine::Quiet quiet;
  const T old = *p;
  *p = f(old);
  return old;
}
template <class T>
struct Itself {
  using type = T;
};
template <class T>
using same = typename Itself<T>::type;  // a parameter that does not take part in deduction
}  // namespace cuda_emulation

template <class T>
T atomicAdd(T* p, cuda_emulation::same<T> v) {
  return cuda_emulation::atomically(p, [=](T old) { return static_cast<T>(old + v); });
}
template <class T>
T atomicMin(T* p, cuda_emulation::same<T> v) {
  return cuda_emulation::atomically(p, [=](T old) { return v < old ? v : old; });
}
template <class T>
T atomicMax(T* p, cuda_emulation::same<T> v) {
  return cuda_emulation::atomically(p, [=](T old) { return old < v ? v : old; });
}
template <class T>
T atomicOr(T* p, cuda_emulation::same<T> v) {
  return cuda_emulation::atomically(p, [=](T old) { return static_cast<T>(old | v); });
}
template <class T>
T atomicExch(T* p, cuda_emulation::same<T> v) {
  return cuda_emulation::atomically(p, [=](T) { return v; });
}
template <class T>
T atomicCAS(T* p, cuda_emulation::same<T> expected, cuda_emulation::same<T> v) {
  return cuda_emulation::atomically(p, [=](T old) { return old == expected ? v : old; });
}

// --- The runtime. Calls take effect immediately, which is an order that a stream allows.
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorEmulated"; }
inline const char* cudaGetErrorString(cudaError_t) { return "a runtime call failed"; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const auto& settings = cuda_emulation::settings;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = settings.multiprocessors;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = settings.capability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = settings.capability % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(settings.shared_limit);
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
