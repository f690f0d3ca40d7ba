// Changes to a few logits of a row, taken back at the end: the log-probabilities are those of the model's own logits,
// and the caller's row is not spent.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace quintet {

class LogitEdits {
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
    constexpr double kLargest = std::numeric_limits<float>::max();
    const float old = logits_[id];
    if (old == kExcluded) return;
    undo_.emplace_back(id, old);
    logits_[id] = static_cast<float>(std::clamp(change(static_cast<double>(old)), -kLargest, kLargest));
  }

  void exclude(int32_t id) {
    undo_.emplace_back(id, logits_[id]);
    logits_[id] = kExcluded;
  }

  void undo_to(size_t count) {
    while (undo_.size() > count) {
      logits_[undo_.back().first] = undo_.back().second;
      undo_.pop_back();
    }
  }

 private:
  static constexpr float kExcluded = -std::numeric_limits<float>::infinity();

  float* logits_;
  std::vector<std::pair<int32_t, float>>& undo_;
};

}  // namespace quintet
