#include "vector_math.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

// One copy of each loop per instruction set, chosen when the module is loaded.  The operations and their order are the
// same in each (the file is compiled without contraction to fused multiply-add), so are the results.  Sanitizers
// instrument the resolvers, which run before they are ready.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define QUINTET_CLONES __attribute__((target_clones("default", "avx2", "arch=skylake-avx512")))
#else
#define QUINTET_CLONES
#endif
#define QUINTET_INLINE inline __attribute__((always_inline))

namespace quintet {
namespace {

constexpr int kLanes = 16;
using F16 = float __attribute__((vector_size(kLanes * sizeof(float))));
using I16 = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using U16 = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));

constexpr float kInf = std::numeric_limits<float>::infinity();

QUINTET_INLINE void load(F16& v, const float* p) { std::memcpy(&v, p, sizeof v); }
QUINTET_INLINE void store(float* p, const F16& v) { std::memcpy(p, &v, sizeof v); }

// The block itself, or a copy padded with `fill` when the row ends inside it.
QUINTET_INLINE const float* whole_block(const float* block, int length, float fill, float (&padded)[kVocabBlock]) {
  if (length == kVocabBlock) return block;
  std::fill(padded, padded + kVocabBlock, fill);
  std::copy(block, block + length, padded);
  return padded;
}

QUINTET_INLINE float lane_max(F16 v) {
  F16 w = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v = v > w ? v : w;
  w = __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  v = v > w ? v : w;
  w = __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  v = v > w ? v : w;
  return v[0] > v[1] ? v[0] : v[1];
}

QUINTET_INLINE float lane_sum(F16 v) {
  v = v + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v = v + __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  v = v + __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  return v[0] + v[1];
}

// exp(x) for x <= 0: x = r ln 2 + f with integer r and |f| <= ln(2) / 2, then the Taylor polynomial of exp(f) to f^7
// (truncation below 2^-27) times 2^r.  Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits.
QUINTET_INLINE void exp_lanes(F16& x) {
  constexpr float kRound = 0x1.8p23f, kLog2e = 0x1.715476p0f;
  constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;  // kLn2High * r is exact
  const F16 zero = {};
  const I16 live = x > -80.0f;
  const F16 z = live ? x : zero;
  const F16 shifted = z * kLog2e + kRound;
  const F16 r = shifted - kRound;
  const F16 f = (z - r * kLn2High) - r * kLn2Low;
  F16 p = f * (1.0f / 5040) + (1.0f / 720);
  p = p * f + (1.0f / 120);
  p = p * f + (1.0f / 24);
  p = p * f + (1.0f / 6);
  p = p * f + 0.5f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  const U16 bits = reinterpret_cast<U16>(p) + (reinterpret_cast<U16>(shifted) << 23);
  x = live ? reinterpret_cast<F16>(bits) : zero;
}

}  // namespace

QUINTET_CLONES RowScan scan_row(const float* x, int n, float* block_max) {
  const F16 lowest = F16{} - kInf;
  I16 unordered = {};
  float row_max = -kInf;
  for (int begin = 0, b = 0; begin < n; begin += kVocabBlock, ++b) {
    float padded[kVocabBlock];
    const float* block = whole_block(x + begin, std::min(kVocabBlock, n - begin), -kInf, padded);
    F16 best = lowest;
    for (int i = 0; i < kVocabBlock; i += kLanes) {
      F16 v;
      load(v, block + i);
      best = v > best ? v : best;
      unordered |= v != v;
    }
    block_max[b] = lane_max(best);
    row_max = std::max(row_max, block_max[b]);
  }
  int32_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= unordered[lane];
  return {row_max, any != 0};
}

QUINTET_CLONES double exp_row(const float* x, int n, float max, float scale, float* weights, double* block_sums) {
  double total = 0;
  for (int begin = 0, b = 0; begin < n; begin += kVocabBlock, ++b) {
    const int length = std::min(kVocabBlock, n - begin);
    float padded[kVocabBlock], padded_out[kVocabBlock];
    const float* block = whole_block(x + begin, length, -kInf, padded);
    float* out = length == kVocabBlock ? weights + begin : padded_out;
    F16 sum = {};
    for (int i = 0; i < kVocabBlock; i += kLanes) {
      F16 v;
      load(v, block + i);
      v = (v - max) * scale;
      exp_lanes(v);
      sum += v;
      store(out + i, v);
    }
    if (out == padded_out) std::copy(out, out + length, weights + begin);
    block_sums[b] = lane_sum(sum);
    total += block_sums[b];
  }
  return total;
}

QUINTET_CLONES double mask_row(float* weights, int n, float cut, int last_index, double* block_sums) {
  const I16 lane_index = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const F16 zero = {};
  double total = 0;
  for (int begin = 0, b = 0; begin < n; begin += kVocabBlock, ++b) {
    const int length = std::min(kVocabBlock, n - begin);
    float padded[kVocabBlock], padded_out[kVocabBlock];
    const float* block = whole_block(weights + begin, length, 0.0f, padded);
    float* out = length == kVocabBlock ? weights + begin : padded_out;
    F16 sum = {};
    for (int i = 0; i < kVocabBlock; i += kLanes) {
      F16 v;
      load(v, block + i);
      const I16 index = lane_index + (begin + i);
      const I16 kept = (v > cut) | ((v == cut) & (index <= last_index));
      v = kept ? v : zero;
      sum += v;
      store(out + i, v);
    }
    if (out == padded_out) std::copy(out, out + length, weights + begin);
    block_sums[b] = lane_sum(sum);
    total += block_sums[b];
  }
  return total;
}

}  // namespace quintet
