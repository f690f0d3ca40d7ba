// The three kinds of phase: rows, matrix products, attention.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "plan.h"

namespace quintet {

// Hands out items 0 .. count - 1.  Each worker first takes its own contiguous share, the same in every step so that
// caches and TLBs stay warm; the last part is taken from a common counter, because a virtual CPU can lose a
// millisecond to its host.
class WorkShare {
 public:
  void reset() { next_.store(0, std::memory_order_relaxed); }
  template <typename Function>
  void for_each(int64_t count, int worker, int num_threads, Function&& body) {
    const int64_t fixed = num_threads == 1 ? count : count * 3 / 4;
    const int64_t end = fixed * (worker + 1) / num_threads;
    for (int64_t i = fixed * worker / num_threads; i < end; i++) body(i);
    if (num_threads == 1) return;
    for (int64_t i = fixed + next_.fetch_add(1, std::memory_order_relaxed); i < count;
         i = fixed + next_.fetch_add(1, std::memory_order_relaxed)) {
      body(i);
    }
  }

 private:
  alignas(64) std::atomic<int64_t> next_{0};
};

class RowPhase final : public Phase {
 public:
  explicit RowPhase(bool logits_rows) : logits_rows_(logits_rows) {}
  void add(const char* name, RowOp op);
  bool logits_rows() const { return logits_rows_; }
  PhaseInfo info(const Plan& plan) const override;
  void run(const StepContext& context) override;

 private:
  bool logits_rows_;
  std::vector<RowOp> ops_;
  std::string names_;  // of the ops, joined
};

class LinearPhase final : public Phase {
 public:
  LinearPhase(std::vector<LinearTask> tasks, bool logits_rows) : tasks_(std::move(tasks)), logits_rows_(logits_rows) {}
  void reset() override { share_.reset(); }
  PhaseInfo info(const Plan& plan) const override;
  void run(const StepContext& context) override;

 private:
  std::vector<LinearTask> tasks_;
  bool logits_rows_;
  WorkShare share_;
};

class AttentionPhase final : public Phase {
 public:
  AttentionPhase(int q, int out, int layer, float scale, int left, int right, float softcap, int sinks)
      : q_(q), out_(out), layer_(layer), scale_(scale), left_(left), right_(right), softcap_(softcap), sinks_(sinks) {}
  void reset() override { share_.reset(); }
  PhaseInfo info(const Plan& plan) const override;
  void run(const StepContext& context) override;

 private:
  int q_, out_, layer_;
  float scale_;
  int left_, right_;
  float softcap_;
  int sinks_;
  WorkShare share_;
};

}  // namespace quintet
