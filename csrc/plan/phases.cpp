#include "phases.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace quintet {
namespace {

constexpr int kRowChunk = 256;            // rows whose int8 activations stay in L2 while panels stream past
constexpr size_t kItemBytes = 128 << 10;  // weights per work item: some microseconds of reading
constexpr int kItemsPerThread = 8;  // at least, where there are as many panels: else threads wait for the last one
constexpr int kQueryTile = 64;      // queries per attention item

int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace

void RowPhase::add(const char* name, RowOp op) {
  ops_.push_back(std::move(op));
  names_ += ' ';
  names_ += name;
}

PhaseInfo RowPhase::info(const Plan&) const { return {.label = "rows:" + names_}; }

void RowPhase::run(const StepContext& context) {
  const int rows = logits_rows_ ? context.step.num_logits_rows : context.step.num_tokens;
  const int threads = context.plan.num_threads();
  const int end = static_cast<int>(static_cast<int64_t>(rows) * (context.worker + 1) / threads);
  for (int row = static_cast<int>(static_cast<int64_t>(rows) * context.worker / threads); row < end; row++) {
    for (const auto& op : ops_) op(context, row);
  }
}

PhaseInfo LinearPhase::info(const Plan& plan) const {
  PhaseInfo info{.label = "linear, n x k (bits):"};
  for (const LinearTask& task : tasks_) {
    const PackedMatrix& w = plan.matrix(task.matrix);
    const auto weights = static_cast<size_t>(w.n) * static_cast<size_t>(w.k);
    const size_t bytes = static_cast<size_t>(num_panels(w.n)) * panel_bytes(w.layout, w.k);
    char text[64];
    std::snprintf(text, sizeof text, " %dx%d(%.3g)", w.n, w.k,
                  8 * static_cast<double>(bytes) / static_cast<double>(weights));
    info.label += text;
    info.weight_bytes += bytes;
    info.num_weights += weights;
  }
  return info;
}

void LinearPhase::run(const StepContext& context) {
  const Plan& plan = context.plan;
  const int rows = logits_rows_ ? context.step.num_logits_rows : context.step.num_tokens;
  if (rows == 0) return;
  const int row_chunks = ceil_div(rows, kRowChunk);
  // Items of one task: for each chunk of rows, runs of panels.
  struct Cut {
    int panels, panels_per_item, items_per_chunk;
    int64_t begin;
  };
  constexpr size_t kMaxTasks = 16;
  Cut cuts[kMaxTasks];
  int64_t count = 0;
  for (size_t t = 0; t < tasks_.size(); t++) {
    const PackedMatrix& w = plan.matrix(tasks_[t].matrix);
    const int panels = num_panels(w.n);
    const size_t bytes = std::max<size_t>(panel_bytes(w.layout, w.k), 1);
    const int per_item =
        std::max(1, std::min(static_cast<int>(kItemBytes / bytes), panels / (plan.num_threads() * kItemsPerThread)));
    cuts[t] = {panels, per_item, ceil_div(panels, per_item), count};
    count += static_cast<int64_t>(cuts[t].items_per_chunk) * row_chunks;
  }
  share_.for_each(count, context.worker, plan.num_threads(), [&](int64_t item) {
    size_t t = tasks_.size() - 1;
    while (item < cuts[t].begin) t--;
    const LinearTask& task = tasks_[t];
    const Cut& cut = cuts[t];
    const auto local = static_cast<int>(item - cut.begin);
    const int row_begin = local / cut.items_per_chunk * kRowChunk;
    const int row_end = std::min(rows, row_begin + kRowChunk);
    const int panel_begin = local % cut.items_per_chunk * cut.panels_per_item;
    const int panel_end = std::min(cut.panels, panel_begin + cut.panels_per_item);
    const PackedMatrix& w = plan.matrix(task.matrix);
    const Buffer& y = plan.buffer(task.output);
    plan.kernels().linear[static_cast<size_t>(w.layout)](w, plan.forms(task.forms).rows(rows), row_begin, row_end,
                                                         panel_begin, panel_end, y.row(0), y.stride);
    if (task.bias < 0) return;
    const float* bias = plan.vector(task.bias).data();
    const int first = panel_begin * kPanelColumns;
    const int last = std::min(w.n, panel_end * kPanelColumns);
    for (int row = row_begin; row < row_end; row++) plan.kernels().add(bias + first, last - first, y.row(row) + first);
  });
}

PhaseInfo AttentionPhase::info(const Plan&) const { return {.label = "attention"}; }

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
  int seq = 0;
  int64_t seq_begin = 0;  // first tile of `seq`
  share_.for_each(tiles * cache.num_kv_heads, context.worker, plan.num_threads(), [&](int64_t item) {
    const int64_t tile = item / cache.num_kv_heads;
    while (tile >= seq_begin + tiles_of(seq)) seq_begin += tiles_of(seq++);
    const int begin = static_cast<int>(tile - seq_begin) * kQueryTile;
    const SequenceView view{.block_table = step.block_tables + static_cast<size_t>(seq) * step.max_blocks,
                            .query_begin = step.cu_seqlens[seq],
                            .num_queries = step.cu_seqlens[seq + 1] - step.cu_seqlens[seq],
                            .seq_len = step.seq_lens[seq]};
    plan.kernels().attention(cache, args, view, static_cast<int>(item % cache.num_kv_heads), begin,
                             std::min(view.num_queries, begin + kQueryTile), plan.attention_scratch(context.worker));
  });
}

}  // namespace quintet
