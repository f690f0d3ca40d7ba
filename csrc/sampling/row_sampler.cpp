#include "row_sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "logprobs.h"
#include "philox.h"
#include "vector_math.h"

namespace quintet {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr double kLargestFloat = std::numeric_limits<float>::max();

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

bool within(double value, double low, double high) { return value >= low && value <= high; }  // false for NaN

}  // namespace

// Changes to a few logits of a row, taken back at the end: the log-probabilities are those of the model's own logits,
// and the caller's row is not spent.
class RowSampler::LogitEdits {
 public:
  LogitEdits(float* logits, std::vector<std::pair<int32_t, float>>& undo) : logits_(logits), undo_(undo) {
    undo_.clear();
  }
  ~LogitEdits() { undo_to(0); }
  LogitEdits(const LogitEdits&) = delete;
  LogitEdits& operator=(const LogitEdits&) = delete;

  float* logits() const { return logits_; }
  size_t count() const { return undo_.size(); }

  // logit = change(logit), held to finite values; what the model excludes (-inf) stays excluded.
  template <typename Change>
  void edit(int32_t id, Change change) {
    const float old = logits_[id];
    if (old == -kInf) return;
    undo_.emplace_back(id, old);
    logits_[id] = static_cast<float>(std::clamp(change(static_cast<double>(old)), -kLargestFloat, kLargestFloat));
  }

  void exclude(int32_t id) {
    undo_.emplace_back(id, logits_[id]);
    logits_[id] = -kInf;
  }

  void undo_to(size_t count) {
    while (undo_.size() > count) {
      logits_[undo_.back().first] = undo_.back().second;
      undo_.pop_back();
    }
  }

 private:
  float* logits_;
  std::vector<std::pair<int32_t, float>>& undo_;
};

// A row without what the mask excludes, until the end of its life.
class RowSampler::Masked {
 public:
  Masked(float* logits, int n, const uint32_t* mask, CandidateRow& row) : logits_(logits), row_(row) {
    if (mask == nullptr) return;
    row.scratch->unmasked.assign(logits, logits + n);
    is_masked_ = true;
    exclude_unmasked(logits, n, mask);
    row.max = scan_row(logits, n, row.scratch->block_max.data()).max;
  }
  ~Masked() {
    if (is_masked_) std::copy(row_.scratch->unmasked.begin(), row_.scratch->unmasked.end(), logits_);
  }
  Masked(const Masked&) = delete;
  Masked& operator=(const Masked&) = delete;

  bool is_empty() const { return row_.max == -kInf; }

 private:
  float* logits_;
  CandidateRow& row_;
  bool is_masked_ = false;
};

RowSampler::RowSampler(RowParams params, int vocab_size, const std::vector<int32_t>& prompt_ids, uint64_t seed)
    : params_(std::move(params)), vocab_size_(vocab_size), seed_(seed) {
  const auto is_token = [&](int32_t id) { return id >= 0 && id < vocab_size_; };
  require(vocab_size_ >= 1 && vocab_size_ <= std::numeric_limits<int>::max() - kVocabBlock,
          "vocab_size must be at least 1");
  require(within(params_.temperature, 0, kLargestFloat), "temperature must be finite and at least 0");
  require(params_.top_k >= 0, "top_k must be at least 0");
  require(within(params_.top_p, 0, 1), "top_p must be in [0, 1]");
  require(within(params_.min_p, 0, 1), "min_p must be in [0, 1]");
  require(params_.repetition_penalty > 0 && params_.repetition_penalty <= kLargestFloat,
          "repetition_penalty must be finite and above 0");
  require(std::isfinite(params_.presence_penalty), "presence_penalty must be finite");
  require(std::isfinite(params_.frequency_penalty), "frequency_penalty must be finite");
  require(params_.min_tokens >= 0, "min_tokens must be at least 0");
  require(params_.num_logprobs >= -1, "num_logprobs must be at least -1");
  for (const auto& [id, bias] : params_.logit_bias) {
    require(is_token(id), "logit_bias names a token id outside the vocabulary");
    require(std::isfinite(bias), "logit_bias must be finite");
  }
  require(std::all_of(params_.ending_ids.begin(), params_.ending_ids.end(), is_token),
          "ending_ids holds a token id outside the vocabulary");
  require(std::all_of(prompt_ids.begin(), prompt_ids.end(), is_token),
          "prompt_ids holds a token id outside the vocabulary");
  if (params_.repetition_penalty != 1) {
    for (const int32_t id : prompt_ids) history_.add_prompt(id);
  }
}

bool RowSampler::has_penalties() const {
  return params_.repetition_penalty != 1 || params_.presence_penalty != 0 || params_.frequency_penalty != 0;
}

void RowSampler::accept(int32_t id) {
  ++num_accepted_;
  if (has_penalties()) history_.add_output(id);
}

void RowSampler::apply_bias_and_penalties(LogitEdits& edits) const {
  for (const auto& [id, bias] : params_.logit_bias) {
    edits.edit(id, [bias = bias](double logit) { return logit + bias; });
  }
  for (const TokenHistory::Entry& entry : history_.entries()) {
    edits.edit(entry.id, [&](double logit) {
      logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
      if (entry.output_count == 0) return logit;
      return logit - params_.presence_penalty - params_.frequency_penalty * entry.output_count;
    });
  }
}

// Bias, penalties and the min_tokens mask.  `row` is the row as scan_row found it, and again afterwards.
void RowSampler::prepare(LogitEdits& edits, CandidateRow& row) const {
  apply_bias_and_penalties(edits);
  const size_t before_mask = edits.count();
  if (num_accepted_ < static_cast<uint64_t>(params_.min_tokens)) {
    for (const int32_t id : params_.ending_ids) edits.exclude(id);
  }
  if (edits.count() == 0) return;
  float* block_max = row.scratch->block_max.data();
  row.max = scan_row(edits.logits(), vocab_size_, block_max).max;
  if (row.max == -kInf) {  // only ending tokens are possible: one of them it must be
    edits.undo_to(before_mask);
    row.max = scan_row(edits.logits(), vocab_size_, block_max).max;
  }
}

// The stages between the edited logits and the draw, in order.
void RowSampler::narrow(CandidateRow& row) const {
  if (params_.top_k > 0) keep_top_k(row, params_.top_k);
  weigh(row, params_.temperature);
  if (params_.top_p < 1) keep_top_p(row, params_.top_p);
  if (params_.min_p > 0) keep_min_p(row, params_.min_p);
}

Sampled RowSampler::sample(float* logits, SamplingScratch& scratch, const uint32_t* mask) {
  Sampled result;
  scratch.block_max.resize(static_cast<size_t>(num_vocab_blocks(vocab_size_)));
  const RowScan scan = scan_row(logits, vocab_size_, scratch.block_max.data());
  if (scan.has_nan || !std::isfinite(scan.max)) return result;
  CandidateRow row = whole_row(scratch, logits, vocab_size_, scan.max);

  double log_total = 0;
  if (params_.num_logprobs >= 0) {
    log_total = log_sum_exp(row);
    for (const auto& [id, logit] : largest_logits(row, params_.num_logprobs)) {
      result.top_logprobs.emplace_back(id, static_cast<double>(logit) - log_total);
    }
  }
  {
    const Masked masked(logits, vocab_size_, mask, row);
    if (masked.is_empty()) return {.token_id = Sampled::kAllMasked, .logprob = {}, .top_logprobs = {}};
    LogitEdits edits(logits, scratch.undo);
    prepare(edits, row);
    if (params_.temperature == 0) {
      result.token_id = argmax(row);
    } else {
      narrow(row);
      result.token_id = row.id(draw(row, philox_uniform(seed_, num_accepted_)));
    }
  }
  if (params_.num_logprobs >= 0) result.logprob = static_cast<double>(logits[result.token_id]) - log_total;
  accept(result.token_id);
  return result;
}

std::vector<std::pair<int32_t, double>> RowSampler::distribution(float* logits, SamplingScratch& scratch,
                                                                 const uint32_t* mask) const {
  scratch.block_max.resize(static_cast<size_t>(num_vocab_blocks(vocab_size_)));
  const RowScan scan = scan_row(logits, vocab_size_, scratch.block_max.data());
  if (scan.has_nan || !std::isfinite(scan.max)) return {};
  CandidateRow row = whole_row(scratch, logits, vocab_size_, scan.max);
  const Masked masked(logits, vocab_size_, mask, row);
  if (masked.is_empty()) return {};
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
