// A sequence with a paged KV cache, for the tests and the benchmark of attention.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <vector>

#include "compare.h"
#include "half.h"
#include "kernels.h"
#include "kv_block.h"

namespace quintet::tests {

struct Shape {
  KVType type = KVType::kBF16;
  int head_dim = 64;
  int num_kv_heads = 2;
  int group = 2;  // query heads per KV head
  int num_tokens = 100;

  int num_heads() const { return num_kv_heads * group; }
  int num_blocks() const { return (num_tokens + kBlockTokens - 1) / kBlockTokens; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
};

// Zeroed memory at the start of a cache line; on huge pages if it is large, as a KV cache should be.
template <class T>
class Pages {
 public:
  explicit Pages(size_t count) : size_(count) {
    const size_t alignment = count * sizeof(T) >= kHugePageBytes ? kHugePageBytes : kLineBytes;
    const size_t size_bytes = (count * sizeof(T) + alignment - 1) / alignment * alignment;
    memory_.reset(static_cast<T*>(std::aligned_alloc(alignment, size_bytes)));
    if (alignment == kHugePageBytes) madvise(memory_.get(), size_bytes, MADV_HUGEPAGE);
    std::memset(memory_.get(), 0, size_bytes);
  }
  T* data() { return memory_.get(); }
  size_t size() const { return size_; }

 private:
  static constexpr size_t kLineBytes = 64;
  static constexpr size_t kHugePageBytes = size_t{2} << 20;
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  size_t size_;
  std::unique_ptr<T, Free> memory_;
};

class PagedSequence {
 public:
  // q, k and v are normal; the blocks are in an order of their own among `spare` more.
  PagedSequence(const Shape& sequence_shape, uint32_t seed, int spare = 3)
      : shape(sequence_shape),
        num_cache_blocks(shape.num_blocks() + spare),
        k_cache(cache_bytes()),
        v_cache(cache_bytes()) {
    Random random(seed);
    const auto tokens = static_cast<size_t>(shape.num_tokens);
    q = random.normal(tokens * row_width());
    k = random.normal(tokens * kv_width());
    v = random.normal(tokens * kv_width());
    shuffle_blocks(seed);
  }

  size_t row_width() const { return static_cast<size_t>(shape.num_heads()) * shape.head_dim; }
  size_t kv_width() const { return static_cast<size_t>(shape.num_kv_heads) * shape.head_dim; }
  size_t cache_bytes() const {
    const auto runs = static_cast<size_t>((num_cache_blocks + kRunBlocks - 1) / kRunBlocks);
    return runs * kv_run_bytes(shape.type, shape.head_dim, shape.num_kv_heads);
  }

  KVCache cache() {
    const size_t stride = kv_run_bytes(shape.type, shape.head_dim, shape.num_kv_heads);
    return {shape.type, stride, shape.num_kv_heads, shape.head_dim, k_cache.data(), v_cache.data()};
  }

  void order_blocks() {
    block_table.resize(static_cast<size_t>(num_cache_blocks));
    std::iota(block_table.begin(), block_table.end(), 0);
  }
  void shuffle_blocks(uint32_t seed) {
    order_blocks();
    std::shuffle(block_table.begin(), block_table.end(), std::mt19937(seed));
  }

  // Every slot of both caches becomes `value`; of int8 the scales do, and the rest whatever bytes it has.
  void fill_cache(float value) {
    for (auto* cache : {&k_cache, &v_cache}) {
      const uint32_t upper = float_bits(value) >> 16;
      const uint32_t bits = shape.type == KVType::kBF16 ? upper << 16 | upper : float_bits(value);
      for (size_t at = 0; at < cache_bytes(); at += 4) std::memcpy(cache->data() + at, &bits, 4);
    }
  }

  void write(const KernelTable& table, int begin, int end) {
    for (int token = begin; token < end; ++token) {
      const int64_t block = block_table[static_cast<size_t>(token / kBlockTokens)];
      const size_t row = static_cast<size_t>(token) * kv_width();
      table.write_kv(cache(), block * kBlockTokens + token % kBlockTokens, k.data() + row, v.data() + row);
    }
  }

  // A step of the tokens [begin, end), whose queries are handed to the kernel `split` at a time.  [end - begin][width]
  std::vector<float> attend(const KernelTable& table, int begin, int end, int split = 1 << 30) {
    const auto num_queries = static_cast<size_t>(end - begin);
    std::vector<float> out(num_queries * row_width(), -7.0f);
    const AttentionArgs args{q.data() + static_cast<size_t>(begin) * row_width(),
                             row_width(),
                             out.data(),
                             row_width(),
                             shape.num_heads(),
                             shape.scale(),
                             left,
                             right,
                             softcap,
                             sinks.empty() ? nullptr : sinks.data()};
    const SequenceView view{block_table.data(), 0, end - begin, end};
    const size_t scratch_bytes = table.attention_scratch_bytes(shape.head_dim, shape.group);
    if (scratch == nullptr || scratch->size() != scratch_bytes) scratch = std::make_unique<Pages<char>>(scratch_bytes);
    for (int head = 0; head < shape.num_kv_heads; ++head) {
      for (int query = 0; query < end - begin; query += std::min(split, end - begin)) {
        const int query_end = split < end - begin - query ? query + split : end - begin;
        table.attention(cache(), args, view, head, query, query_end, scratch->data());
      }
    }
    return out;
  }

  // Attention of one token by definition, in double, on k and v before any rounding.
  std::vector<double> attend_exactly(int token) const { return attend_exactly(token, 0, token + 1); }

  // ... over the tokens [begin, end).
  std::vector<double> attend_exactly(int token, int begin, int end) const {
    std::vector<double> out(row_width());
    const auto first = static_cast<size_t>(begin);
    const auto hd = static_cast<size_t>(shape.head_dim);
    for (size_t head = 0; head < static_cast<size_t>(shape.num_heads()); ++head) {
      const float* query = q.data() + static_cast<size_t>(token) * row_width() + head * hd;
      const size_t column = head / static_cast<size_t>(shape.group) * hd;
      std::vector<double> scores(static_cast<size_t>(end - begin));
      for (size_t t = 0; t < scores.size(); ++t) {
        const size_t row = (first + t) * kv_width() + column;
        for (size_t d = 0; d < hd; ++d) scores[t] += static_cast<double>(query[d]) * k[row + d];
        scores[t] *= static_cast<double>(shape.scale());
        if (softcap > 0.0f) scores[t] = softcap * std::tanh(scores[t] / static_cast<double>(softcap));
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double sum = sinks.empty() ? 0.0 : std::exp(static_cast<double>(sinks[head]) - largest);
      for (double& score : scores) sum += score = std::exp(score - largest);
      for (size_t t = 0; t < scores.size(); ++t) {
        const size_t row = (first + t) * kv_width() + column;
        for (size_t d = 0; d < hd; ++d) out[head * hd + d] += scores[t] / sum * v[row + d];
      }
    }
    return out;
  }

  Shape shape;
  int num_cache_blocks;
  std::vector<float> q, k, v;  // [num_tokens][width]
  int left = kUnlimited;       // what queries see; see AttentionArgs
  int right = 0;
  float softcap = 0.0f;
  std::vector<float> sinks;
  std::vector<int32_t> block_table;
  Pages<std::byte> k_cache, v_cache;
  std::unique_ptr<Pages<char>> scratch;
};

}  // namespace quintet::tests
