// DRY: a penalty on tokens that would go on repeating what the sequence has said before, which grows exponentially with
// the length of the repetition.
// Source: oobabooga/text-generation-webui, pull request 5677; the treatment of breakers is that of llama.cpp,
// src/llama-sampling.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "candidates.h"
#include "token_sequences.h"

namespace quintet {

struct DryParams {
  double multiplier = 0;  // 0 = off
  double base = 1.75;
  int64_t allowed_length = 2;                      // repetitions shorter than this are free; at least 1
  int64_t last_n = -1;                             // tokens looked back at; -1 = all of them
  std::shared_ptr<const TokenSequences> breakers;  // over which no repetition reaches; null = none
};

class DryPenalty {
 public:
  explicit DryPenalty(DryParams params) : params_(std::move(params)) {}

  bool is_on() const { return params_.multiplier != 0 && params_.last_n != 0; }

  // The next token of prompt or output.
  void add(int32_t id) {
    if (is_on()) tokens_.push_back(id);
  }

  // Calls apply(id, penalty) once for each token whose logit is to fall.  Linear in the tokens looked back at.
  template <typename Apply>
  void for_each_penalty(SamplingScratch& scratch, Apply apply) const {
    find_repeats(scratch);
    for (const auto& [id, length] : scratch.repeats) apply(id, penalty(length));
  }

 private:
  void find_repeats(SamplingScratch& scratch) const;
  int limit_by_breakers(int num_tokens) const;
  bool is_breaker(int32_t id) const { return params_.breakers != nullptr && params_.breakers->holds(id); }
  double penalty(int32_t length) const;

  DryParams params_;
  std::vector<int32_t> tokens_;
};

}  // namespace quintet
