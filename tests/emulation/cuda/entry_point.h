// Helps to write C functions for ctypes, with visible names and with exceptions as text.
#pragma once

#include <exception>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Returns nullptr or an error message.
template <class Call>
const char* attempt(Call call) {
  static std::string message;
  try {
    call();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}
