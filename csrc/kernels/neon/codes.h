// Codes of a group of 32 k, unpacked to bytes for SDOT, and their dot products.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <utility>

#include "../layouts.h"

namespace quintet::neon {
namespace {

// Half a panel: eight columns.  Unit j is k = 4j .. 4j+3.
constexpr int kHalfColumns = kPanelColumns / 2;
struct Codes {
  uint8x16_t low[8];   // of the first four columns
  uint8x16_t high[8];  // of the others
};

// Integer sums, one per column.
struct Dots {
  int32x4_t low, high;
};

// Shifts bytes right, to the left where negative.
template <int BY>
[[gnu::always_inline]] inline uint8x16_t shift(uint8x16_t x) {
  if constexpr (BY > 0) return vshrq_n_u8(x, BY);
  if constexpr (BY < 0) return vshlq_n_u8(x, -BY);
  return x;
}

// Bits FROM .. FROM + COUNT - 1 of each byte, moved to begin at TO.
template <int FROM, int COUNT, int TO>
[[gnu::always_inline]] inline uint8x16_t bits(uint8x16_t x) {
  const uint8x16_t moved = shift<FROM - TO>(x);
  if constexpr (TO == 0 && FROM + COUNT == 8) return moved;
  return vandq_u8(moved, vdupq_n_u8(((1 << COUNT) - 1) << TO));
}

// Unit J of four columns; `group` is where those columns' first unit is.
template <Layout LAYOUT, int J>
[[gnu::always_inline]] inline uint8x16_t unit(const uint8_t* group) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  const uint8_t* further = group + kLayout.code_bytes;
  uint8x16_t code;
  if constexpr (kLayout.code_bytes == 512) {
    code = vld1q_u8(group + J * 64);
  } else if constexpr (kLayout.code_bytes == 256) {
    code = bits<J / 4 * 4, 4, 0>(vld1q_u8(group + J % 4 * 64));
  } else {
    code = bits<J % 4 * 2, 2, 0>(vld1q_u8(group + J / 4 * 64));
  }
  if constexpr (kLayout.bit_bytes == 64) {
    code = vorrq_u8(code, bits<J, 1, kLayout.code_bits()>(vld1q_u8(further)));
  } else if constexpr (kLayout.bit_bytes == 128) {
    code = vorrq_u8(code, bits<J % 4 * 2, 2, kLayout.code_bits()>(vld1q_u8(further + J / 4 * 64)));
  }
  return code;
}

// Calls f with each number below COUNT as a constant.
template <typename F, int... I>
[[gnu::always_inline]] inline void for_each_constant(std::integer_sequence<int, I...>, const F& f) {
  (f(std::integral_constant<int, I>()), ...);
}

template <Layout LAYOUT>
[[gnu::always_inline]] inline void unpack(const uint8_t* group, size_t half, Codes& codes) {
  const uint8_t* columns = group + half * 32;
  for_each_constant(std::make_integer_sequence<int, 8>(), [&](auto j) __attribute__((always_inline)) {
    codes.low[j] = unit<LAYOUT, j>(columns);
    codes.high[j] = unit<LAYOUT, j>(columns + 16);
  });
}

// Adds the dot products of four units from BEGIN on with 16 of a row.  SDOT takes codes as signed: none exceeds 127.
template <int BEGIN>
[[gnu::always_inline]] inline Dots dot16(Dots sum, const Codes& codes, const int8_t* q) {
  const int8x16_t x = vld1q_s8(q);
  for_each_constant(std::make_integer_sequence<int, 4>(), [&](auto j) __attribute__((always_inline)) {
    sum.low = vdotq_laneq_s32(sum.low, vreinterpretq_s8_u8(codes.low[BEGIN + j]), x, j);
    sum.high = vdotq_laneq_s32(sum.high, vreinterpretq_s8_u8(codes.high[BEGIN + j]), x, j);
  });
  return sum;
}

// All 32.
[[gnu::always_inline]] inline Dots dot32(Dots sum, const Codes& codes, const int8_t* q) {
  return dot16<4>(dot16<0>(sum, codes, q), codes, q + 16);
}

[[gnu::always_inline]] inline Dots dots_from(int32_t start) { return {vdupq_n_s32(start), vdupq_n_s32(start)}; }

}  // namespace
}  // namespace quintet::neon
