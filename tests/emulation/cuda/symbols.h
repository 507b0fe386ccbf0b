// Information about the library of the emulated kernels: the names of its functions, including
// local functions, and the address of its thread-local variables.
#pragma once

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "machine.h"

namespace cuda_emulation {

inline std::string demangled(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  const size_t arguments = result.rfind('(');
  if (arguments != std::string::npos && arguments > 0 && result[result.size() - 1] == ')') {
    result.resize(arguments);
  }
  for (const char* noise : {"(anonymous namespace)::", "void "}) {
    for (size_t at; (at = result.find(noise)) != std::string::npos;) {
      result.erase(at, std::string(noise).size());
    }
  }
  return result;
}

// Kernels are local symbols, which dladdr does not find. So the symbol table of the file is read.
inline std::string function_name(const void* function) {
  Dl_info info{};
  if (dladdr(function, &info) == 0) return "unknown kernel";
  std::ifstream file(info.dli_fname, std::ios::binary);
  const std::vector<char> image{std::istreambuf_iterator<char>(file), {}};
  if (image.size() < sizeof(Elf64_Ehdr)) return "unknown kernel";
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(image.data());
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(image.data() + header->e_shoff);
  const auto base = reinterpret_cast<uintptr_t>(info.dli_fbase);
  const auto offset = reinterpret_cast<uintptr_t>(function) - (header->e_type == ET_DYN ? base : 0);
  for (int s = 0; s < header->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(image.data() + sections[s].sh_offset);
    const char* names = image.data() + sections[sections[s].sh_link].sh_offset;
    for (size_t i = 0; i < sections[s].sh_size / sizeof(Elf64_Sym); ++i) {
      if (ELF64_ST_TYPE(symbols[i].st_info) == STT_FUNC && symbols[i].st_value == offset) {
        return demangled(names + symbols[i].st_name);
      }
    }
  }
  return "unknown kernel";
}

// The calling thread's copy of the module's thread-local variables.
inline Memory thread_local_memory() {
  static thread_local char anchor;
  volatile char* touched = &anchor;  // the loader allocates the memory at the first use
  *touched = 0;
  Memory found{nullptr, 0};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        auto* memory = static_cast<Memory*>(result);
        const auto* start = static_cast<unsigned char*>(info->dlpi_tls_data);
        const auto* used = reinterpret_cast<const unsigned char*>(&anchor);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_TLS || start == nullptr) continue;
          if (used < start || used >= start + segment.p_memsz) continue;
          *memory = {const_cast<unsigned char*>(start), segment.p_memsz};
        }
        return memory->start != nullptr ? 1 : 0;
      },
      &found);
  return found;
}

}  // namespace cuda_emulation
