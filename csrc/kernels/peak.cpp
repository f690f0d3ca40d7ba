#include "peak.h"

#include <cstring>

namespace quintet {
namespace {

int64_t portable_dot_peak(int64_t rounds) {
  constexpr int kWidth = 64;
  uint8_t codes[kWidth];
  int8_t x[kWidth];
  std::memset(codes, 3, sizeof codes);
  std::memset(x, 5, sizeof x);
  int32_t sums[kWidth] = {};
  for (int64_t i = 0; i < rounds; i++) {
    asm volatile("" : : "r"(codes), "r"(x) : "memory");  // as if they had changed
    for (int j = 0; j < kWidth; j++) sums[j] += codes[j] * x[j];
  }
  asm volatile("" : : "r"(sums) : "memory");  // as if they were used
  return rounds * kWidth;
}

}  // namespace

DotPeak dot_peak(const KernelTable& table) {
#ifdef QUINTET_X86
  if (std::strcmp(table.name, "amx") == 0) return amx::dot_peak;
  if (std::strcmp(table.name, "avx512") == 0) return avx512::dot_peak;
  if (std::strcmp(table.name, "avx2") == 0) return avx2::dot_peak;
#endif
#ifdef QUINTET_ARM64
  if (std::strcmp(table.name, "neon") == 0) return neon::dot_peak;
#endif
  static_cast<void>(table);
  return portable_dot_peak;
}

}  // namespace quintet
