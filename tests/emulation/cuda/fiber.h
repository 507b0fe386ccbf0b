// Fibers: the threads of an emulated block, switched in user space without system calls.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#if !defined(__x86_64__)
#error "the CUDA emulation switches stacks by hand and knows x86-64 only"
#endif

namespace cuda_emulation {

// Saves the registers that the System V ABI preserves, and continues on another stack.
__attribute__((naked, noinline)) inline void switch_stack(void** /*save*/, void* /*to*/) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
      "ret\n");
}

class Fiber {
 public:
  static constexpr size_t kStackBytes = 128 << 10;
  static constexpr size_t kGuardBytes = 4096;  // a guard page stops an overflowing stack

  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
    if (stack_ != nullptr) munmap(stack_, kStackBytes);
  }

  // The next resume() calls `entry`, which must never return.
  void start(void (*entry)()) {
    if (stack_ == nullptr) {
      void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
        throw std::runtime_error("no memory for the stacks of an emulated block");
      }
      stack_ = static_cast<char*>(memory);
    }
    // Six registers, the address to return to, and one word that aligns the stack as after a call.
    void** top = reinterpret_cast<void**>(stack_ + kStackBytes) - 8;
    for (int i = 0; i < 6; ++i) top[i] = nullptr;
    top[6] = reinterpret_cast<void*>(entry);
    top[7] = nullptr;
    own_ = top;
  }

  // Called by the scheduler. Returns when the fiber suspends itself.
  void resume() { switch_stack(&scheduler_, own_); }

  // Called by the fiber. Returns when the fiber is resumed.
  void suspend() { switch_stack(&own_, scheduler_); }

 private:
  char* stack_ = nullptr;
  void* own_ = nullptr;
  void* scheduler_ = nullptr;
};

}  // namespace cuda_emulation
