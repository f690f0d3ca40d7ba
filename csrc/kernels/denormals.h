// Denormals, which cost a hundred cycles each and mean nothing here.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace quintet {

// Flushes them in this thread while alive.  Inlined always: see impl.h.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  [[gnu::always_inline]] FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }  // FTZ | DAZ
  [[gnu::always_inline]] ~FlushDenormals() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  [[gnu::always_inline]] FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(saved_ | uint64_t{1} << 24));  // FZ, of operands and results
  }
  [[gnu::always_inline]] ~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
  [[gnu::always_inline]] FlushDenormals() {}
  [[gnu::always_inline]] ~FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  unsigned saved_;
#elif defined(__aarch64__)
  uint64_t saved_;
#endif
};

}  // namespace quintet
