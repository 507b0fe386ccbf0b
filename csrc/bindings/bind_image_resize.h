// From Python arguments to the params of image_resize.
#pragma once

#include "image_resize/image_resize.h"

#include "bindings/arguments.h"

namespace ktfast {

inline void bind_image_resize(const py::kwargs& given) {
  Arguments a(given);
  ImageResizeParams p{};
  const auto image = a.checked<const uint8_t>("image", {-1, -1, 4});
  p.in_height = image.shape(0);
  p.in_width = image.shape(1);
  p.image = image.data();
  const float* box = a.array<const float>("box", {4});
  p.left = box[0];
  p.top = box[1];
  p.right = box[2];
  p.bottom = box[3];
  const auto out = a.checked<uint8_t>("out", {-1, -1, 3});
  p.height = out.shape(0);
  p.width = out.shape(1);
  p.out = out.data();
  const py::gil_scoped_release release;
  cpu::image_resize(p);
}

}  // namespace ktfast
