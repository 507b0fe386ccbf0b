// What C functions for ctypes need: visible names, and exceptions as text.
#pragma once

#include <exception>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Returns nullptr, or what went wrong.
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
