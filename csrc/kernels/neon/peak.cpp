#include "peak.h"

#include <arm_neon.h>

namespace quintet::neon {

int64_t dot_peak(int64_t rounds) {
  constexpr int kChains = 16;  // four a cycle at a latency of four, at most
  const int8x16_t codes = vdupq_n_s8(3);
  const int8x16_t x = vdupq_n_s8(5);
  int32x4_t sums[kChains];
#pragma GCC unroll 16
  for (auto& sum : sums) {
    sum = vdupq_n_s32(0);
    asm volatile("" : "+w"(sum));  // as if each were another value, or one chain would serve all
  }
  for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = vdotq_laneq_s32(sum, codes, x, 0);
  }
#pragma GCC unroll 16
  for (auto& sum : sums) asm volatile("" : : "w"(sum));  // a use the compiler must not remove
  return rounds * kChains * 16;
}

}  // namespace quintet::neon
