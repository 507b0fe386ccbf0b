// Argument checks of the C++ entry points. A failed check throws an exception.
#pragma once

#include <stdexcept>

// A failed check becomes a ValueError with this message in Python.
#define KTFAST_CHECK(condition, message)                    \
  do {                                                      \
    if (!(condition)) throw std::invalid_argument(message); \
  } while (false)
