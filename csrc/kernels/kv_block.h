// Where a KV head's share of a block lies (see KVCache).  `static`, so that each file keeps its own copy (see impl.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace quintet {

static inline size_t kv_element_bytes(KVType type) { return type == KVType::kBF16 ? 2 : 4; }

// Of one KV head, in each of k and v.
static inline size_t kv_block_bytes(const KVCache& cache) {
  return static_cast<size_t>(cache.head_dim) * kBlockTokens * kv_element_bytes(cache.type);
}

// `data` is cache.k or cache.v.
static inline std::byte* kv_block(const KVCache& cache, void* data, int64_t block, int kv_head) {
  const auto index = static_cast<size_t>(kv_head) * cache.num_blocks + block;
  return static_cast<std::byte*>(data) + index * kv_block_bytes(cache);
}

}  // namespace quintet
