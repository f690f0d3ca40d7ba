// Log-probabilities of a row as the model gave it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "candidates.h"

namespace quintet {

// log(sum(exp(logits))) of a whole row.  The exponentials are float32, their sum over the blocks float64.
double log_sum_exp(CandidateRow row);

// The `count` largest logits above -inf with their ids, largest first, of equal ones the lower id first.
std::vector<std::pair<int32_t, float>> largest_logits(CandidateRow row, int count);

}  // namespace quintet
