// From Python arguments to the params of machine_peak.
#pragma once

#include "machine_peak/machine_peak.h"

#include <pybind11/pybind11.h>

#include <string>

namespace ktfast {

namespace py = pybind11;

inline PeakKind peak_kind(const std::string& name) {
  if (name == "fp32") return PeakKind::fp32;
  if (name == "bf16") return PeakKind::bf16;
  if (name == "int8") return PeakKind::int8;
  if (name == "copy") return PeakKind::copy;
  throw py::value_error("kind must be fp32, bf16, int8 or copy, got '" + name + "'");
}

}  // namespace ktfast
