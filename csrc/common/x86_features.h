// The instruction sets that an x86 processor and the operating system offer, from the instruction
// CPUID.
//
// Compilers differ in the names that __builtin_cpu_supports knows: clang before 19 refuses
// "amx-tile". CPUID does not depend on the compiler.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ktfast {

// Whether the processor has an extension and the operating system saves its registers. `name` is
// Linux's name in /proc/cpuinfo, such as "avx512_vnni". Throws std::invalid_argument if the name is
// not in x86_features(). On other processors every extension is absent.
bool x86_has(const char* name);

// Every extension that ktfast asks for, and whether it is there.
std::vector<std::pair<std::string, bool>> x86_features();

}  // namespace ktfast
