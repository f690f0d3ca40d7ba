// A row of logits without the tokens a mask excludes, until the end of its life.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "candidates.h"
#include "vector_math.h"

namespace quintet {

class RowMask {
 public:
  // logits [n] are those of `row`, as scan_whole_row left it; it is so again with what the mask leaves.
  // mask: [num_mask_words(n)], a bit per token that may come; null where all may.
  RowMask(float* logits, int n, const uint32_t* mask, CandidateRow& row) : logits_(logits), row_(row) {
    if (mask == nullptr) return;
    row.scratch->unmasked.assign(logits, logits + n);
    is_masked_ = true;
    exclude_unmasked(logits, n, mask);
    row.max = scan_row(logits, n, row.scratch->block_max.data()).max;
  }
  ~RowMask() {
    if (is_masked_) std::copy(row_.scratch->unmasked.begin(), row_.scratch->unmasked.end(), logits_);
  }
  RowMask(const RowMask&) = delete;
  RowMask& operator=(const RowMask&) = delete;

  // Whether nothing above -inf is left.
  bool leaves_nothing() const { return row_.max == -std::numeric_limits<float>::infinity(); }

 private:
  float* logits_;
  CandidateRow& row_;
  bool is_masked_ = false;
};

}  // namespace quintet
