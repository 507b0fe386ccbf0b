// A program that calls a kernel in several threads while no memory can be allocated.
#include <cstdio>
#include <cstdlib>
#include <new>

#include "common/parallel.h"

namespace {
bool no_memory = false;
}

void* operator new(std::size_t n) {
  void* const memory = no_memory ? nullptr : std::malloc(n);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main() {
  std::atomic<int> sum{0};
  const auto add = [&](int thread) { sum += thread + 1; };
  ktfast::cpu::in_threads(2, add);  // makes the pool, and one thread
  no_memory = true;                 // the threads that are missing cannot be made
  ktfast::cpu::in_threads(8, add);
  no_memory = false;
  ktfast::cpu::in_threads(8, add);
  std::printf("%d\n", sum.load());
}
