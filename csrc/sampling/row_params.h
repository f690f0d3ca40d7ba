// What a request asks of its sampler.  Meanings and ranges are those of quintet.sampling.SamplingParams.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "dry.h"

namespace quintet {

// The stages between a row of logits and the draw; the values are places in SamplingParams's STAGES.
enum class Stage { kPenalties, kDry, kTopNSigma, kTemperature, kTopK, kTypicalP, kTopP, kMinP, kXtc };

struct RowParams {
  double temperature = 1.0;  // 0 = greedy
  double dynatemp_range = 0.0;
  double dynatemp_exponent = 1.0;
  double top_n_sigma = 0.0;  // 0 = off
  int top_k = 0;             // 0 = off
  double typical_p = 1.0;
  double top_p = 1.0;
  double min_p = 0.0;
  double xtc_probability = 0.0;
  double xtc_threshold = 0.1;
  int mirostat = 0;  // version; 0 = off
  double mirostat_tau = 5.0;
  double mirostat_eta = 0.1;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  int64_t penalty_last_n = -1;  // -1 = all
  DryParams dry;
  std::vector<std::pair<int32_t, double>> logit_bias;
  int64_t min_tokens = 0;
  std::vector<int32_t> ending_ids;  // not chosen before min_tokens tokens are out
  int num_logprobs = -1;            // -1 = none; else the chosen token's and this many of the largest
  std::vector<Stage> order = {Stage::kPenalties, Stage::kDry,  Stage::kTopNSigma, Stage::kTemperature, Stage::kTopK,
                              Stage::kTypicalP,  Stage::kTopP, Stage::kMinP,      Stage::kXtc};

  bool has_penalties() const;
};

// Throws std::invalid_argument for a value that SamplingParams would not have let through.
void check(const RowParams& params, int vocab_size);

}  // namespace quintet
