// Attention over the paged cache, and what is asked of memory before it begins.
#include <algorithm>
#include <utility>

#include "kv_block.h"
#include "phases.h"

namespace quintet {
namespace {

constexpr size_t kAheadBytes = 12 << 20;  // of all workers together: the L3 of a small server, less what else it holds

}  // namespace

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

AttentionPhase::AttentionPhase(const Plan& plan, const AttentionOptions& options, std::vector<RowOp> before)
    : options_(options),
      num_kv_heads_(plan.cache(options.layer).num_kv_heads),
      before_(std::move(before)),
      share_(plan.num_threads()),
      ahead_(static_cast<size_t>(plan.num_threads())) {
  const Buffer& q = plan.buffer(options.q);
  const Buffer& out = plan.buffer(options.out);
  args_ = {.q = q.row(0),
           .q_stride = q.stride,
           .out = out.row(0),
           .out_stride = out.stride,
           .num_heads = q.width / plan.cache(options.layer).head_dim,
           .scale = options.scale,
           .left = options.left,
           .right = options.right,
           .softcap = options.softcap,
           .sinks = options.sinks < 0 ? nullptr : plan.vector(options.sinks).data()};
}

void AttentionPhase::reset() {
  share_.reset();
  for (Padded& ahead : ahead_) ahead.kv.reset();
}

Ahead* AttentionPhase::ahead(const StepContext& context) {
  const Step& step = context.step;
  if (step.num_tokens > step.num_seqs * kQueryTile) return nullptr;
  for (int seq = 0; seq < step.num_seqs; seq++) {
    if (step.cu_seqlens[seq + 1] - step.cu_seqlens[seq] > kQueryTile) return nullptr;
  }
  KVAhead& kv = ahead_[static_cast<size_t>(context.worker)].kv;
  if (!kv.is_started()) {
    kv.start(step, context.plan.cache(options_.layer), options_.left, context.worker, context.plan.num_threads());
  }
  return &kv;
}

PhaseInfo AttentionPhase::info(const Plan&) const {
  std::string label = "attention";
  if (!before_.empty()) label += " after" + names_of(before_);
  if (!after_.empty()) label += ", then" + names_of(after_);
  return {.label = std::move(label)};
}

int AttentionPhase::tiles_of(const Step& step, int seq) const {
  return ceil_div(step.cu_seqlens[seq + 1] - step.cu_seqlens[seq], kQueryTile);
}

void AttentionPhase::run(const StepContext& context) {
  const Plan& plan = context.plan;
  const Step& step = context.step;
  int64_t tiles = 0;
  for (int seq = 0; seq < step.num_seqs; seq++) tiles += tiles_of(step, seq);
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
  // Head by head: a worker keeps one head's keys and values for all its tiles.
  int seq = 0;
  int64_t seq_begin = 0;  // first tile of `seq`
  share_.for_each(tiles * num_kv_heads_, context.worker, [&](int64_t item) {
    const auto head = static_cast<int>(item / tiles);
    const int64_t tile = item % tiles;
    if (tile < seq_begin) seq = 0, seq_begin = 0;
    while (tile >= seq_begin + tiles_of(step, seq)) seq_begin += tiles_of(step, seq++);
    run_tile(context, seq, static_cast<int>(tile - seq_begin), head, together);
  });
}

void AttentionPhase::run_tile(const StepContext& context, int seq, int tile, int head, bool with_before) const {
  const Plan& plan = context.plan;
  const Step& step = context.step;
  const SequenceView view{
      .block_table = step.block_tables + static_cast<size_t>(seq) * static_cast<size_t>(step.max_blocks),
      .query_begin = step.cu_seqlens[seq],
      .num_queries = step.cu_seqlens[seq + 1] - step.cu_seqlens[seq],
      .seq_len = step.seq_lens[seq]};
  const int begin = tile * kQueryTile;
  const int end = std::min(view.num_queries, begin + kQueryTile);
  for (int query = begin; with_before && query < end; query++) {
    run_head_ops(before_, context, view.query_begin + query, head);
  }
  plan.kernels().attention(plan.cache(options_.layer), args_, view, head, begin, end,
                           plan.attention_scratch(context.worker));
  for (int query = begin; query < end; query++) run_head_ops(after_, context, view.query_begin + query, head);
}

void AttentionPhase::run_head_ops(const std::vector<RowOp>& ops, const StepContext& context, int row, int head) const {
  for (const RowOp& op : ops) {
    const int columns = op.width / num_kv_heads_;
    op.columns(context, row, head * columns, (head + 1) * columns);
  }
}

}  // namespace quintet
