// Paged causal attention over 16 float lanes: the loops around the register tiles.
//
// Rows are (query, head of the group) pairs, in the order of queries, so that all of them share what is read of the
// KV head.  A tile of up to kTileRows rows walks the sequence segment by segment: scores (lanes are tokens), softmax,
// values (lanes are head dimensions), merge.  Every row goes through exactly the operations of
// reference/attention.cpp whatever else is in the tile: it stops at its own last token.
#pragma once

#include <cstddef>
#include <cstring>
#include <type_traits>

#include "../kernels.h"
#include "../kv_block.h"
#include "../visible.h"
#include "attention_int8.h"
#include "attention_tiles.h"
#include "exp.h"
#include "rowwise.h"
#include "sixteen.h"

namespace quintet::lanes {

inline constexpr int kTileRows = 64;
inline constexpr int kScoreBlocks = 4;  // K blocks that stay in L1 while all rows pass: 16 KiB of bf16 at head_dim 128
inline constexpr int kDecodeRows = 2;   // up to so many rows, reading is what takes the time
inline constexpr int kSegmentBlocks = kSegmentTokens / kBlockTokens;

template <class Dot>
struct alignas(64) Scratch {
  typename Dot::Element q[kTileRows * kQueryStride];
  float scores[kTileRows * kScoreStride];   // becomes p, as Elements from each row's start
  float partial[kTileRows * kValueStride];  // sum of p * v over one segment
  float total[kTileRows * kValueStride];    // over all segments so far
  float partial_largest[kTileRows];
  float partial_sum[kTileRows];
  float total_largest[kTileRows];
  float total_sum[kTileRows];
  float score_factor[kTileRows];  // of the dot products with q
  float weight_scale[kTileRows];  // of weights, where they are integers
};

// A segment as the rows of a tile see it.
struct Segment {
  int begin;              // first token
  int num_rows;           // of the tile
  int first_row;          // the rows before it end before the segment
  int tokens[kTileRows];  // of the segment, that a row sees; ascending
  bool in_order;          // its K is a stream, but for the ends of runs
  // Past the end, what will be read next, for prefetching.
  const std::byte* k_blocks[kSegmentBlocks + kPrefetchBlocks];
  const std::byte* v_blocks[kSegmentBlocks + kPrefetchBlocks];
};

// Calls f(std::integral_constant<int, value>), 1 <= value <= kMax.
template <int kMax, class F>
[[gnu::always_inline]] inline void with_constant(int value, const F& f) {
  if constexpr (kMax > 1) {
    if (value < kMax) return with_constant<kMax - 1>(value, f);
  }
  f(std::integral_constant<int, kMax>{});
}

// Splits [begin, end) into runs of nearly equal length, at most `longest`.
template <class F>
[[gnu::always_inline]] inline void for_each_run(int begin, int end, int longest, const F& f) {
  while (begin < end) {
    const int runs = (end - begin + longest - 1) / longest;
    const int length = (end - begin + runs - 1) / runs;
    f(begin, length);
    begin += length;
  }
}

// Scores of all rows against the segment, block by block; those past a row's last token are left to softmax_row.
template <class Dot>
void score_segment(const Segment& segment, int head_dim, Scratch<Dot>& scratch) {
  const int end = segment.tokens[segment.num_rows - 1];
  int first = segment.first_row;
  for (int token = 0; token < end; token += kScoreBlocks * kBlockTokens) {
    while (segment.tokens[first] <= token) ++first;
    for_each_run(first, segment.num_rows, Dot::kMaxRows, [&](int row, int num_rows) {
      const int begin_block = token / kBlockTokens;
      const int all_blocks = (segment.tokens[row + num_rows - 1] + kBlockTokens - 1) / kBlockTokens;
      const int end_block = all_blocks < begin_block + kScoreBlocks ? all_blocks : begin_block + kScoreBlocks;
      with_constant<Dot::kMaxRows>(num_rows, [&](auto rows) {
        constexpr int kMaxVectors = Dot::max_vectors(rows) < kScoreBlocks ? Dot::max_vectors(rows) : kScoreBlocks;
        // Side by side, the chains of few rows hide their latency; but a stream is read fastest as one.
        const int longest = rows <= kDecodeRows && segment.in_order ? 1 : kMaxVectors;
        for_each_run(begin_block, end_block, longest, [&](int block, int num_blocks) {
          with_constant<kMaxVectors>(num_blocks, [&](auto vectors) {
            score_tile<Dot, rows, vectors>(
                scratch.q + row * kQueryStride, segment.k_blocks + block, segment.k_blocks + block + kPrefetchBlocks,
                head_dim, scratch.score_factor + row, scratch.scores + row * kScoreStride + block * kBlockTokens);
          });
        });
      });
    });
  }
}

// p * v over steps [begin, end) for a register tile of rows, all of which see them.
template <class Dot>
void value_rows(const Segment& segment, int row, int num_rows, int begin, int end, int head_dim, Scratch<Dot>& scratch,
                float* values) {
  const auto* p = reinterpret_cast<const typename Dot::Element*>(scratch.scores + row * kScoreStride);
  float* row_values = values + row * kValueStride;
  const int vectors_end = head_dim / 16;
  with_constant<Dot::kMaxRows>(num_rows, [&](auto rows) {
    constexpr int kMaxVectors = Dot::max_vectors(rows);
    for_each_run(0, vectors_end, kMaxVectors, [&](int vector, int num_vectors) {
      with_constant<kMaxVectors>(num_vectors, [&](auto vectors) {
        value_tile<Dot, rows, vectors, false>(p, segment.v_blocks, begin, end, head_dim, vector * 16, row_values);
      });
    });
    if (head_dim % 16 > 0) {
      value_tile<Dot, rows, 1, true>(p, segment.v_blocks, begin, end, head_dim, vectors_end * 16, row_values);
    }
  });
}

// Sums p * v over the segment.  Rows of a register tile that end early leave it one after the other.
template <class Dot>
void value_segment(const Segment& segment, int head_dim, Scratch<Dot>& scratch, float* values) {
  for (int row = segment.first_row; row < segment.num_rows; ++row) {
    std::memset(values + row * kValueStride, 0, kMaxHeadDim * sizeof(float));
  }
  for_each_run(segment.first_row, segment.num_rows, Dot::kMaxRows, [&](int begin_row, int num_rows) {
    int step = 0;
    for (int row = begin_row; row < begin_row + num_rows; ++row) {
      const int tokens = segment.tokens[row];
      // Weights that are integers are zero behind a row's tokens, where no v is a NaN.
      const int end_step = Dot::kQuantized ? (tokens + Dot::kStep - 1) / Dot::kStep : tokens / Dot::kStep;
      if (step < end_step) {
        value_rows(segment, row, begin_row + num_rows - row, step, end_step, head_dim, scratch, values);
        step = end_step;
      }
      if constexpr (Dot::kStep == 2) {
        if (tokens % Dot::kStep > 0) {
          const int token = tokens - 1;
          const ptrdiff_t offset = static_cast<ptrdiff_t>(token % kBlockTokens / Dot::kStep) * head_dim * 4;
          const auto* p = reinterpret_cast<const typename Dot::Element*>(scratch.scores + row * kScoreStride) + token;
          value_last_token<Dot>(p, segment.v_blocks[token / kBlockTokens] + offset, head_dim,
                                values + row * kValueStride);
        }
      }
      if constexpr (Dot::kQuantized) {
        const auto scale = Dot::Lanes::set1(scratch.weight_scale[row]);
        for (float* value = values + row * kValueStride; value < values + row * kValueStride + head_dim; value += 16) {
          Dot::Lanes::store(value, Dot::Lanes::mul(Dot::to_float(Dot::Lanes::load(value)), scale));
        }
      }
    }
  });
}

template <class Dot>
void merge_row(int row, int head_dim, Scratch<Dot>& scratch) {
  using Lanes = typename Dot::Lanes;
  const float before = scratch.total_largest[row];
  const float now = scratch.partial_largest[row];
  const float largest = before < now ? now : before;
  const float base = largest == kMinusInfinity ? 0.0f : largest;
  const auto keep = exp<Lanes>(Lanes::set1(before - base));
  const auto take = exp<Lanes>(Lanes::set1(now - base));
  const auto sum =
      Lanes::fma(Lanes::set1(scratch.partial_sum[row]), take, Lanes::mul(Lanes::set1(scratch.total_sum[row]), keep));
  Lanes::store_first(scratch.total_sum + row, sum, 1);
  scratch.total_largest[row] = largest;
  float* total = scratch.total + row * kValueStride;
  const float* partial = scratch.partial + row * kValueStride;
  for (int d = 0; d < head_dim; d += 16) {
    const auto kept = Lanes::mul(Lanes::load(total + d), keep);
    Lanes::store(total + d, Lanes::fma(Lanes::load(partial + d), take, kept));
  }
}

// Fills in what the segment from segment.begin on is to rows that see tokens[row] tokens of the sequence.
template <class Dot>
void locate_segment(const KVCache& cache, const SequenceView& seq, int kv_head, const int* tokens, Segment& segment) {
  segment.first_row = 0;
  for (int row = 0; row < segment.num_rows; ++row) {
    const int visible = tokens[row] - segment.begin;
    segment.tokens[row] = visible < kSegmentTokens ? visible : kSegmentTokens;
    if (visible <= 0) segment.first_row = row + 1;
  }
  const int last_token = tokens[segment.num_rows - 1] - 1;
  const int first_block = segment.begin / kBlockTokens;
  const int num_blocks = (segment.tokens[segment.num_rows - 1] + kBlockTokens - 1) / kBlockTokens;
  const auto block = [&](void* data, int index) { return kv_block(cache, data, seq.block_table[index], kv_head); };
  for (int i = 0; i < num_blocks; ++i) {
    segment.k_blocks[i] = block(cache.k, first_block + i);
    segment.v_blocks[i] = block(cache.v, first_block + i);
  }
  const auto block_bytes = static_cast<ptrdiff_t>(kv_block_bytes(cache.type, cache.head_dim));
  int jumps = 0;
  for (int i = 1; i < num_blocks; ++i) jumps += segment.k_blocks[i] != segment.k_blocks[i - 1] + block_bytes;
  segment.in_order = jumps <= (num_blocks + kRunBlocks - 1) / kRunBlocks;  // no more than runs have ends
  const int last_block = last_token / kBlockTokens;
  for (int i = 0; i < kPrefetchBlocks; ++i) {
    const int next = first_block + num_blocks + i;
    segment.k_blocks[num_blocks + i] = segment.v_blocks[i < num_blocks ? i : 0];
    const std::byte*& behind = segment.v_blocks[num_blocks + i];
    if (next <= last_block) {
      behind = block(cache.k, next);
    } else if (kv_head + 1 < cache.num_kv_heads) {  // who calls for each head in turn is there next
      const int of_next_head = next - last_block - 1 < last_block ? next - last_block - 1 : last_block;
      behind = kv_block(cache, cache.k, seq.block_table[of_next_head], kv_head + 1);
    } else {
      behind = segment.v_blocks[0];
    }
  }
}

template <class Dot>
void attention(const KVCache& cache, const AttentionArgs& args, const SequenceView& seq, int kv_head, int query_begin,
               int query_end, void* scratch_memory) {
  using Lanes = typename Dot::Lanes;
  auto& scratch = *static_cast<Scratch<Dot>*>(scratch_memory);
  const int hd = cache.head_dim;
  const int group = args.num_heads / cache.num_kv_heads;
  const int num_rows = (query_end - query_begin) * group;
  for (int tile = 0; tile < num_rows; tile += kTileRows) {
    Segment segment;
    segment.num_rows = num_rows - tile < kTileRows ? num_rows - tile : kTileRows;
    int first_tokens[kTileRows];  // that a row sees; those before it weigh nothing
    int tokens[kTileRows];
    float* out[kTileRows];
    for (int row = 0; row < segment.num_rows; ++row) {
      const int query = query_begin + (tile + row) / group;
      const int head = kv_head * group + (tile + row) % group;
      const auto step_row = static_cast<size_t>(seq.query_begin + query);
      const Visible visible = visible_tokens(args, seq, query);
      first_tokens[row] = visible.begin;
      tokens[row] = visible.end;
      const float* q = args.q + step_row * args.q_stride + static_cast<size_t>(head) * hd;
      out[row] = args.out + step_row * args.out_stride + static_cast<size_t>(head) * hd;
      scratch.score_factor[row] = args.scale;
      if constexpr (Dot::kQuantized) {
        scratch.score_factor[row] *= quantize_query<Dot>(q, hd, scratch.q + row * kQueryStride);
      } else {
        for_each_sixteen(hd,
                         [&](int d, int n) { Dot::store(scratch.q + row * kQueryStride + d, load<Lanes>(q + d, n)); });
      }
    }
    // Segments that no row sees are left out: merging one in changes no bit.
    const int first_begin = first_tokens[0] / kSegmentTokens * kSegmentTokens;
    for (segment.begin = first_begin; segment.begin < tokens[segment.num_rows - 1]; segment.begin += kSegmentTokens) {
      const bool is_first = segment.begin == first_begin;
      locate_segment<Dot>(cache, seq, kv_head, tokens, segment);
      score_segment<Dot>(segment, hd, scratch);
      for (int row = segment.first_row; row < segment.num_rows; ++row) {
        float* scores = scratch.scores + row * kScoreStride;
        if (args.softcap > 0.0f) softcap<Lanes>(scores, args.softcap, segment.tokens[row], scores);
        for (int token = segment.begin; token < first_tokens[row] && token < segment.begin + segment.tokens[row];
             ++token) {
          scores[token - segment.begin] = kMinusInfinity;
        }
        float& largest = (is_first ? scratch.total_largest : scratch.partial_largest)[row];
        float& sum = (is_first ? scratch.total_sum : scratch.partial_sum)[row];
        if constexpr (Dot::kQuantized) {
          softmax_row_int8<Dot>(scores, segment.tokens[row], segment.v_blocks, hd, largest, sum,
                                scratch.weight_scale[row]);
        } else {
          softmax_row<Dot>(scores, segment.tokens[row], largest, sum);
        }
      }
      value_segment<Dot>(segment, hd, scratch, is_first ? scratch.total : scratch.partial);
      for (int row = segment.first_row; row < segment.num_rows && !is_first; ++row) merge_row<Dot>(row, hd, scratch);
    }
    for (int row = 0; row < segment.num_rows; ++row) {
      float sum = scratch.total_sum[row];
      if (args.sinks != nullptr) {
        const float sink = args.sinks[kv_head * group + (tile + row) % group];
        float sinks[16];
        Lanes::store(sinks, exp<Lanes>(Lanes::set1(sink - scratch.total_largest[row])));
        sum += sinks[0];
      }
      const auto inverse = Lanes::set1(1.0f / sum);
      for_each_sixteen(hd, [&](int d, int n) {
        store<Lanes>(out[row] + d, Lanes::mul(Lanes::load(scratch.total + row * kValueStride + d), inverse), n);
      });
    }
  }
}

}  // namespace quintet::lanes
