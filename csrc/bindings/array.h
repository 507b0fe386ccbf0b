// Checked views of DLPack arrays. A failed check becomes a TypeError or ValueError that names the
// argument.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "bindings/dlpack.h"
#include "common/element.h"
#include "common/size.h"

namespace ktfast {

namespace py = pybind11;

enum class Device { cpu, cuda };

template <class T>
constexpr DLDataType dl_dtype() {
  using U = std::remove_const_t<T>;
  constexpr uint8_t bits = sizeof(U) * 8;
  if constexpr (std::is_same_v<U, float16_bits>) return {kDLFloat, bits, 1};
  if constexpr (std::is_same_v<U, bfloat16_bits>) return {kDLBfloat, bits, 1};
  if constexpr (std::is_floating_point_v<U>) return {kDLFloat, bits, 1};
  if constexpr (std::is_unsigned_v<U>) return {kDLUInt, bits, 1};
  return {kDLInt, bits, 1};
}

inline std::string dtype_name(DLDataType t) {
  const char* base = t.code == kDLInt      ? "int"
                     : t.code == kDLUInt   ? "uint"
                     : t.code == kDLFloat  ? "float"
                     : t.code == kDLBfloat ? "bfloat"
                     : t.code == kDLBool   ? "bool"
                                           : nullptr;
  if (base == nullptr) return "DLPack type code " + std::to_string(t.code);
  if (t.code == kDLBool) return base;
  return base + std::to_string(t.bits) + (t.lanes == 1 ? "" : "x" + std::to_string(t.lanes));
}

inline std::string device_name(DLDevice d) {
  if (d.device_type == kDLCPU || d.device_type == kDLCUDAHost) return "the CPU";
  if (d.device_type == kDLCUDA || d.device_type == kDLCUDAManaged)
    return "CUDA device " + std::to_string(d.device_id);
  return "DLPack device type " + std::to_string(d.device_type);
}

inline bool is_on(DLDevice d, Device wanted) {
  if (wanted == Device::cpu) return d.device_type == kDLCPU || d.device_type == kDLCUDAHost;
  return d.device_type == kDLCUDA || d.device_type == kDLCUDAManaged;
}

// An array of any dtype, borrowed from its producer for the length of a call. Construction and
// destruction need the GIL; reading the elements does not.
class AnyArray {
 public:
  AnyArray(const py::object& object, const char* name, Device device, bool writable) : name_(name) {
    if (!py::hasattr(object, "__dlpack__") || !py::hasattr(object, "__dlpack_device__")) {
      throw py::type_error(name_ +
                           " must be an array that supports DLPack (NumPy, torch, CuPy), got " +
                           py::str(py::type::of(object).attr("__name__")).cast<std::string>());
    }
    require_device(object, device);
    capsule_ = export_capsule(object, device);
    read_capsule(writable);
    require_size();
    require_memory();
  }

  int ndim() const { return tensor_->ndim; }
  int64_t shape(int axis) const { return tensor_->shape[axis]; }
  DLDataType dtype() const { return tensor_->dtype; }
  int device_index() const { return tensor_->device.device_id; }

  // The distance between neighbours along an axis, in elements.
  int64_t stride(int axis) const {
    if (tensor_->strides != nullptr) return tensor_->strides[axis];
    int64_t step = 1;
    for (int i = tensor_->ndim - 1; i > axis; --i) step *= tensor_->shape[i];
    return step;
  }

  int64_t size() const {
    for (int i = 0; i < ndim(); ++i) {
      if (shape(i) == 0) return 0;
    }
    int64_t n = 1;
    for (int i = 0; i < ndim(); ++i) n *= shape(i);
    return n;
  }

  template <class T>
  bool has_dtype() const {
    const DLDataType want = dl_dtype<T>();
    const DLDataType got = tensor_->dtype;
    return got.code == want.code && got.bits == want.bits && got.lanes == 1;
  }

  // Raises an error unless the shape is `wanted`. A length of -1 accepts any length.
  void expect_shape(std::initializer_list<int64_t> wanted) const {
    bool same = static_cast<int>(wanted.size()) == ndim();
    int axis = 0;
    for (const int64_t length : wanted) {
      if (!same) break;
      same = length < 0 || length == shape(axis);
      ++axis;
    }
    if (!same) {
      throw py::value_error(name_ + " must have shape " + shape_text(wanted.begin(), wanted.end()) +
                            ", got " + shape_text(tensor_->shape, tensor_->shape + tensor_->ndim));
    }
  }

  // Raises an error unless the elements are in row-major order without gaps.
  void expect_contiguous() const {
    if (size() == 0) return;
    int64_t step = 1;
    for (int i = ndim() - 1; i >= 0; --i) {
      if (shape(i) != 1 && stride(i) != step) {
        throw py::value_error(name_ + " must be contiguous (row-major without gaps)");
      }
      step *= shape(i);
    }
  }

  void* address() const {
    return static_cast<char*>(tensor_->data) + static_cast<std::ptrdiff_t>(tensor_->byte_offset);
  }

  const std::string& name() const { return name_; }

 private:
  static std::string shape_text(const int64_t* first, const int64_t* last) {
    std::string text = "(";
    for (const int64_t* p = first; p != last; ++p) {
      text += (*p < 0 ? std::string("any") : std::to_string(*p)) + (p + 1 == last ? "" : ", ");
    }
    return text + (last - first == 1 ? ",)" : ")");
  }

  // Calls the producer and turns its exceptions into a ValueError that names the argument.
  template <class Call>
  py::object ask(Call call) const {
    try {
      return call();
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_Exception)) throw;  // KeyboardInterrupt is no Exception
      throw py::value_error(name_ + " could not be read through DLPack: " +
                            py::str(error.value()).cast<std::string>());
    }
  }

  void require_device(const py::object& object, Device wanted) const {
    const py::object answer = ask([&] { return object.attr("__dlpack_device__")(); });
    const auto pair = answer.cast<std::pair<int32_t, int32_t>>();
    const DLDevice device{pair.first, pair.second};
    if (!is_on(device, wanted)) {
      throw py::value_error(name_ + " is on " + device_name(device) + ", but must be on " +
                            (wanted == Device::cpu ? "the CPU" : "a CUDA device"));
    }
  }

  // Without max_version (1, 1) NumPy refuses read-only arrays. Stream -1 tells the producer not to
  // synchronise, because the kernel runs on the caller's own stream.
  py::capsule export_capsule(const py::object& object, Device device) const {
    const py::object method = object.attr("__dlpack__");
    py::dict arguments;
    if (device == Device::cuda) arguments["stream"] = -1;
    const py::object capsule = ask([&]() -> py::object {
      py::dict versioned = arguments.attr("copy")();
      versioned["max_version"] = py::make_tuple(1, 1);
      try {
        return method(**versioned);
      } catch (py::error_already_set& error) {
        if (!error.matches(PyExc_TypeError)) throw;  // a TypeError: DLPack before version 1
        return method(**arguments);
      }
    });
    if (!py::isinstance<py::capsule>(capsule)) {
      throw py::type_error(name_ + ".__dlpack__() did not return a capsule");
    }
    return py::reinterpret_borrow<py::capsule>(capsule);
  }

  // The capsule keeps its name, so that its destructor frees the exported array after the call.
  void read_capsule(bool writable) {
    if (PyCapsule_IsValid(capsule_.ptr(), "dltensor_versioned")) {
      auto* managed = static_cast<DLManagedTensorVersioned*>(
          PyCapsule_GetPointer(capsule_.ptr(), "dltensor_versioned"));
      if (managed->version.major != 1) {
        throw py::value_error(name_ + " uses DLPack version " +
                              std::to_string(managed->version.major) + ", supported is 1");
      }
      if (writable && (managed->flags & kDLFlagReadOnly) != 0) {
        throw py::value_error(name_ + " is read-only, but results are written to it");
      }
      tensor_ = &managed->dl_tensor;
    } else if (PyCapsule_IsValid(capsule_.ptr(), "dltensor")) {
      tensor_ = &static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule_.ptr(), "dltensor"))
                     ->dl_tensor;
    } else {
      throw py::value_error(name_ + " was exported through an unknown or used DLPack capsule");
    }
  }

  // Without this check the size of a hostile shape such as (2^32, 2^32) would overflow to 0, and
  // an array without elements passes every other check.
  void require_size() const {
    bool is_empty = false;
    for (int i = 0; i < ndim(); ++i) {
      if (shape(i) < 0) throw py::value_error(name_ + " has a negative side");
      is_empty = is_empty || shape(i) == 0;
    }
    Size bytes = is_empty ? 0 : (dtype().bits + 7) / 8 * dtype().lanes;
    for (int i = 0; i < ndim() && !is_empty; ++i) bytes = bytes * shape(i);
  }

  void require_memory() const {
    if (size() == 0) return;
    if (tensor_->data == nullptr) {
      throw py::value_error(name_ + " has no memory (was it freed?)");
    }
    const auto width = static_cast<uintptr_t>(tensor_->dtype.bits / 8);
    if (width != 0 && reinterpret_cast<uintptr_t>(address()) % width != 0) {
      throw py::value_error(name_ + " is not aligned to its element size; pass a copy");
    }
  }

  std::string name_;
  py::capsule capsule_;
  const DLTensor* tensor_ = nullptr;
};

// An array of one dtype. Array<const float> accepts read-only arrays, Array<float> rejects them.
template <class T>
class Array : public AnyArray {
 public:
  Array(const py::object& object, const char* name, Device device)
      : AnyArray(object, name, device, !std::is_const_v<T>) {
    if (!has_dtype<T>()) {
      throw py::type_error(name + std::string(" must be ") + dtype_name(dl_dtype<T>()) + ", got " +
                           dtype_name(dtype()));
    }
  }

  T* data() const { return static_cast<T*>(address()); }
};

// Raises an error unless all arrays are on the device of the first.
inline void expect_one_device(std::initializer_list<const AnyArray*> arrays) {
  const AnyArray* first = *arrays.begin();
  for (const AnyArray* array : arrays) {
    if (array->device_index() != first->device_index()) {
      throw py::value_error(array->name() + " is on device " +
                            std::to_string(array->device_index()) + ", but " + first->name() +
                            " is on device " + std::to_string(first->device_index()));
    }
  }
}

// Returns a contiguous array of this shape. A length of -1 accepts any length.
template <class T>
Array<T> contiguous(const py::object& object, const char* name, Device device,
                    std::initializer_list<int64_t> shape) {
  Array<T> array(object, name, device);
  array.expect_shape(shape);
  array.expect_contiguous();
  return array;
}

}  // namespace ktfast
