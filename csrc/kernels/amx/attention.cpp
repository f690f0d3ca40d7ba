// Attention's dot products of bf16 by tiles.  A block of K is a tile's columns for each 32 head dimensions, two blocks
// of V side by side are its columns for each 16: the cache is read as it lies.
#include "../lanes/attention.h"

#include "../avx512/dot_bf16.h"
#include "../impl.h"
#include "tiles.h"

namespace quintet::amx {
namespace {

using lanes::kScoreStride;
using lanes::kValueStride;
using lanes::Scratch;
using lanes::Segment;

struct TileBF16 : avx512::DotBF16 {};

constexpr int kBlockRows = 2 * kTileHeight;
constexpr int kStepTokens = kBF16TileK;
constexpr int kStepDims = 2 * kTileHeight;  // of values

// Calls f.template operator()<TWO_TILES, TWO_COLUMNS>().
template <class F>
[[gnu::always_inline]] inline void with_tiles(bool two_tiles, bool two_columns, const F& f) {
  if (two_tiles) {
    two_columns ? f.template operator()<true, true>() : f.template operator()<true, false>();
  } else {
    two_columns ? f.template operator()<false, true>() : f.template operator()<false, false>();
  }
}

// The head dimensions of a block of K that do not fill a tile, with zeros behind them.
struct RestOfK {
  alignas(64) std::byte of[2][kTileHeight][kTileRowBytes];
  void fill(int column, const std::byte* k_block, int head_dim) {
    const auto whole = static_cast<size_t>(head_dim) / kBF16TileK * kBF16TileK;
    const size_t bytes = (static_cast<size_t>(head_dim) - whole) / 2 * kTileRowBytes;
    std::memset(of[column], 0, sizeof of[column]);
    std::memcpy(of[column], k_block + whole / 2 * kTileRowBytes, bytes);
  }
};

void prefetch_lines(const std::byte* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

// 32 rows, or 16, and two blocks, or one.  next: blocks to ask memory for meanwhile, or null.
template <bool TWO_TILES, bool TWO_BLOCKS>
void score_blocks(const uint16_t* q, const std::byte* const* blocks, const std::byte* const* next, int head_dim,
                  float* scores) {
  constexpr size_t kQueryBytes = lanes::kQueryStride * sizeof *q;
  zero_bf16_sums<TWO_TILES, TWO_BLOCKS>();
  int d = 0;
  for (; d + static_cast<int>(kBF16TileK) <= head_dim; d += kBF16TileK) {
    const size_t offset = static_cast<size_t>(d) / 2 * kTileRowBytes;
    for (int i = 0; next != nullptr && i < (TWO_BLOCKS ? 2 : 1); ++i) {
      prefetch_lines(next[i] + offset, kTileHeight * kTileRowBytes);
    }
    add_bf16_tiles<TWO_TILES, TWO_BLOCKS>(q + d, kQueryBytes, blocks[0] + offset,
                                          TWO_BLOCKS ? blocks[1] + offset : nullptr, kTileRowBytes);
  }
  if (d < head_dim) {
    RestOfK rest;
    rest.fill(0, blocks[0], head_dim);
    if constexpr (TWO_BLOCKS) rest.fill(1, blocks[1], head_dim);
    add_bf16_tiles<TWO_TILES, TWO_BLOCKS>(q + d, kQueryBytes, rest.of[0], rest.of[1], kTileRowBytes);
  }
  store_bf16_sums<TWO_TILES, TWO_BLOCKS>(scores, kScoreStride);
}

// The 32 tokens of a step and 32 head dimensions, or 16, for a block of rows.
class ValueStep {
 public:
  ValueStep(const Segment& segment, int head_dim, int step, int dim)
      : blocks_(segment.v_blocks + step * 2), head_dim_(head_dim), first_token_(step * kStepTokens), dim_(dim) {}

  // Where they lie as a tile's columns already, and all are seen by rows that see `tokens` of the segment.
  bool is_tile(int tokens) const {
    const auto block_bytes = static_cast<ptrdiff_t>(head_dim_) * kBlockTokens * 2;
    return tokens >= first_token_ + kStepTokens && blocks_[1] == blocks_[0] + block_bytes && head_dim_ % 16 == 0;
  }
  const std::byte* begin() const { return blocks_[0] + static_cast<ptrdiff_t>(dim_) * 4; }
  size_t stride() const { return static_cast<size_t>(head_dim_) * 4; }

  // What a later step reads, all head dimensions; `tokens` are there.
  void prefetch(int tokens) const {
    const size_t bytes = static_cast<size_t>(head_dim_) * kBlockTokens * 2;
    prefetch_lines(blocks_[lanes::kPrefetchBlocks], bytes);
    if (first_token_ + kBlockTokens < tokens) prefetch_lines(blocks_[lanes::kPrefetchBlocks + 1], bytes);
  }

  // A copy with zeros behind the first `tokens` of the segment.
  struct Copy {
    alignas(64) uint16_t of[kStepTokens / 2][kStepDims][2];
  };
  void copy(int tokens, Copy& to) const {
    std::memset(&to, 0, sizeof to);
    const int num_tokens = tokens - first_token_ < kStepTokens ? tokens - first_token_ : kStepTokens;
    const int num_dims = head_dim_ - dim_ < kStepDims ? head_dim_ - dim_ : kStepDims;
    for (int token = 0; token < num_tokens; token += 2) {
      const std::byte* from =
          blocks_[token / kBlockTokens] + static_cast<ptrdiff_t>(token % kBlockTokens / 2) * head_dim_ * 4 + dim_ * 4;
      uint16_t (&row)[kStepDims][2] = to.of[token / 2];
      std::memcpy(row, from, static_cast<size_t>(num_dims) * 4);
      if (token + 1 == num_tokens) {
        for (auto& pair : row) pair[1] = 0;
      }
    }
  }

 private:
  const std::byte* const* blocks_;
  int head_dim_;
  int first_token_;
  int dim_;
};

bool all_finite(const ValueStep::Copy& values) {
  const auto* p = reinterpret_cast<const std::byte*>(&values);
  __mmask32 other = 0;
  for (size_t i = 0; i < sizeof values; i += 64) {
    const __m512i exponents = _mm512_and_si512(_mm512_load_si512(p + i), _mm512_set1_epi16(0x7f80));
    other |= _mm512_cmpeq_epi16_mask(exponents, _mm512_set1_epi16(0x7f80));
  }
  return other == 0;
}

// A step where some row's weight of a token that it does not see would meet an infinity or a NaN: row by row.
template <bool TWO_TILES, bool TWO_DIMS>
void add_step_by_rows(const ValueStep& step, const uint16_t* p, size_t p_bytes, const int* tokens, int num_rows) {
  alignas(64) float before[kBlockRows][kStepDims];
  alignas(64) float after[kBlockRows][kStepDims];
  alignas(64) float now[kBlockRows][kStepDims];
  store_bf16_sums<TWO_TILES, TWO_DIMS>(before[0], kStepDims);
  std::memcpy(after, before, sizeof after);
  for (int row = 0; row < num_rows; ++row) {
    if (tokens[row] <= 0) continue;
    ValueStep::Copy values;
    step.copy(tokens[row], values);
    load_bf16_sums<TWO_TILES, TWO_DIMS>(before[0], kStepDims);
    add_bf16_tiles<TWO_TILES, TWO_DIMS>(p, p_bytes, values.of, values.of[0][16], sizeof values.of[0]);
    store_bf16_sums<TWO_TILES, TWO_DIMS>(now[0], kStepDims);
    std::memcpy(after[row], now[row], sizeof after[row]);
  }
  load_bf16_sums<TWO_TILES, TWO_DIMS>(after[0], kStepDims);
}

// p * v of 32 rows, or 16, of which num_rows exist, and of 32 head dimensions, or 16.
template <bool TWO_TILES, bool TWO_DIMS>
void value_dims(const Segment& segment, int row, int num_rows, int head_dim, int dim, const uint16_t* p, bool is_first,
                float* values) {
  constexpr size_t kWeightBytes = kScoreStride * sizeof(float);
  const int* tokens = segment.tokens + row;
  const int most = tokens[num_rows - 1];
  const int first_row = segment.first_row > row ? segment.first_row - row : 0;
  const int fewest = tokens[first_row];
  zero_bf16_sums<TWO_TILES, TWO_DIMS>();
  for (int i = 0; i * kStepTokens < most; ++i, p += kStepTokens) {
    const ValueStep step(segment, head_dim, i, dim);
    if (is_first) step.prefetch(most);
    if (step.is_tile(fewest)) {
      add_bf16_tiles<TWO_TILES, TWO_DIMS>(p, kWeightBytes, step.begin(), step.begin() + kTileRowBytes, step.stride());
      continue;
    }
    ValueStep::Copy values_here;
    step.copy(most, values_here);
    if (fewest == most || all_finite(values_here)) {
      add_bf16_tiles<TWO_TILES, TWO_DIMS>(p, kWeightBytes, values_here.of, values_here.of[0][16],
                                          sizeof values_here.of[0]);
    } else {
      add_step_by_rows<TWO_TILES, TWO_DIMS>(step, p, kWeightBytes, tokens, num_rows);
    }
  }
  store_bf16_sums<TWO_TILES, TWO_DIMS>(values + dim, kValueStride);
}

}  // namespace
}  // namespace quintet::amx

namespace quintet::lanes {

// Rows behind the last are computed too, from whatever scratch holds, and never read.
template <>
void score_segment(const Segment& segment, int head_dim, Scratch<amx::TileBF16>& scratch) {
  using namespace amx;
  const int padded_dim = (head_dim + static_cast<int>(kBF16TileK) - 1) / static_cast<int>(kBF16TileK) * kBF16TileK;
  const int first = segment.first_row / kBlockRows * kBlockRows;
  for (int row = first; row < segment.num_rows; row += kBlockRows) {
    const int num_rows = segment.num_rows - row < kBlockRows ? segment.num_rows - row : kBlockRows;
    uint16_t* q = scratch.q + row * kQueryStride;
    float* scores = scratch.scores + row * kScoreStride;
    for (int r = 0; r < num_rows && head_dim < padded_dim; ++r) {
      std::memset(q + r * kQueryStride + head_dim, 0, static_cast<size_t>(padded_dim - head_dim) * sizeof *q);
    }
    const int num_blocks = (segment.tokens[row + num_rows - 1] + kBlockTokens - 1) / kBlockTokens;
    for (int block = 0; block < num_blocks; block += 2) {
      const bool two_blocks = block + 1 < num_blocks;
      const std::byte* const* next = row == first ? segment.k_blocks + block + kPrefetchBlocks : nullptr;
      with_tiles(num_rows > kTileHeight, two_blocks, [&]<bool TWO_TILES, bool TWO_BLOCKS>() {
        score_blocks<TWO_TILES, TWO_BLOCKS>(q, segment.k_blocks + block, next, head_dim, scores + block * kBlockTokens);
      });
    }
    for (int r = 0; r < num_rows; ++r) {
      const __m512 factor = _mm512_set1_ps(scratch.score_factor[row + r]);
      float* of_row = scores + r * kScoreStride;
      for (int token = 0; token < segment.tokens[row + r]; token += 16) {
        _mm512_storeu_ps(of_row + token, _mm512_mul_ps(_mm512_loadu_ps(of_row + token), factor));
      }
    }
  }
}

template <>
void value_segment(const Segment& segment, int head_dim, Scratch<amx::TileBF16>& scratch, float* values) {
  using namespace amx;
  const int first = segment.first_row / kBlockRows * kBlockRows;
  for (int row = first; row < segment.num_rows; row += kBlockRows) {
    const int num_rows = segment.num_rows - row < kBlockRows ? segment.num_rows - row : kBlockRows;
    const int steps_end = (segment.tokens[row + num_rows - 1] + kStepTokens - 1) / kStepTokens * kStepTokens;
    const auto* p = reinterpret_cast<const uint16_t*>(scratch.scores + row * kScoreStride);
    for (int r = row < segment.first_row ? segment.first_row : row; r < row + num_rows; ++r) {
      auto* of_row = reinterpret_cast<uint16_t*>(scratch.scores + r * kScoreStride);
      const int end = (segment.tokens[r] + 15) / 16 * 16;  // zeros up to here are there
      if (end < steps_end) std::memset(of_row + end, 0, static_cast<size_t>(steps_end - end) * sizeof *of_row);
    }
    float* row_values = values + row * kValueStride;
    for (int dim = 0; dim < head_dim; dim += kStepDims) {
      with_tiles(num_rows > kTileHeight, head_dim - dim > kTileHeight, [&]<bool TWO_TILES, bool TWO_DIMS>() {
        value_dims<TWO_TILES, TWO_DIMS>(segment, row, num_rows, head_dim, dim, p, row == first && dim == 0, row_values);
      });
    }
  }
}

}  // namespace quintet::lanes

namespace quintet::amx {

void attention(const KVCache& cache, const AttentionArgs& args, const SequenceView& seq, int kv_head, int query_begin,
               int query_end, void* scratch) {
  if (cache.type != KVType::kBF16) {
    avx512::attention(cache, args, seq, kv_head, query_begin, query_end, scratch);
    return;
  }
  const int num_rows = (query_end - query_begin) * (args.num_heads / cache.num_kv_heads);
  BF16Tiles tiles;
  tiles.fit(num_rows);
  lanes::attention<TileBF16>(cache, args, seq, kv_head, query_begin, query_end, scratch);
}

size_t attention_scratch_bytes(int head_dim, int heads_per_kv_head) {
  const size_t others = avx512::attention_scratch_bytes(head_dim, heads_per_kv_head);
  return sizeof(Scratch<TileBF16>) < others ? others : sizeof(Scratch<TileBF16>);
}

}  // namespace quintet::amx
