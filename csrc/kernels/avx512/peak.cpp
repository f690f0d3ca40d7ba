#include "peak.h"

#include <immintrin.h>

namespace quintet::avx512 {

int64_t dot_peak(int64_t rounds) {
  // Two a cycle at a latency of four or five need ten chains; the rest is slack.
  constexpr int kChains = 16;
  const __m512i codes = _mm512_set1_epi8(3);
  const __m512i x = _mm512_set1_epi8(5);
  __m512i sums[kChains];
#pragma GCC unroll 16
  for (auto& sum : sums) {
    sum = _mm512_setzero_si512();
    asm volatile("" : "+v"(sum));  // as if each were another value, or one chain would serve all
  }
  for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, codes, x);
  }
#pragma GCC unroll 16
  for (auto& sum : sums) asm volatile("" : : "v"(sum));  // a use the compiler must not remove
  return rounds * kChains * 64;
}

}  // namespace quintet::avx512
