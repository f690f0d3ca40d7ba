#include "vector_math.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

// One copy of each loop per instruction set, chosen when the module is loaded.  The operations and their order are the
// same in each (the file is compiled without contraction to fused multiply-add), so are the results.  The loops are
// plain, over 16 lanes at a time, for the vectoriser: GCC splits wide vector types into scalars before it makes the
// copies.  Sanitizers instrument the resolvers, which run before the sanitizers are ready.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(QUINTET_BASELINE_ONLY)
#define QUINTET_CLONES __attribute__((target_clones("default", "avx2", "arch=skylake-avx512")))
#else
#define QUINTET_CLONES
#endif
#define QUINTET_INLINE inline __attribute__((always_inline))

namespace quintet {
namespace {

constexpr int kLanes = 16;
constexpr float kInf = std::numeric_limits<float>::infinity();

// A block of a row: in place, or a copy padded with `fill` when the row ends inside it.
QUINTET_INLINE const float* whole_block(const float* block, int length, float fill, float* padded) {
  if (length == kVocabBlock) return block;
  for (int i = 0; i < kVocabBlock; ++i) padded[i] = i < length ? block[i] : fill;
  return padded;
}

// A float's bits as an integer of the same order; the vectoriser knows the maximum of integers, but not of floats that
// may be NaN.
QUINTET_INLINE int32_t ordered_bits(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  return bits ^ (bits >> 31 & 0x7fffffff);
}

QUINTET_INLINE float from_ordered_bits(int32_t bits) { return std::bit_cast<float>(bits ^ (bits >> 31 & 0x7fffffff)); }

// The sum of a block: lane by lane, then a tree over the lanes.
QUINTET_INLINE float block_sum(const float* block) {
  float sum[kLanes] = {};
  for (int i = 0; i < kVocabBlock; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sum[lane] += block[i + lane];
  }
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) sum[lane] += sum[lane + width];
  }
  return sum[0];
}

// exp(x) for x <= 0: x = r ln 2 + f with integer r and |f| <= ln(2) / 2, then the Taylor polynomial of exp(f) to f^7
// (truncation below 2^-27) times 2^r.  Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits.
QUINTET_INLINE float exp_nonpositive(float x) {
  constexpr float kRound = 0x1.8p23f, kLog2e = 0x1.715476p0f;
  constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;  // kLn2High * r is exact
  const float z = x > -80.0f ? x : -80.0f;
  const float shifted = z * kLog2e + kRound;
  const float r = shifted - kRound;
  const float f = (z - r * kLn2High) - r * kLn2Low;
  float p = f * (1.0f / 5040) + (1.0f / 720);
  p = p * f + (1.0f / 120);
  p = p * f + (1.0f / 24);
  p = p * f + (1.0f / 6);
  p = p * f + 0.5f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  const float value = std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23));
  return x > -80.0f ? value : 0.0f;
}

}  // namespace

QUINTET_CLONES RowScan scan_row(const float* x, int n, float* block_max) {
  float row_max = -kInf;
  uint32_t largest_magnitude = 0;
  for (int begin = 0, b = 0; begin < n; begin += kVocabBlock, ++b) {
    float padded[kVocabBlock];
    const float* block = whole_block(x + begin, std::min(kVocabBlock, n - begin), -kInf, padded);
    int32_t largest = ordered_bits(-kInf);
    for (int i = 0; i < kVocabBlock; ++i) {
      largest = std::max(largest, ordered_bits(block[i]));
      largest_magnitude = std::max(largest_magnitude, std::bit_cast<uint32_t>(block[i]) & 0x7fffffffu);
    }
    block_max[b] = from_ordered_bits(largest);
    row_max = std::max(row_max, block_max[b]);
  }
  return {row_max, largest_magnitude > std::bit_cast<uint32_t>(kInf)};  // above infinity lie the NaNs
}

QUINTET_CLONES double exp_row(const float* x, int n, float max, float scale, float* weights, double* block_sums) {
  double total = 0;
  for (int begin = 0, b = 0; begin < n; begin += kVocabBlock, ++b) {
    const int length = std::min(kVocabBlock, n - begin);
    float padded[kVocabBlock], out[kVocabBlock];
    const float* block = whole_block(x + begin, length, -kInf, padded);
    for (int i = 0; i < kVocabBlock; ++i) out[i] = exp_nonpositive((block[i] - max) * scale);
    std::copy(out, out + length, weights + begin);
    block_sums[b] = block_sum(out);
    total += block_sums[b];
  }
  return total;
}

QUINTET_CLONES double mask_row(float* weights, int n, float cut, int last_index, double* block_sums) {
  const float above_cut = std::nextafter(cut, kInf);
  double total = 0;
  for (int begin = 0, b = 0; begin < n; begin += kVocabBlock, ++b) {
    const int length = std::min(kVocabBlock, n - begin);
    float padded[kVocabBlock], out[kVocabBlock];
    const float* block = whole_block(weights + begin, length, 0.0f, padded);
    for (int i = 0; i < kVocabBlock; ++i) {
      const float smallest_kept = begin + i <= last_index ? cut : above_cut;
      out[i] = block[i] >= smallest_kept ? block[i] : 0.0f;
    }
    std::copy(out, out + length, weights + begin);
    block_sums[b] = block_sum(out);
    total += block_sums[b];
  }
  return total;
}

QUINTET_CLONES void exclude_unmasked(float* x, int n, const uint32_t* mask) {
  const auto is_excluded = [](uint32_t bits, int i) { return (bits >> i & 1) == 0; };
  const int num_whole_words = n / 32;
  for (int w = 0; w < num_whole_words; ++w) {
    float* word = x + 32 * w;
    const uint32_t bits = mask[w];
    for (int i = 0; i < 32; ++i) word[i] = is_excluded(bits, i) ? -kInf : word[i];
  }
  for (int i = 32 * num_whole_words; i < n; ++i) {
    if (is_excluded(mask[i / 32], i % 32)) x[i] = -kInf;
  }
}

}  // namespace quintet
