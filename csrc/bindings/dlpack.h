// The part of the DLPack ABI (versions 0 and 1, https://dmlc.github.io/dlpack) that a consumer of
// arrays needs.
//
// The structs are declared here so that the build needs no third-party header. The order of the
// fields is the order of the ABI.
#pragma once

#include <cstdint>

namespace ktfast {

enum DLDeviceType : int32_t {
  kDLCPU = 1,
  kDLCUDA = 2,
  kDLCUDAHost = 3,  // pinned host memory: readable and writable by the CPU
  kDLCUDAManaged = 13,
};

struct DLDevice {
  int32_t device_type;  // a DLDeviceType, or a number that is not listed there
  int32_t device_id;
};

enum DLDataTypeCode : uint8_t {
  kDLInt = 0,
  kDLUInt = 1,
  kDLFloat = 2,
  kDLBfloat = 4,
  kDLBool = 6,
};

struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; nullptr: row-major without gaps
  uint64_t byte_offset;
};

// Capsule "dltensor".
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};

struct DLPackVersion {
  uint32_t major;
  uint32_t minor;
};

inline constexpr uint64_t kDLFlagReadOnly = 1;

// Capsule "dltensor_versioned".
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;
  DLTensor dl_tensor;
};

}  // namespace ktfast
