// The kinds of phase: rows, matrix products, attention, and a place to stop.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "plan.h"
#include "row_op.h"

namespace quintet {

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Hands out items 0 .. count - 1.  Each worker first takes its own contiguous share, the same in every step so that
// caches and TLBs stay warm, then what is left of the others': a CPU can be lost for milliseconds, to another process
// or to the host of a virtual one, and what waits for it then is one item rather than its share.
class WorkShare {
 public:
  explicit WorkShare(int num_threads) : num_threads_(num_threads), taken_(static_cast<size_t>(num_threads)) {}
  void reset() {
    for (auto& taken : taken_) taken.count.store(0, std::memory_order_relaxed);
  }
  // A worker's items ascend within each share.
  template <typename Function>
  void for_each(int64_t count, int worker, Function&& body) {
    for (int i = 0; i < num_threads_; i++) {
      const int owner = (worker + i) % num_threads_;
      const int64_t begin = count * owner / num_threads_;
      const int64_t size = count * (owner + 1) / num_threads_ - begin;
      auto& taken = taken_[static_cast<size_t>(owner)].count;
      while (taken.load(std::memory_order_relaxed) < size) {
        const int64_t item = taken.fetch_add(1, std::memory_order_relaxed);
        if (item < size) body(begin + item);
      }
    }
  }

 private:
  struct alignas(64) Taken {
    std::atomic<int64_t> count{0};
  };
  int num_threads_;
  std::vector<Taken> taken_;  // of each worker's share
};

class AttentionPhase;

class RowPhase final : public Phase {
 public:
  explicit RowPhase(bool logits_rows) : logits_rows_(logits_rows) {}
  void add(RowOp op);
  bool logits_rows() const { return logits_rows_; }
  const std::vector<RowOp>& ops() const { return ops_; }
  // From now on every worker does a step's only row for itself: that takes less time than a barrier.
  void replicate(const Plan& plan);
  // A worker's own copy of what it wrote, or the plan's.
  const Forms& forms(const StepContext& context, const Forms& forms) const;
  PhaseInfo info(const Plan& plan) const override;
  void run(const StepContext& context) override;
  bool needs_barrier(const Step& step) const override { return !is_replicated(step); }

 private:
  int num_rows(const Step& step) const { return logits_rows_ ? step.num_logits_rows : step.num_tokens; }
  bool is_replicated(const Step& step) const { return replicated_ && num_rows(step) == 1; }

  bool logits_rows_;
  std::vector<RowOp> ops_;
  bool replicated_ = false;
  std::vector<Replica> replicas_;  // of all workers but the first, which has the plan's memory
};

// The keys and values that a worker's share of attention will read, for the products before it to ask for: those are
// bound by arithmetic where many sequences share a step, attention by memory.  A worker's share of an L3 at most: what
// else would come would push out what was there first.
class KVAhead : public Ahead {
 public:
  KVAhead() : Ahead{nullptr, nullptr, next_block} {}
  void reset() { step_ = nullptr; }
  // Of sequences that are one item for each KV head.
  void start(const Step& step, const KVCache& cache, int left, int worker, int num_threads);
  bool is_started() const { return step_ != nullptr; }

 private:
  static bool next_block(Ahead& it);
  bool advance();
  void start_item();

  const Step* step_ = nullptr;
  const KVCache* cache_ = nullptr;
  int left_ = 0;
  int64_t item_ = 0, end_item_ = 0;
  int block_ = 0, first_block_ = 0, end_block_ = 0;
  bool is_v_ = false;
  size_t bytes_left_ = 0;
};

// Matrix products, and the row ops that follow them where each item can do its own columns.
class LinearPhase final : public Phase {
 public:
  LinearPhase(const Plan& plan, std::vector<LinearTask> tasks, bool logits_rows, const RowPhase* before);
  void reset() override { share_.reset(); }
  PhaseInfo info(const Plan& plan) const override;
  void run(const StepContext& context) override;
  bool absorb(const RowOp& op, bool logits_rows) override;
  void set_next(AttentionPhase* next) { next_ = next; }

 private:
  void run_task(const StepContext& context, const LinearTask& task, Ahead* ahead, int row_begin, int row_end,
                int panel_begin, int panel_end) const;

  const Plan& plan_;
  std::vector<LinearTask> tasks_;
  bool logits_rows_;
  const RowPhase* before_;  // where the input may be a worker's own, or null
  std::vector<RowOp> ops_;  // an item does the same panels of all tasks where there are any
  WorkShare share_;
  AttentionPhase* next_ = nullptr;  // whose keys and values to ask for
};

// Attention, the row ops before it that treat each head alone, and those after it.
class AttentionPhase final : public Phase {
 public:
  AttentionPhase(const Plan& plan, const AttentionOptions& options, std::vector<RowOp> before);
  void reset() override;
  PhaseInfo info(const Plan& plan) const override;
  void run(const StepContext& context) override;
  bool absorb(const RowOp& op, bool logits_rows) override;

  // What a worker will read, as far as no product of this step has asked for it; null where that is not known.
  Ahead* ahead(const StepContext& context);

  // True where these ops can be done for one KV head and its heads of q alone.
  static bool takes(const std::vector<RowOp>& ops, int num_kv_heads);
  // A sequence of more new tokens is several items.
  static constexpr int kQueryTile = 64;

 private:
  int tiles_of(const Step& step, int seq) const;
  void run_tile(const StepContext& context, int seq, int tile, int head, bool with_before) const;
  void run_head_ops(const std::vector<RowOp>& ops, const StepContext& context, int row, int head) const;

  AttentionOptions options_;
  AttentionArgs args_;
  int num_kv_heads_;
  std::vector<RowOp> before_, after_;
  WorkShare share_;
  struct alignas(64) Padded {
    KVAhead kv;
  };
  std::vector<Padded> ahead_;  // of each worker
};

// Does nothing itself: see Plan::run_observed.  It also keeps what follows from becoming part of what went before.
class ObservePhase final : public Phase {
 public:
  explicit ObservePhase(const Observation& observation) : observation_(observation) {}
  const Observation& observation() const { return observation_; }
  PhaseInfo info(const Plan&) const override { return {.label = "observe"}; }
  void run(const StepContext&) override {}
  bool needs_barrier(const Step&) const override { return false; }

 private:
  Observation observation_;
};

// True where `rows` may be done by every worker for itself at a time when others already do the products that follow.
bool can_replicate(const RowPhase& rows, const Plan& plan, const std::vector<LinearTask>& products);

}  // namespace quintet
