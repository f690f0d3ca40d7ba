// Writing one token into the paged KV cache: strided stores, the price of blocks that attention reads in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../kernels.h"
#include "../kv_block.h"
#include "sixteen.h"

namespace quintet::lanes {

template <class Lanes>
void write_head_bf16(const float* k, const float* v, int head_dim, int token, std::byte* k_block, std::byte* v_block) {
  uint16_t rounded[16];
  for_each_sixteen(head_dim, [&](int d, int n) {
    Lanes::store_bf16(rounded, load<Lanes>(k + d, n), n);
    for (int i = 0; i < n; i += 2) {
      std::memcpy(k_block + (static_cast<ptrdiff_t>(d + i) / 2 * kBlockTokens + token) * 4, rounded + i, 4);
    }
    Lanes::store_bf16(rounded, load<Lanes>(v + d, n), n);
    for (int i = 0; i < n; ++i) {
      const ptrdiff_t index = (static_cast<ptrdiff_t>(token) / 2 * head_dim + d + i) * 2 + token % 2;
      std::memcpy(v_block + index * 2, rounded + i, 2);
    }
  });
}

inline constexpr auto kFloatBytes = static_cast<ptrdiff_t>(sizeof(float));

template <class Lanes>
void write_head_f32(const float* k, const float* v, int head_dim, int token, std::byte* k_block, std::byte* v_block) {
  for (int d = 0; d < head_dim; ++d)
    std::memcpy(k_block + (d * kBlockTokens + token) * kFloatBytes, k + d, kFloatBytes);
  std::memcpy(v_block + token * head_dim * kFloatBytes, v, static_cast<size_t>(head_dim * kFloatBytes));
}

template <class Lanes>
void write_kv(const KVCache& cache, int64_t slot, const float* k, const float* v) {
  const int token = static_cast<int>(slot % kBlockTokens);
  for (int h = 0; h < cache.num_kv_heads; ++h, k += cache.head_dim, v += cache.head_dim) {
    std::byte* k_block = kv_block(cache, cache.k, slot / kBlockTokens, h);
    std::byte* v_block = kv_block(cache, cache.v, slot / kBlockTokens, h);
    if (cache.type == KVType::kBF16) {
      write_head_bf16<Lanes>(k, v, cache.head_dim, token, k_block, v_block);
    } else {
      write_head_f32<Lanes>(k, v, cache.head_dim, token, k_block, v_block);
    }
  }
}

}  // namespace quintet::lanes
