#include "row_sampler.h"

#include <limits>
#include <stdexcept>

#include "logprobs.h"
#include "philox.h"
#include "row_mask.h"
#include "truncation.h"
#include "vector_math.h"

namespace quintet {
RowSampler::RowSampler(RowParams params, int vocab_size, const std::vector<int32_t>& prompt_ids, uint64_t seed)
    : params_((check(params, vocab_size), std::move(params))),
      vocab_size_(vocab_size),
      seed_(seed),
      history_(params_.penalty_last_n),
      dry_(params_.dry),
      mirostat_(params_.mirostat, params_.mirostat_tau, params_.mirostat_eta) {
  for (const int32_t id : prompt_ids) {
    if (id < 0 || id >= vocab_size_) {
      throw std::invalid_argument("prompt_ids holds a token id outside the vocabulary");
    }
    // Presence and frequency count the output only.
    if (params_.repetition_penalty != 1) history_.add_prompt(id);
    dry_.add(id);
  }
}

void RowSampler::accept(int32_t id) {
  ++num_accepted_;
  if (params_.has_penalties()) history_.add_output(id);
  dry_.add(id);
}

// Bias, then the stages that change single logits, in their order.
void RowSampler::edit_logits(LogitEdits& edits, SamplingScratch& scratch) const {
  for (const auto& [id, bias] : params_.logit_bias) {
    edits.edit(id, [bias = bias](double logit) { return logit + bias; });
  }
  for (const Stage stage : params_.order) {
    if (stage == Stage::kPenalties) {
      for (const TokenHistory::Entry& entry : history_.entries()) {
        edits.edit(entry.id, [&](double logit) {
          logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
          if (entry.output_count == 0) return logit;
          return logit - params_.presence_penalty - params_.frequency_penalty * entry.output_count;
        });
      }
    } else if (stage == Stage::kDry && dry_.is_on()) {
      dry_.for_each_penalty(scratch, [&](int32_t id, double penalty) {
        edits.edit(id, [penalty](double logit) { return logit - penalty; });
      });
    }
  }
}

// The edits and the min_tokens mask.  `row` is the row as scan_row found it, and again afterwards.
void RowSampler::prepare(LogitEdits& edits, CandidateRow& row) const {
  edit_logits(edits, *row.scratch);
  const size_t before_mask = edits.count();
  if (num_accepted_ < static_cast<uint64_t>(params_.min_tokens)) {
    for (const int32_t id : params_.ending_ids) edits.exclude(id);
  }
  if (edits.count() == 0) return;
  float* block_max = row.scratch->block_max.data();
  row.max = scan_row(edits.logits(), vocab_size_, block_max).max;
  if (row.max == -std::numeric_limits<float>::infinity()) {  // only ending tokens are possible: one it must be
    edits.undo_to(before_mask);
    row.max = scan_row(edits.logits(), vocab_size_, block_max).max;
  }
}

bool RowSampler::excludes_top_choices() const {
  return params_.xtc_probability > 0 &&
         philox_uniform(seed_, num_accepted_, RandomStream::kXtc) < params_.xtc_probability;
}

// The stages between the edited logits and the draw, in their order; leaves the row weighed.
void RowSampler::narrow(CandidateRow& row) const {
  if (mirostat_.is_on()) return mirostat_.narrow(row, params_.temperature);
  double temperature = 1;
  const auto to_weights = [&] {
    if (row.weights == nullptr) weigh(row, temperature);
  };
  const auto to_logits = [&] {
    if (row.weights != nullptr) compact(row);
  };
  for (const Stage stage : params_.order) {
    switch (stage) {
      case Stage::kPenalties:
      case Stage::kDry:
        break;  // done by edit_logits
      case Stage::kTopNSigma:
        if (params_.top_n_sigma == 0) break;
        to_logits();
        keep_top_n_sigma(row, params_.top_n_sigma);
        break;
      case Stage::kTemperature:
        to_logits();
        temperature = params_.temperature;
        if (params_.dynatemp_range == 0) break;
        temperature = dynamic_temperature(row, temperature, params_.dynatemp_range, params_.dynatemp_exponent);
        break;
      case Stage::kTopK:
        if (params_.top_k == 0) break;
        to_logits();
        keep_top_k(row, params_.top_k);
        break;
      case Stage::kTypicalP:
        if (params_.typical_p == 1) break;
        to_weights();
        keep_typical(row, temperature, params_.typical_p);
        break;
      case Stage::kTopP:
        if (params_.top_p == 1) break;
        to_weights();
        keep_top_p(row, params_.top_p);
        break;
      case Stage::kMinP:
        if (params_.min_p == 0) break;
        to_weights();
        keep_min_p(row, params_.min_p);
        break;
      case Stage::kXtc:
        if (!excludes_top_choices()) break;
        to_weights();
        exclude_top_choices(row, params_.xtc_threshold);
        break;
    }
  }
  to_weights();
}

Sampled RowSampler::sample(float* logits, SamplingScratch& scratch, const uint32_t* mask) {
  Sampled result;
  CandidateRow row;
  if (!scan_whole_row(scratch, logits, vocab_size_, row)) return result;

  double log_total = 0;
  if (params_.num_logprobs >= 0) {
    log_total = log_sum_exp(row);
    for (const auto& [id, logit] : largest_logits(row, params_.num_logprobs)) {
      result.top_logprobs.emplace_back(id, static_cast<double>(logit) - log_total);
    }
  }
  {
    const RowMask masked(logits, vocab_size_, mask, row);
    if (masked.leaves_nothing()) return {.token_id = Sampled::kAllMasked, .logprob = {}, .top_logprobs = {}};
    LogitEdits edits(logits, scratch.undo);
    prepare(edits, row);
    if (params_.temperature == 0) {
      result.token_id = argmax(row);
    } else {
      narrow(row);
      const int index = draw(row, philox_uniform(seed_, num_accepted_));
      result.token_id = row.id(index);
      if (mirostat_.is_on()) mirostat_.observe(row, index);
    }
  }
  if (params_.num_logprobs >= 0) result.logprob = static_cast<double>(logits[result.token_id]) - log_total;
  accept(result.token_id);
  return result;
}

std::vector<std::pair<int32_t, double>> RowSampler::distribution(float* logits, SamplingScratch& scratch,
                                                                 const uint32_t* mask) const {
  CandidateRow row;
  if (!scan_whole_row(scratch, logits, vocab_size_, row)) return {};
  const RowMask masked(logits, vocab_size_, mask, row);
  if (masked.leaves_nothing()) return {};
  LogitEdits edits(logits, scratch.undo);
  prepare(edits, row);
  if (params_.temperature == 0) return {{argmax(row), 1.0}};
  narrow(row);
  std::vector<std::pair<int32_t, double>> probabilities;
  for (int i = 0; i < row.size; ++i) {
    if (row.weights[i] > 0) probabilities.emplace_back(row.id(i), row.weights[i] / row.total);
  }
  return probabilities;
}

}  // namespace quintet
