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

constexpr size_t kAheadBytes = 12 << 20;  // of all workers together: the L3 of a small server, less what else it holds

int ceil_div(int a, int b) { return (a + b - 1) / b; }

std::string names_of(const std::vector<RowOp>& ops) {
  std::string names;
  for (const RowOp& op : ops) names += std::string(" ") + op.name;
  return names;
}

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

void KVAhead::start(const Step& step, const KVCache& cache, int left, int worker, int num_threads) {
  step_ = &step;
  cache_ = &cache;
  left_ = left;
  const int64_t items = int64_t{step.num_seqs} * cache.num_kv_heads;
  item_ = items * worker / num_threads;
  end_item_ = items * (worker + 1) / num_threads;
  bytes_left_ = kAheadBytes / static_cast<size_t>(num_threads);
  at = end = nullptr;
  start_item();
}

void KVAhead::start_item() {
  is_v_ = false;
  if (item_ == end_item_) return;
  const auto seq = static_cast<size_t>(item_ % step_->num_seqs);
  const int num_queries = step_->cu_seqlens[seq + 1] - step_->cu_seqlens[seq];
  end_block_ = ceil_div(step_->seq_lens[seq], kBlockTokens);
  const int first_query = step_->seq_lens[seq] - num_queries;
  first_block_ = first_query > left_ ? (first_query - left_) / kBlockTokens : 0;
  block_ = first_block_;
}

bool KVAhead::next_block(Ahead& it) { return static_cast<KVAhead&>(it).advance(); }

bool KVAhead::advance() {
  const size_t bytes = kv_block_bytes(cache_->type, cache_->head_dim) / 64 * 64;
  if (item_ == end_item_ || bytes > bytes_left_ || bytes == 0) return false;
  bytes_left_ -= bytes;
  const auto seq = static_cast<size_t>(item_ % step_->num_seqs);
  const auto head = static_cast<int>(item_ / step_->num_seqs);
  const int32_t* table = step_->block_tables + seq * static_cast<size_t>(step_->max_blocks);
  at = kv_block(*cache_, is_v_ ? cache_->v : cache_->k, table[block_], head);
  end = at + bytes;
  if (++block_ < end_block_) return true;
  block_ = first_block_;
  if (is_v_) {
    ++item_;
    start_item();
  } else {
    is_v_ = true;
  }
  return true;
}

Ahead* AttentionPhase::ahead(const StepContext& context) {
  const Step& step = context.step;
  if (step.num_tokens > step.num_seqs * kQueryTile) return nullptr;
  for (int seq = 0; seq < step.num_seqs; seq++) {
    if (step.cu_seqlens[seq + 1] - step.cu_seqlens[seq] > kQueryTile) return nullptr;
  }
  KVAhead& kv = ahead_[static_cast<size_t>(context.worker)].kv;
  if (!kv.is_started()) {
    kv.start(step, context.plan.cache(layer_), left_, context.worker, context.plan.num_threads());
  }
  return &kv;
}

PhaseInfo AttentionPhase::info(const Plan&) const {
  std::string label = "attention";
  if (!before_.empty()) label += " after" + names_of(before_);
  if (!after_.empty()) label += ", then" + names_of(after_);
  return {.label = std::move(label)};
}

void AttentionPhase::run(const StepContext& context) {
  const Plan& plan = context.plan;
  const Step& step = context.step;
  const KVCache& cache = plan.cache(layer_);
  const Buffer& q = plan.buffer(q_);
  const Buffer& out = plan.buffer(out_);
  const AttentionArgs args{.q = q.row(0),
                           .q_stride = q.stride,
                           .out = out.row(0),
                           .out_stride = out.stride,
                           .num_heads = q.width / cache.head_dim,
                           .scale = scale_,
                           .left = left_,
                           .right = right_,
                           .softcap = softcap_,
                           .sinks = sinks_ < 0 ? nullptr : plan.vector(sinks_).data()};
  const auto tiles_of = [&](int seq) { return ceil_div(step.cu_seqlens[seq + 1] - step.cu_seqlens[seq], kQueryTile); };
  int64_t tiles = 0;
  for (int seq = 0; seq < step.num_seqs; seq++) tiles += tiles_of(seq);
  const auto head_columns = [&](const std::vector<RowOp>& ops, int row, int head) {
    for (const RowOp& op : ops) {
      const int columns = op.width / num_kv_heads_;
      op.columns(context, row, head * columns, (head + 1) * columns);
    }
  };
  // Where each sequence is one tile, that tile's worker writes all that its queries do not find in the cache.
  const bool together = context.sequences_apart && tiles == step.num_seqs;
  if (!together && !before_.empty()) {
    const int threads = plan.num_threads();
    const int end = static_cast<int>(int64_t{step.num_tokens} * (context.worker + 1) / threads);
    for (int row = static_cast<int>(int64_t{step.num_tokens} * context.worker / threads); row < end; row++) {
      for (const RowOp& op : before_) op.run(context, row);
    }
    plan.barrier();
  }
  int seq = 0;
  int64_t seq_begin = 0;  // first tile of `seq`
  share_.for_each(tiles * cache.num_kv_heads, context.worker, [&](int64_t item) {
    const auto head = static_cast<int>(item / tiles);
    const int64_t tile = item % tiles;
    if (tile < seq_begin) seq = 0, seq_begin = 0;
    while (tile >= seq_begin + tiles_of(seq)) seq_begin += tiles_of(seq++);
    const int begin = static_cast<int>(tile - seq_begin) * kQueryTile;
    const SequenceView view{.block_table = step.block_tables + static_cast<size_t>(seq) * step.max_blocks,
                            .query_begin = step.cu_seqlens[seq],
                            .num_queries = step.cu_seqlens[seq + 1] - step.cu_seqlens[seq],
                            .seq_len = step.seq_lens[seq]};
    const int end = std::min(view.num_queries, begin + kQueryTile);
    for (int query = begin; together && query < end; query++) head_columns(before_, view.query_begin + query, head);
    plan.kernels().attention(cache, args, view, head, begin, end, plan.attention_scratch(context.worker));
    for (int query = begin; query < end; query++) head_columns(after_, view.query_begin + query, head);
  });
}

}  // namespace quintet
