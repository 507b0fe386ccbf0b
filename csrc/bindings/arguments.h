// Reads the keyword arguments of calls that take many arrays.
#pragma once

#include <string>

#include "bindings/array.h"

namespace ktfast {

inline ElementType element_type(const AnyArray& x) {
  if (x.has_dtype<float>()) return ElementType::float32;
  if (x.has_dtype<double>()) return ElementType::float64;
  if (x.has_dtype<float16_bits>()) return ElementType::float16;
  if (x.has_dtype<bfloat16_bits>()) return ElementType::bfloat16;
  if (x.has_dtype<uint8_t>()) return ElementType::uint8;
  if (x.has_dtype<int8_t>()) return ElementType::int8;
  throw py::type_error(x.name() +
                       " must be float32, float64, float16, bfloat16, uint8 or int8, got " +
                       dtype_name(x.dtype()));
}

inline AnyArray vectors(const py::object& x, const char* name, Device device) {
  AnyArray array(x, name, device, false);
  array.expect_shape({-1, -1});
  array.expect_contiguous();
  return array;
}

template <class T>
Array<T> at_least(const py::object& object, const char* name, Device device, int64_t length) {
  auto array = contiguous<T>(object, name, device, {-1});
  if (array.shape(0) < length) {
    throw py::value_error(std::string(name) + " must hold at least " + std::to_string(length) +
                          " elements, got " + std::to_string(array.shape(0)));
  }
  return array;
}

// The keyword arguments of a call. The object keeps the arrays alive and checks that all of them
// are on one device.
class Arguments {
 public:
  explicit Arguments(const py::kwargs& given, Device device = Device::cpu)
      : given_(given), kind_(device) {}

  py::object operator[](const char* name) const {
    if (!given_.contains(name)) throw py::type_error(std::string("missing argument ") + name);
    return given_[name];
  }
  // Whether the caller gave an argument that may be left out.
  bool has(const char* name) const { return given_.contains(name) && !given_[name].is_none(); }
  template <class T>
  T value(const char* name) const {
    return (*this)[name].cast<T>();
  }
  // Returns a contiguous array of this shape. A length of -1 accepts any length.
  template <class T>
  Array<T> checked(const char* name, std::initializer_list<int64_t> shape) {
    auto array = contiguous<T>((*this)[name], name, kind_, shape);
    expect_device(array);
    return array;
  }
  template <class T>
  T* array(const char* name, std::initializer_list<int64_t> shape) {
    return checked<T>(name, shape).data();
  }
  template <class T>
  T* optional_array(const char* name, std::initializer_list<int64_t> shape) {
    return (*this)[name].is_none() ? nullptr : array<T>(name, shape);
  }
  template <class T>
  T* buffer(const char* name, int64_t length) {
    const auto array = at_least<T>((*this)[name], name, kind_, length);
    expect_device(array);
    return array.data();
  }
  AnyArray rows(const char* name) {
    AnyArray array = vectors((*this)[name], name, kind_);
    expect_device(array);
    return array;
  }
  // The device of the arrays that were read.
  int device_index() const { return device_; }

 private:
  void expect_device(const AnyArray& array) {
    if (first_.empty()) {
      first_ = array.name();
      device_ = array.device_index();
    }
    if (array.device_index() != device_) {
      throw py::value_error(array.name() + " is on device " + std::to_string(array.device_index()) +
                            ", but " + first_ + " is on device " + std::to_string(device_));
    }
  }

  const py::kwargs& given_;
  Device kind_;
  std::string first_;
  int device_ = 0;
};

// Reads x [n_rows, n_features] into a params struct with rows.
template <class Params>
void set_rows(Arguments& a, Params& p) {
  const AnyArray x = a.rows("x");
  p.n_rows = x.shape(0);
  p.n_features = x.shape(1);
  p.x = x.address();
  p.x_type = element_type(x);
}

}  // namespace ktfast
