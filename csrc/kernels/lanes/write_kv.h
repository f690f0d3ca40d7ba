// Writing one token into the paged KV cache: strided stores, the price of blocks that attention reads in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../half.h"
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

// A head as int8; returns its scale.  Writes zeros up to a multiple of 32.
template <class Lanes>
float quantize_head(const float* x, int head_dim, int8_t* out) {
  const auto load_from = [&](int d) {
    return d + 16 <= head_dim ? Lanes::load(x + d)
           : d < head_dim     ? Lanes::load_first(x + d, head_dim - d)
                              : Lanes::zero();
  };
  uint32_t bits = 0;
  for (int d = 0; d < head_dim; d += 32) {
    const uint32_t magnitude = Lanes::largest_magnitude(load_from(d), load_from(d + 16));
    bits = bits < magnitude ? magnitude : bits;
  }
  const float largest = float_from_bits(bits);
  if (bits >= 0x7f800000u || largest < kSmallestGroup) {
    std::memset(out, 0, static_cast<size_t>(head_dim + 31) / 32 * 32);
    return bits >= 0x7f800000u ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  }
  const auto inverse = Lanes::set1(127.0f / largest);
  for (int d = 0; d < head_dim; d += 32) {
    Lanes::store_int8(out + d, Lanes::mul(load_from(d), inverse), Lanes::mul(load_from(d + 16), inverse));
  }
  return largest / 127.0f;
}

template <class Lanes>
void write_head_int8(const float* k, const float* v, int head_dim, int token, std::byte* k_block, std::byte* v_block) {
  int8_t rounded[256];
  const ptrdiff_t scale_at = kv_scale_offset(head_dim) + token * kFloatBytes;
  const float k_scale = quantize_head<Lanes>(k, head_dim, rounded);
  std::memcpy(k_block + scale_at, &k_scale, sizeof k_scale);
  for (int d = 0; d < head_dim; d += 4) {
    std::memcpy(k_block + (static_cast<ptrdiff_t>(d) / 4 * kBlockTokens + token) * 4, rounded + d, 4);
  }
  const float v_scale = quantize_head<Lanes>(v, head_dim, rounded);
  std::memcpy(v_block + scale_at, &v_scale, sizeof v_scale);
  for (int d = 0; d < head_dim; ++d) {
    v_block[(static_cast<ptrdiff_t>(token) / 4 * head_dim + d) * 4 + token % 4] = static_cast<std::byte>(rounded[d]);
  }
}

template <class Lanes>
void write_kv(const KVCache& cache, int64_t slot, const float* k, const float* v) {
  const int token = static_cast<int>(slot % kBlockTokens);
  for (int h = 0; h < cache.num_kv_heads; ++h, k += cache.head_dim, v += cache.head_dim) {
    std::byte* k_block = kv_block(cache, cache.k, slot / kBlockTokens, h);
    std::byte* v_block = kv_block(cache, cache.v, slot / kBlockTokens, h);
    if (cache.type == KVType::kInt8) {
      write_head_int8<Lanes>(k, v, cache.head_dim, token, k_block, v_block);
    } else if (cache.type == KVType::kBF16) {
      write_head_bf16<Lanes>(k, v, cache.head_dim, token, k_block, v_block);
    } else {
      write_head_f32<Lanes>(k, v, cache.head_dim, token, k_block, v_block);
    }
  }
}

}  // namespace quintet::lanes
