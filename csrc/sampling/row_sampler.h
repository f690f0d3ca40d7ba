// One sequence's sampler: its parameters, its token history and its place in the random stream.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "candidates.h"
#include "token_history.h"

namespace quintet {

// Meanings and ranges are those of quintet.sampling.SamplingParams; here is what the sampler itself acts on.
struct RowParams {
  double temperature = 1.0;  // 0 = greedy
  int top_k = 0;             // 0 = off
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::vector<std::pair<int32_t, double>> logit_bias;
  int64_t min_tokens = 0;
  std::vector<int32_t> ending_ids;  // not chosen before min_tokens tokens are out
  int num_logprobs = -1;            // -1 = none; else the chosen token's and this many of the largest
};

struct Sampled {
  static constexpr int32_t kNoNumbers = -1;  // the row holds NaN or +inf, or nothing above -inf
  static constexpr int32_t kAllMasked = -2;  // the mask leaves nothing above -inf
  int32_t token_id = kNoNumbers;
  std::optional<double> logprob;
  std::vector<std::pair<int32_t, double>> top_logprobs;  // by falling logprob, of equal ones the lower id first
};

class RowSampler {
 public:
  // Throws std::invalid_argument for a value that SamplingParams would not have let through.
  RowSampler(RowParams params, int vocab_size, const std::vector<int32_t>& prompt_ids, uint64_t seed);

  // Chooses the next token from logits [vocab_size] and accepts it.  The logits are edited while it works and are as
  // they were when it returns.  The result is a function of these logits, the mask, the history and the seed only.
  // mask: [num_mask_words(vocab_size)], a bit per token that may come; null where all may.  It acts before every other
  // stage; the log-probabilities are those of the model's own logits all the same.
  Sampled sample(float* logits, SamplingScratch& scratch, const uint32_t* mask = nullptr);

  // What sample() would draw from: (id, probability) by rising id; empty for a row sample() answers with no token.
  std::vector<std::pair<int32_t, double>> distribution(float* logits, SamplingScratch& scratch,
                                                       const uint32_t* mask = nullptr) const;

  // Records a token as generated: counts for the penalties and min_tokens, and moves the random stream on.
  // `id` is in [0, vocab_size).
  void accept(int32_t id);

  int vocab_size() const { return vocab_size_; }
  uint64_t num_accepted() const { return num_accepted_; }

 private:
  class LogitEdits;
  class Masked;
  bool has_penalties() const;
  void apply_bias_and_penalties(LogitEdits& edits) const;
  void prepare(LogitEdits& edits, CandidateRow& row) const;
  void narrow(CandidateRow& row) const;

  RowParams params_;
  int vocab_size_;
  uint64_t seed_;
  uint64_t num_accepted_ = 0;
  TokenHistory history_;
};

}  // namespace quintet
