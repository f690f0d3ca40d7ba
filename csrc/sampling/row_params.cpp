#include "row_params.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "vector_math.h"

namespace quintet {
namespace {

constexpr double kLargestFloat = std::numeric_limits<float>::max();

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

bool within(double value, double low, double high) { return value >= low && value <= high; }  // false for NaN

bool is_stage_of_whole_rows(Stage stage) { return stage == Stage::kPenalties || stage == Stage::kDry; }

void check_dry(const DryParams& dry, int vocab_size) {
  require(within(dry.multiplier, 0, kLargestFloat), "dry_multiplier must be finite and at least 0");
  require(within(dry.base, 1, kLargestFloat), "dry_base must be finite and at least 1");
  require(dry.allowed_length >= 1, "dry_allowed_length must be at least 1");
  require(dry.last_n >= -1, "dry_penalty_last_n must be at least -1");
  require(dry.breakers == nullptr || dry.breakers->largest_id() < vocab_size,
          "dry_breakers hold a token id outside the vocabulary");
}

}  // namespace

bool RowParams::has_penalties() const {
  return penalty_last_n != 0 && (repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0);
}

void check(const RowParams& params, int vocab_size) {
  const auto is_token = [&](int32_t id) { return id >= 0 && id < vocab_size; };
  require(vocab_size >= 1 && vocab_size <= std::numeric_limits<int>::max() - kVocabBlock,
          "vocab_size must be at least 1");
  require(within(params.temperature, 0, kLargestFloat), "temperature must be finite and at least 0");
  require(within(params.dynatemp_range, 0, kLargestFloat), "dynatemp_range must be finite and at least 0");
  require(within(params.dynatemp_exponent, 0, kLargestFloat), "dynatemp_exponent must be finite and at least 0");
  require(within(params.top_n_sigma, 0, kLargestFloat), "top_n_sigma must be finite and at least 0");
  require(params.top_k >= 0, "top_k must be at least 0");
  require(within(params.typical_p, 0, 1), "typical_p must be in [0, 1]");
  require(within(params.top_p, 0, 1), "top_p must be in [0, 1]");
  require(within(params.min_p, 0, 1), "min_p must be in [0, 1]");
  require(within(params.xtc_probability, 0, 1), "xtc_probability must be in [0, 1]");
  require(within(params.xtc_threshold, 0, 1), "xtc_threshold must be in [0, 1]");
  require(params.mirostat >= 0 && params.mirostat <= 2, "mirostat must be 0, 1 or 2");
  require(within(params.mirostat_tau, 0, kLargestFloat), "mirostat_tau must be finite and at least 0");
  require(within(params.mirostat_eta, 0, 1), "mirostat_eta must be in [0, 1]");
  require(params.repetition_penalty > 0 && params.repetition_penalty <= kLargestFloat,
          "repetition_penalty must be finite and above 0");
  require(std::isfinite(params.presence_penalty), "presence_penalty must be finite");
  require(std::isfinite(params.frequency_penalty), "frequency_penalty must be finite");
  require(params.penalty_last_n >= -1, "penalty_last_n must be at least -1");
  require(params.min_tokens >= 0, "min_tokens must be at least 0");
  require(params.num_logprobs >= -1, "num_logprobs must be at least -1");
  for (const auto& [id, bias] : params.logit_bias) {
    require(is_token(id), "logit_bias names a token id outside the vocabulary");
    require(std::isfinite(bias), "logit_bias must be finite");
  }
  require(std::all_of(params.ending_ids.begin(), params.ending_ids.end(), is_token),
          "ending_ids holds a token id outside the vocabulary");
  require(std::is_partitioned(params.order.begin(), params.order.end(), is_stage_of_whole_rows),
          "order must begin with the stages that change logits");
  check_dry(params.dry, vocab_size);
}

}  // namespace quintet
