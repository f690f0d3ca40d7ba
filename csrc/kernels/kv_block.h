// Where a KV head's share of a block lies (see KVCache).  `static`, so that each file keeps its own copy (see impl.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace quintet {

// Where the scales of a kInt8 block begin.
static inline ptrdiff_t kv_scale_offset(int head_dim) {
  return static_cast<ptrdiff_t>(head_dim + 3) / 4 * 4 * kBlockTokens;
}

// Of one KV head, in each of k and v.
static inline size_t kv_block_bytes(KVType type, int head_dim) {
  const size_t elements = static_cast<size_t>(head_dim) * kBlockTokens;
  if (type == KVType::kInt8) return static_cast<size_t>(kv_scale_offset(head_dim)) + kBlockTokens * sizeof(float);
  return elements * (type == KVType::kBF16 ? 2 : 4);
}

// Of one run of all KV heads, in each of k and v.
static inline size_t kv_run_bytes(KVType type, int head_dim, int num_kv_heads) {
  return static_cast<size_t>(num_kv_heads) * kRunBlocks * kv_block_bytes(type, head_dim);
}

// `data` is cache.k or cache.v.
static inline std::byte* kv_block(const KVCache& cache, void* data, int64_t block, int kv_head) {
  const auto b = static_cast<size_t>(block);
  const size_t in_run = static_cast<size_t>(kv_head) * kRunBlocks + b % kRunBlocks;
  return static_cast<std::byte*>(data) + b / kRunBlocks * cache.run_stride +
         in_run * kv_block_bytes(cache.type, cache.head_dim);
}

}  // namespace quintet
