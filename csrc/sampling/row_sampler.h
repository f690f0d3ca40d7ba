// One sequence's sampler: its parameters, its token history and its place in the random stream.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "candidates.h"
#include "dry.h"
#include "logit_edits.h"
#include "mirostat.h"
#include "row_params.h"
#include "token_history.h"

namespace quintet {

struct Sampled {
  static constexpr int32_t kNoNumbers = -1;  // the row holds NaN or +inf, or nothing above -inf
  static constexpr int32_t kAllMasked = -2;  // the mask leaves nothing above -inf
  static constexpr int32_t kFailed = -3;     // sampling it threw; only ever set by callers of sample()
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

  // Records a token as generated: counts for the penalties and min_tokens, and moves the random stream on.  Mirostat
  // learns from sample() only.  `id` is in [0, vocab_size).
  void accept(int32_t id);

  int vocab_size() const { return vocab_size_; }
  bool is_greedy() const { return params_.temperature == 0; }
  uint64_t num_accepted() const { return num_accepted_; }

 private:
  void edit_logits(LogitEdits& edits, SamplingScratch& scratch) const;
  void prepare(LogitEdits& edits, CandidateRow& row) const;
  void narrow(CandidateRow& row) const;
  bool excludes_top_choices() const;

  RowParams params_;
  int vocab_size_;
  uint64_t seed_;
  uint64_t num_accepted_ = 0;
  TokenHistory history_;
  DryPenalty dry_;
  Mirostat mirostat_;
};

}  // namespace quintet
