// Floats to GGUF blocks by GGUF's own rounding rules, so that quantising here and quantising to a file give the same
// weights.
//
// Source: ggml/src/ggml-quants.c, quantize_row_q8_0_ref and quantize_row_q4_0_ref.
#pragma once

#include <cmath>

#include "gguf_blocks.h"
#include "half.h"

namespace quintet {

using gguf::store;

static inline float largest_magnitude(const float (&x)[kGroup]) {
  constexpr int kLanes = 8;  // maxima side by side, which a compiler makes vectors of
  float largest[kLanes] = {};
  for (int i = 0; i < kGroup; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const float magnitude = std::fabs(x[i + j]);
      largest[j] = magnitude > largest[j] ? magnitude : largest[j];
    }
  }
  for (int j = 1; j < kLanes; ++j) largest[0] = largest[j] > largest[0] ? largest[j] : largest[0];
  return largest[0];
}

static inline void quantize_q8_0(const float (&x)[kGroup], uint8_t* block) {
  const float scale = largest_magnitude(x) / 127.0f;
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  store(block, float_to_half(scale));
  for (int i = 0; i < kGroup; ++i) {
    const float value = x[i] * inverse;
    const float inside = value < 127.0f ? (value > -127.0f ? value : -127.0f) : 127.0f;  // a NaN too
    // As roundf, halves away from zero: the largest float below a half, so that the sum rounds up only from a half on.
    block[2 + i] = static_cast<uint8_t>(static_cast<int>(inside + std::copysign(0x1.fffffep-2f, inside)));
  }
}

static inline void quantize_q4_0(const float (&x)[kGroup], uint8_t* block) {
  // The first value of the largest magnitude becomes code 0, that is -8.
  const float largest = largest_magnitude(x);
  float extreme = 0;
  for (int i = kGroup - 1; i >= 0 && largest > 0; --i) extreme = std::fabs(x[i]) == largest ? x[i] : extreme;
  const float scale = extreme / -8.0f;
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  store(block, float_to_half(scale));
  uint8_t codes[kGroup];
  for (int i = 0; i < kGroup; ++i) {
    const float value = x[i] * inverse + 8.5f;
    const float inside = value > 0.0f ? (value < 15.0f ? value : 15.0f) : 0.0f;
    codes[i] = static_cast<uint8_t>(static_cast<int>(inside));
  }
  for (int i = 0; i < kGroup / 2; ++i) block[2 + i] = static_cast<uint8_t>(codes[i] | codes[i + kGroup / 2] << 4);
}

}  // namespace quintet
