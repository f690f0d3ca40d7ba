// Paged causal attention, one query and one head at a time: the order of operations that the other tables share.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../half.h"
#include "../impl.h"
#include "../kv_block.h"
#include "../visible.h"
#include "exp.h"

namespace quintet::reference {
namespace {

constexpr int kMaxHeadDim = 256;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// How many consecutive head dimensions of K, or tokens of V, lie side by side in a block.
int kv_step(KVType type) { return type == KVType::kInt8 ? 4 : type == KVType::kBF16 ? 2 : 1; }

// Index of (token, d) inside a block.
int k_index(KVType type, int token, int d) {
  const int step = kv_step(type);
  return (d / step * kBlockTokens + token) * step + d % step;
}
int v_index(KVType type, int head_dim, int token, int d) {
  const int step = kv_step(type);
  return (token / step * head_dim + d) * step + token % step;
}

float load(KVType type, const std::byte* block, int index) {
  if (type == KVType::kF32) return reinterpret_cast<const float*>(block)[index];
  return bf16_to_float(reinterpret_cast<const uint16_t*>(block)[index]);
}
void store(KVType type, std::byte* block, int index, float value) {
  if (type == KVType::kF32) {
    reinterpret_cast<float*>(block)[index] = value;
  } else {
    reinterpret_cast<uint16_t*>(block)[index] = float_to_bf16(value);
  }
}

float round_to(KVType type, float value) { return type == KVType::kBF16 ? bf16_to_float(float_to_bf16(value)) : value; }

// The softcap of rowwise.cpp.
float capped(float score, float cap) {
  if (cap <= 0.0f) return score;
  const float ratio = score / cap;
  return (1.0f - 2.0f / (exp(ratio + ratio) + 1.0f)) * cap;
}

// exp(x - largest), but 0 rather than NaN where both are -infinity.
float exp_below(float x, float largest) { return exp(x - (largest == -kInfinity ? 0.0f : largest)); }

float tree_sum(float (&lanes)[16]) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// Rounds n floats to integers up to `largest_integer`; returns their scale.
template <class Integer>
float quantize(const float* x, int n, float largest_integer, Integer* out) {
  uint32_t bits = 0;  // of max|x|: non-negative floats order as integers, NaN above infinity
  for (int i = 0; i < n; ++i) bits = std::max(bits, float_bits(x[i]) & 0x7fffffffu);
  const float largest = float_from_bits(bits);
  std::fill_n(out, n, Integer{0});
  if (!std::isfinite(largest)) return std::numeric_limits<float>::quiet_NaN();
  if (largest < kSmallestGroup) return 0.0f;
  const float inverse = largest_integer / largest;
  for (int i = 0; i < n; ++i) out[i] = static_cast<Integer>(std::nearbyint(x[i] * inverse));
  return largest / largest_integer;
}

struct Scratch {
  float q[kMaxHeadDim];
  float q_scale;  // of kInt8, with that of scores
  int16_t q16[kMaxHeadDim];
  int16_t weights[kSegmentTokens];
  float p[kSegmentTokens];     // scores, then exp(score - largest)
  float partial[kMaxHeadDim];  // sum of p * v over one segment
  float total[kMaxHeadDim];    // over all segments so far
};

// Softmax state: sums of exp(score - largest), to be divided by each other at the end.
struct Softmax {
  float largest;
  float sum;
};

// `first` is the first token that the query sees; those before it weigh nothing.
Softmax attend_segment(const KVCache& cache, const int32_t* block_table, int kv_head, int begin, int end, int first,
                       const AttentionArgs& args, Scratch& scratch, float* values) {
  const int hd = cache.head_dim;
  Softmax state{-kInfinity, 0.0f};
  for (int token = begin; token < end; ++token) {
    const std::byte* block = kv_block(cache, cache.k, block_table[token / kBlockTokens], kv_head);
    float score = 0.0f;
    for (int d = 0; d < hd; ++d) {
      score = std::fma(scratch.q[d], load(cache.type, block, k_index(cache.type, token % kBlockTokens, d)), score);
    }
    score = token < first ? -kInfinity : capped(score * args.scale, args.softcap);
    scratch.p[token - begin] = score;
    if (score > state.largest) state.largest = score;
  }
  float lanes[16] = {};
  for (int i = 0; i < end - begin; ++i) {
    scratch.p[i] = round_to(cache.type, exp_below(scratch.p[i], state.largest));
    lanes[i % 16] += scratch.p[i];
  }
  state.sum = tree_sum(lanes);
  std::fill_n(values, hd, 0.0f);
  for (int token = begin; token < end; ++token) {
    const std::byte* block = kv_block(cache, cache.v, block_table[token / kBlockTokens], kv_head);
    for (int d = 0; d < hd; ++d) {
      const float v = load(cache.type, block, v_index(cache.type, hd, token % kBlockTokens, d));
      values[d] = std::fma(scratch.p[token - begin], v, values[d]);
    }
  }
  return state;
}

float scale_of(const std::byte* block, int head_dim, int token) {
  return reinterpret_cast<const float*>(block + kv_scale_offset(head_dim))[token];
}

// The same on kInt8: sums of integers.
Softmax attend_segment_int8(const KVCache& cache, const int32_t* block_table, int kv_head, int begin, int end,
                            int first, float softcap, Scratch& scratch, float* values) {
  const int hd = cache.head_dim;
  const auto block_of = [&](void* data, int token) {
    return kv_block(cache, data, block_table[token / kBlockTokens], kv_head);
  };
  const auto load8 = [](const std::byte* block, int index) { return reinterpret_cast<const int8_t*>(block)[index]; };
  Softmax state{-kInfinity, 0.0f};
  for (int token = begin; token < end; ++token) {
    const std::byte* block = block_of(cache.k, token);
    int32_t dot = 0;
    for (int d = 0; d < hd; ++d) {
      dot += scratch.q16[d] * load8(block, k_index(cache.type, token % kBlockTokens, d));
    }
    float score = static_cast<float>(dot) * scratch.q_scale * scale_of(block, hd, token % kBlockTokens);
    score = capped(score, softcap);
    if (token < first) score = -kInfinity;
    scratch.p[token - begin] = score;
    if (score > state.largest) state.largest = score;
  }
  float lanes[16] = {};
  for (int i = 0; i < end - begin; ++i) {
    const float p = exp_below(scratch.p[i], state.largest);
    lanes[i % 16] += p;
    const int token = begin + i;
    scratch.p[i] = p * scale_of(block_of(cache.v, token), hd, token % kBlockTokens);
  }
  state.sum = tree_sum(lanes);
  const float weight_scale = quantize(scratch.p, end - begin, 32767.0f, scratch.weights);
  for (int d = 0; d < hd; ++d) {
    int32_t dot = 0;
    for (int token = begin; token < end; ++token) {
      const int index = v_index(cache.type, hd, token % kBlockTokens, d);
      dot += scratch.weights[token - begin] * load8(block_of(cache.v, token), index);
    }
    values[d] = static_cast<float>(dot) * weight_scale;
  }
  return state;
}

void write_head_int8(const float* x, int head_dim, int token, bool is_k, std::byte* block) {
  int8_t rounded[kMaxHeadDim] = {};
  const float scale = quantize(x, head_dim, 127.0f, rounded);
  std::memcpy(block + kv_scale_offset(head_dim) + token * static_cast<ptrdiff_t>(sizeof scale), &scale, sizeof scale);
  const int end = is_k ? (head_dim + 3) / 4 * 4 : head_dim;
  for (int d = 0; d < end; ++d) {
    const int index = is_k ? k_index(KVType::kInt8, token, d) : v_index(KVType::kInt8, head_dim, token, d);
    block[index] = static_cast<std::byte>(rounded[d]);
  }
}

void merge(const Softmax& state, const float* values, int head_dim, Softmax& total_state, float* total) {
  const float largest = std::max(total_state.largest, state.largest);
  const float keep = exp_below(total_state.largest, largest);
  const float take = exp_below(state.largest, largest);
  total_state = {largest, std::fma(state.sum, take, total_state.sum * keep)};
  for (int d = 0; d < head_dim; ++d) total[d] = std::fma(values[d], take, total[d] * keep);
}

}  // namespace

void write_kv(const KVCache& cache, int64_t slot, const float* k, const float* v) {
  const int token = static_cast<int>(slot % kBlockTokens);
  for (int h = 0; h < cache.num_kv_heads; ++h) {
    std::byte* k_block = kv_block(cache, cache.k, slot / kBlockTokens, h);
    std::byte* v_block = kv_block(cache, cache.v, slot / kBlockTokens, h);
    if (cache.type == KVType::kInt8) {
      const ptrdiff_t column = static_cast<ptrdiff_t>(h) * cache.head_dim;
      write_head_int8(k + column, cache.head_dim, token, true, k_block);
      write_head_int8(v + column, cache.head_dim, token, false, v_block);
      continue;
    }
    for (int d = 0; d < cache.head_dim; ++d) {
      const ptrdiff_t column = static_cast<ptrdiff_t>(h) * cache.head_dim + d;
      store(cache.type, k_block, k_index(cache.type, token, d), k[column]);
      store(cache.type, v_block, v_index(cache.type, cache.head_dim, token, d), v[column]);
    }
  }
}

void attention(const KVCache& cache, const AttentionArgs& args, const SequenceView& seq, int kv_head, int query_begin,
               int query_end, void* scratch_memory) {
  auto& scratch = *static_cast<Scratch*>(scratch_memory);
  const int hd = cache.head_dim;
  const int group = args.num_heads / cache.num_kv_heads;
  for (int query = query_begin; query < query_end; ++query) {
    const Visible visible = visible_tokens(args, seq, query);
    const int num_tokens = visible.end;
    const auto row = static_cast<size_t>(seq.query_begin + query);
    for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      const auto column = static_cast<size_t>(h) * hd;
      const float* q = args.q + row * args.q_stride + column;
      float* out = args.out + row * args.out_stride + column;
      for (int d = 0; d < hd; ++d) scratch.q[d] = round_to(cache.type, q[d]);
      if (cache.type == KVType::kInt8) scratch.q_scale = args.scale * quantize(q, hd, 32767.0f, scratch.q16);

      Softmax total{};
      for (int begin = 0; begin < num_tokens; begin += kSegmentTokens) {
        const int end = std::min(begin + kSegmentTokens, num_tokens);
        float* values = begin == 0 ? scratch.total : scratch.partial;
        const Softmax state =
            cache.type == KVType::kInt8
                ? attend_segment_int8(cache, seq.block_table, kv_head, begin, end, visible.begin, args.softcap, scratch,
                                      values)
                : attend_segment(cache, seq.block_table, kv_head, begin, end, visible.begin, args, scratch, values);
        if (begin == 0) {
          total = state;
        } else {
          merge(state, values, hd, total, scratch.total);
        }
      }
      const float sink = args.sinks == nullptr ? 0.0f : exp(args.sinks[h] - total.largest);
      const float inverse = 1.0f / (total.sum + sink);
      for (int d = 0; d < hd; ++d) out[d] = scratch.total[d] * inverse;
    }
  }
}

size_t attention_scratch_bytes(int, int) { return sizeof(Scratch); }

}  // namespace quintet::reference
