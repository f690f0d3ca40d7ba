// Formats without blocks, and 16-bit sources.
#include "encoders.h"
#include "lanes.h"

namespace quintet::quantize::QUINTET_LANES {

void f16(const Run& run) {
  for (size_t i = 0; i < run.num_blocks; ++i) {
    const uint16_t bits = float_to_half(run.values[i]);
    std::memcpy(run.blocks + 2 * i, &bits, sizeof bits);
  }
}

void bf16(const Run& run) {
  for (size_t i = 0; i < run.num_blocks; ++i) {
    const uint16_t bits = float_to_bf16(run.values[i]);
    std::memcpy(run.blocks + 2 * i, &bits, sizeof bits);
  }
}

void widen_f16(const uint8_t* from, size_t count, float* to) {
  size_t i = 0;
#ifdef __AVX512F__
  for (; i + 16 <= count; i += 16) {
    _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * i))));
  }
#endif
  for (; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + 2 * i, sizeof bits);
    to[i] = half_to_float(bits);
  }
}

void widen_bf16(const uint8_t* from, size_t count, float* to) {
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + 2 * i, sizeof bits);
    to[i] = bf16_to_float(bits);
  }
}

bool all_finite(const float* values, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    bits &= 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  return largest < 0x7f800000u;
}

}  // namespace quintet::quantize::QUINTET_LANES
