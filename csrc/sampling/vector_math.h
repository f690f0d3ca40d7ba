// The loops that visit a whole vocabulary.  A row is cut into blocks of 128; every float sum is 16 lane sums over a
// block, a fixed tree over the lanes, then double over the blocks, so results are the same bits on every instruction
// set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quintet {

inline constexpr int kVocabBlock = 128;

constexpr int num_vocab_blocks(int n) { return (n + kVocabBlock - 1) / kVocabBlock; }

struct RowScan {
  float max;     // of the row
  bool has_nan;  // some element is NaN
};

// block_max[b] = largest of x[128 b ..]; block_max: [num_vocab_blocks(n)].  Maxima are unspecified when has_nan.
RowScan scan_row(const float* x, int n, float* block_max);

// weights[i] = exp((x[i] - max) * scale), within 2 ulp, and 0 where the exponent is below -80.
// x[i] <= max, max and scale finite, scale > 0.  Writes block_sums [num_vocab_blocks(n)] and returns their sum.
double exp_row(const float* x, int n, float max, float scale, float* weights, double* block_sums);

// Sets to 0 each weight below `cut`, and each equal to `cut` whose index is above `last_index`; sums as exp_row does.
double mask_row(float* weights, int n, float cut, int last_index, double* block_sums);

constexpr int num_mask_words(int n) { return (n + 31) / 32; }

// Sets x[i] to -inf where bit i % 32 of mask[i / 32] is 0; mask: [num_mask_words(n)].
void exclude_unmasked(float* x, int n, const uint32_t* mask);

}  // namespace quintet
