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

// `data` is cache.k or cache.v.
static inline std::byte* kv_block(const KVCache& cache, void* data, int64_t block, int kv_head) {
  const auto index = static_cast<size_t>(kv_head) * cache.num_blocks + block;
  return static_cast<std::byte*>(data) + index * kv_block_bytes(cache.type, cache.head_dim);
}

}  // namespace quintet
