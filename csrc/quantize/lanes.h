// Sixteen lanes of float, and tiles of sixteen groups of weights, a group to a lane.
//
// GCC's and Clang's vector types: the compiler splits them where registers are narrower.  Multiplications and additions
// are not contracted, so every instruction set gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "encoders.h"
#include "half.h"

#define QUINTET_LANE_INLINE static inline __attribute__((always_inline))

namespace quintet::quantize::QUINTET_LANES {

inline constexpr int kLanes = 16;

using V = float __attribute__((vector_size(64), aligned(64)));
using I = int32_t __attribute__((vector_size(64), aligned(64)));

QUINTET_LANE_INLINE V splat(float value) { return V{} + value; }
QUINTET_LANE_INLINE V choose(I condition, V yes, V no) { return condition ? yes : no; }
QUINTET_LANE_INLINE V smaller(V a, V b) { return a < b ? a : b; }
QUINTET_LANE_INLINE V larger(V a, V b) { return a > b ? a : b; }
QUINTET_LANE_INLINE V magnitude(V a) { return reinterpret_cast<V>(reinterpret_cast<I>(a) & 0x7fffffff); }
QUINTET_LANE_INLINE V clamp(V a, float low, float high) { return smaller(larger(a, splat(low)), splat(high)); }

// To the nearest integer, ties to even, for |a| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
QUINTET_LANE_INLINE V nearest(V a) { return (a + 0x1.8p23f) - 0x1.8p23f; }

// 1 / a, and 0 where a is 0 or its inverse would be infinite.
QUINTET_LANE_INLINE V inverse(V a) { return choose(magnitude(a) > 0x1p-126f, 1.0f / a, V{}); }

// The square root, which IEEE 754 rounds correctly everywhere.
QUINTET_LANE_INLINE V root(V a) {
  for (int lane = 0; lane < kLanes; ++lane) a[lane] = __builtin_sqrtf(a[lane]);
  return a;
}

// The integer in each lane of a whole-numbered vector.
QUINTET_LANE_INLINE I whole(V a) { return __builtin_convertvector(a, I); }

// Through a half and back; beyond its range, its largest.
QUINTET_LANE_INLINE uint16_t to_half(float value) {
  return float_to_half(value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value);
}
QUINTET_LANE_INLINE V through_half(V a) {
  V result;
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = half_to_float(to_half(a[lane]));
  return result;
}

// Sixteen groups of kSize weights: x[i][lane] is weight i of group `lane`, w its importance.
template <int kSize>
struct Tile {
  V x[kSize];
  V w[kSize];
};

// Lane `lane` of a tile; a null importance is left for what calls the search without weights.
template <int kSize>
QUINTET_LANE_INLINE void fill_lane(Tile<kSize>& tile, int lane, const float* values, const float* importance) {
  float* x = reinterpret_cast<float*>(tile.x) + lane;
  for (int i = 0; i < kSize; ++i) x[i * kLanes] = values[i];
  if (importance == nullptr) return;
  float* w = reinterpret_cast<float*>(tile.w) + lane;
  for (int i = 0; i < kSize; ++i) w[i * kLanes] = importance[i];
}

// The groups of the blocks from `first` on; past the run's end the last block again, whose codes nobody reads.
template <int kSize, int kBlock>
static Tile<kSize> load(const Run& run, size_t first) {
  constexpr int kGroups = kBlock / kSize;
  Tile<kSize> tile;
  for (int lane = 0; lane < kLanes; ++lane) {
    const size_t last = run.num_blocks - 1;
    const size_t block = first + lane / kGroups < last ? first + lane / kGroups : last;
    const size_t offset = lane % kGroups * kSize;
    const float* importance = run.importance_of(block, kBlock);
    fill_lane(tile, lane, run.values + block * kBlock + offset, importance == nullptr ? nullptr : importance + offset);
  }
  return tile;
}

template <int kSize>
QUINTET_LANE_INLINE void read_lane(const I (&codes)[kSize], int lane, uint8_t* to) {
  const int32_t* from = reinterpret_cast<const int32_t*>(codes) + lane;
  for (int i = 0; i < kSize; ++i) to[i] = static_cast<uint8_t>(from[i * kLanes]);
}

static inline void put_half(uint8_t* to, float value) {
  const uint16_t bits = to_half(value);
  std::memcpy(to, &bits, sizeof bits);
}

}  // namespace quintet::quantize::QUINTET_LANES
