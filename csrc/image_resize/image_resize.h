// Contract of image_resize: cuts a box out of an image and resizes the box, bilinear with
// antialiasing, with the pixels of Pillow's Image.resize(size, BILINEAR, box).
//
// Pillow resamples the rows first, rounds to bytes, and then resamples the columns. Its weights are
// integers of 22 bits, so the sums are exact and do not depend on the instruction set.
#pragma once

#include <cstdint>

namespace ktfast {

struct ImageResizeParams {
  int64_t in_height;
  int64_t in_width;
  int64_t height;
  int64_t width;
  const uint8_t* image;            // [in_height, in_width, 4]: red, green, blue, any
  float left, top, right, bottom;  // the box, within the image
  uint8_t* out;                    // [height, width, 3]
};

namespace cpu {
// Whether this processor has a kernel. Without one, image_resize throws.
bool image_resize_is_fast();
void image_resize(const ImageResizeParams& p);
}  // namespace cpu

}  // namespace ktfast
