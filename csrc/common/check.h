// Argument checks of the C++ entry points: they throw, never abort.
#pragma once

#include <stdexcept>

// `message` completes the sentence the caller sees in Python as a ValueError.
#define KTFAST_CHECK(condition, message)                    \
  do {                                                      \
    if (!(condition)) throw std::invalid_argument(message); \
  } while (false)
