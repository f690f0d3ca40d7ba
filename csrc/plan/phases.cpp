#include "phases.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "kv_block.h"

namespace quintet {
namespace {

constexpr int kRowChunk = 256;            // rows whose int8 activations stay in L2 while panels stream past
constexpr size_t kItemBytes = 256 << 10;  // weights per work item: some microseconds of reading
constexpr int kItemsPerThread = 8;  // at least, where there are as many panels: else threads wait for the last one

size_t matrix_bytes(const PackedMatrix& w) { return static_cast<size_t>(num_panels(w.n)) * panel_bytes(w.layout, w.k); }

}  // namespace

void RowPhase::add(RowOp op) { ops_.push_back(std::move(op)); }

PhaseInfo RowPhase::info(const Plan&) const { return {.label = "rows:" + names_of(ops_)}; }

void RowPhase::replicate(const Plan& plan) {
  replicated_ = true;
  for (int worker = 1; worker < plan.num_threads(); worker++) replicas_.emplace_back(ops_);
}

const Forms& RowPhase::forms(const StepContext& context, const Forms& forms) const {
  if (context.worker == 0 || !is_replicated(context.step)) return forms;
  const Forms* own = replicas_[static_cast<size_t>(context.worker - 1)].find(forms);
  return own == nullptr ? forms : *own;
}

void RowPhase::run(const StepContext& context) {
  if (is_replicated(context.step)) {
    StepContext own = context;
    if (context.worker > 0) own.replica = &replicas_[static_cast<size_t>(context.worker - 1)];
    for (const auto& op : ops_) op.run(own, 0);
    return;
  }
  const int64_t rows = num_rows(context.step);
  const int threads = context.plan.num_threads();
  const int end = static_cast<int>(rows * (context.worker + 1) / threads);
  for (int row = static_cast<int>(rows * context.worker / threads); row < end; row++) {
    for (const auto& op : ops_) op.run(context, row);
  }
}

LinearPhase::LinearPhase(const Plan& plan, std::vector<LinearTask> tasks, bool logits_rows, const RowPhase* before)
    : plan_(plan), tasks_(std::move(tasks)), logits_rows_(logits_rows), before_(before), share_(plan.num_threads()) {}

PhaseInfo LinearPhase::info(const Plan& plan) const {
  PhaseInfo info{.label = "linear, n x k (bits):"};
  for (const LinearTask& task : tasks_) {
    const PackedMatrix& w = plan.matrix(task.matrix);
    const auto weights = static_cast<size_t>(w.n) * static_cast<size_t>(w.k);
    const size_t bytes = matrix_bytes(w);
    char text[64];
    std::snprintf(text, sizeof text, " %dx%d(%.3g)", w.n, w.k,
                  8 * static_cast<double>(bytes) / static_cast<double>(weights));
    info.label += text;
    info.weight_bytes += bytes;
    info.num_weights += weights;
  }
  info.label += names_of(ops_);
  return info;
}

void LinearPhase::run(const StepContext& context) {
  const int rows = logits_rows_ ? context.step.num_logits_rows : context.step.num_tokens;
  if (rows == 0) return;
  Ahead* const ahead = next_ == nullptr ? nullptr : next_->ahead(context);
  const int threads = plan_.num_threads();
  const int row_chunks = ceil_div(rows, kRowChunk);
  // Items of one task, or of all together: for each chunk of rows, runs of panels.
  struct Cut {
    int panels, panels_per_item, items_per_chunk;
    int64_t begin;
  };
  constexpr size_t kMaxTasks = 16;
  Cut cuts[kMaxTasks];
  const size_t num_cuts = ops_.empty() ? tasks_.size() : 1;
  int64_t count = 0;
  for (size_t t = 0; t < num_cuts; t++) {
    const int panels = num_panels(plan_.matrix(tasks_[t].matrix).n);
    size_t bytes = 0;  // of a panel, or one of each task
    for (size_t other = t; other < (ops_.empty() ? t + 1 : tasks_.size()); other++) {
      const PackedMatrix& w = plan_.matrix(tasks_[other].matrix);
      bytes += std::max<size_t>(panel_bytes(w.layout, w.k), 1);
    }
    // An even number: kernels take two at a time, and int8 rows have groups of two.
    const int per_item = std::min(static_cast<int>(kItemBytes / bytes), panels / (threads * kItemsPerThread));
    const int even = std::max(2, per_item / 2 * 2);
    cuts[t] = {panels, even, ceil_div(panels, even), count};
    count += static_cast<int64_t>(cuts[t].items_per_chunk) * row_chunks;
  }
  share_.for_each(count, context.worker, [&](int64_t item) {
    size_t t = num_cuts - 1;
    while (item < cuts[t].begin) t--;
    const Cut& cut = cuts[t];
    const auto local = static_cast<int>(item - cut.begin);
    const int row_begin = local / cut.items_per_chunk * kRowChunk;
    const int row_end = std::min(rows, row_begin + kRowChunk);
    const int panel_begin = local % cut.items_per_chunk * cut.panels_per_item;
    const int panel_end = std::min(cut.panels, panel_begin + cut.panels_per_item);
    if (ops_.empty()) {
      run_task(context, tasks_[t], ahead, row_begin, row_end, panel_begin, panel_end);
      return;
    }
    for (const LinearTask& task : tasks_) run_task(context, task, ahead, row_begin, row_end, panel_begin, panel_end);
    const int begin = panel_begin * kPanelColumns;
    const int end = std::min(ops_[0].width, panel_end * kPanelColumns);
    for (int row = row_begin; row < row_end; row++) {
      for (const RowOp& op : ops_) op.columns(context, row, begin, end);
    }
  });
}

void LinearPhase::run_task(const StepContext& context, const LinearTask& task, Ahead* ahead, int row_begin, int row_end,
                           int panel_begin, int panel_end) const {
  const KernelTable& kernels = plan_.kernels();
  const PackedMatrix& w = plan_.matrix(task.matrix);
  const Buffer& y = plan_.buffer(task.output);
  const Forms& shared = plan_.forms(task.forms);
  const Forms& x = before_ == nullptr ? shared : before_->forms(context, shared);
  Rows x_rows = x.rows(row_end);
  x_rows.ahead = ahead;
  kernels.linear[static_cast<size_t>(w.layout)](w, x_rows, row_begin, row_end, panel_begin, panel_end, y.row(0),
                                                y.stride);
  if (task.bias < 0) return;
  const float* bias = plan_.vector(task.bias).data();
  const int first = panel_begin * kPanelColumns;
  const int last = std::min(w.n, panel_end * kPanelColumns);
  for (int row = row_begin; row < row_end; row++) kernels.add(bias + first, last - first, y.row(row) + first);
}

}  // namespace quintet
