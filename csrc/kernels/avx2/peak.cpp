#include "peak.h"

#include <immintrin.h>

namespace quintet::avx2 {

// Sums stay in 16 bits: the widening that a kernel does every few products is not counted.
int64_t dot_peak(int64_t rounds) {
  constexpr int kChains = 8;
  __m256i codes = _mm256_set1_epi8(3);
  const __m256i x = _mm256_set1_epi8(5);
  __m256i sums[kChains];
#pragma GCC unroll 8
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 8
    for (auto& sum : sums) {
      asm volatile("" : "+x"(codes));  // as if changed, or one product would serve all
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
    }
  }
#pragma GCC unroll 8
  for (auto& sum : sums) asm volatile("" : : "x"(sum));  // a use the compiler must not remove
  return rounds * kChains * 32;
}

}  // namespace quintet::avx2
