#include "logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "vector_math.h"

namespace quintet {

std::optional<TokenScore> score(const float* logits, int vocab_size, int32_t id, int count, SamplingScratch& scratch) {
  CandidateRow row;
  if (!scan_whole_row(scratch, logits, vocab_size, row)) return std::nullopt;
  const double log_total = log_sum_exp(row);
  TokenScore result = {static_cast<double>(logits[id]) - log_total, {}};
  for (const auto& [top_id, logit] : largest_logits(row, count)) {
    result.top.emplace_back(top_id, static_cast<double>(logit) - log_total);
  }
  return result;
}

double log_sum_exp(CandidateRow row) {
  weigh(row, 1.0);
  return static_cast<double>(row.max) + std::log(row.total);
}

std::vector<std::pair<int32_t, float>> largest_logits(CandidateRow row, int count) {
  std::vector<std::pair<int32_t, float>> largest;
  if (count == 0) return largest;
  keep_top_k(row, count);
  for (int i = 0; i < row.size; ++i) {
    if (row.logits[i] > -std::numeric_limits<float>::infinity()) largest.emplace_back(row.id(i), row.logits[i]);
  }
  std::stable_sort(largest.begin(), largest.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return largest;
}

}  // namespace quintet
