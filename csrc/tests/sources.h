// The formats weights are packed from, and random matrices in them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "half.h"
#include "kernels.h"

namespace quintet::tests {

// A format, the layout that is exact for it, and where in a block its 16-bit floats are.
struct Source {
  SourceType type;
  Layout layout;
  size_t block_bytes;
  int block_k;
  std::vector<size_t> halves;
};

inline const std::vector<Source>& sources() {
  static const std::vector<Source> all{
      {SourceType::kF32, Layout::kF32, 4, 1, {}},           {SourceType::kF16, Layout::kF16, 2, 1, {0}},
      {SourceType::kBF16, Layout::kBF16, 2, 1, {}},         {SourceType::kQ8_0, Layout::kW8, 34, 32, {0}},
      {SourceType::kQ4_0, Layout::kW4, 18, 32, {0}},        {SourceType::kQ5_0, Layout::kW5, 22, 32, {0}},
      {SourceType::kQ4_1, Layout::kW4m, 20, 32, {0, 2}},    {SourceType::kQ5_1, Layout::kW5m, 24, 32, {0, 2}},
      {SourceType::kQ4_K, Layout::kW4k, 144, 256, {0, 2}},  {SourceType::kQ5_K, Layout::kW5k, 176, 256, {0, 2}},
      {SourceType::kQ6_K, Layout::kW6k, 210, 256, {208}},   {SourceType::kQ3_K, Layout::kW3k, 110, 256, {108}},
      {SourceType::kQ2_K, Layout::kW2k, 84, 256, {80, 82}}, {SourceType::kIQ4_NL, Layout::kW4n, 18, 32, {0}},
      {SourceType::kIQ4_XS, Layout::kW4x, 136, 256, {0}},   {SourceType::kMXFP4, Layout::kW4e, 17, 32, {}},
      {SourceType::kTable4, Layout::kW4t, 162, 256, {0}},   {SourceType::kTable3, Layout::kW3t, 162, 256, {0}},
  };
  return all;
}

inline const Source& source_for(Layout layout) {
  for (const Source& source : sources()) {
    if (source.layout == layout) return source;
  }
  return sources().front();
}

// Of the types with a table; 64 above their numbers, and both ends of the range.
inline constexpr uint8_t kTableValues[16] = {0, 21, 39, 56, 72, 89, 107, 127, 1, 64, 63, 65, 100, 126, 32, 96};

// A matrix [n, k] of random bytes: codes and integer scales take every value, also those a quantiser never makes (-128
// in Q8_0).  Floats are finite, of both signs; scales range over twenty powers of two.
inline std::vector<uint8_t> random_source(const Source& source, int n, int k, std::mt19937& random_bits) {
  std::uniform_real_distribution<float> unit(-1.0f, 1.0f);
  std::vector<uint8_t> bytes(source_row_bytes(source.type, k) * static_cast<size_t>(n));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_bits());
  for (size_t block = 0; block < bytes.size(); block += source.block_bytes) {
    for (const size_t at : source.halves) {
      const uint16_t half = float_to_half(std::ldexp(unit(random_bits), static_cast<int>(random_bits() % 20) - 12));
      std::memcpy(bytes.data() + block + at, &half, 2);
    }
    if (source.type == SourceType::kMXFP4) bytes[block] = static_cast<uint8_t>(116 + random_bits() % 20);
    if (source.type == SourceType::kTable4 || source.type == SourceType::kTable3) {
      for (size_t i = 0; i < 16; ++i) bytes[block + 2 + i] = kTableValues[i];
    }
    const float value = unit(random_bits);
    const uint16_t upper = float_to_bf16(value);
    if (source.type == SourceType::kF32) std::memcpy(bytes.data() + block, &value, 4);
    if (source.type == SourceType::kBF16) std::memcpy(bytes.data() + block, &upper, 2);
  }
  return bytes;
}

}  // namespace quintet::tests
