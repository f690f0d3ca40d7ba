// Log-probabilities of a row as the model gave it.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "candidates.h"

namespace quintet {

struct TokenScore {
  double logprob;
  std::vector<std::pair<int32_t, double>> top;  // by falling logprob, of equal ones the lower id first
};

// The log-probability of `id` in a row of logits [vocab_size], and of the `count` most probable tokens; nothing where
// the row holds NaN or +inf, or nothing above -inf.
std::optional<TokenScore> score(const float* logits, int vocab_size, int32_t id, int count, SamplingScratch& scratch);

// log(sum(exp(logits))) of a whole row.  The exponentials are float32, their sum over the blocks float64.
double log_sum_exp(CandidateRow row);

// The `count` largest logits above -inf with their ids, largest first, of equal ones the lower id first.
std::vector<std::pair<int32_t, float>> largest_logits(CandidateRow row, int count);

}  // namespace quintet
