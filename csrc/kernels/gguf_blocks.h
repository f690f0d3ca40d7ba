// GGUF's block formats, read as groups of 32 codes and what scales them.
//
// A format describes one block of one row: `codes` gives the unsigned codes of group g as eight units of four bytes
// (unit j: elements 4j .. 4j+3), `header` and `scales` write that column's share of a packed block's header and of a
// group's scales, as layouts.h defines them.  Whole words at a time: a word is four elements.
// Source of the formats: ggml/src/ggml-common.h (block_q2_K ... block_mxfp4) and ggml-quants.c (dequantize_row_*).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "layouts.h"

namespace quintet::gguf {

template <typename T>
static inline T load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <typename T>
static inline void store(uint8_t* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

inline constexpr uint32_t kNibbles = 0x0f0f0f0f;

// Four consecutive bits, one to a byte.
static inline uint32_t spread_bits(uint32_t bits) { return ((bits & 15u) * 0x00204081u) & 0x01010101u; }

static inline void copy_half(const uint8_t* from, int column, uint8_t* to) {
  store(to + column * 2, load<uint16_t>(from));
}

// A half with its sign turned: GGUF adds a minimum, the layouts subtract it.
static inline void copy_negated_half(const uint8_t* from, int column, uint8_t* to) {
  store(to + column * 2, static_cast<uint16_t>(load<uint16_t>(from) ^ 0x8000u));
}

// The 16 bytes of nibbles that the formats of 32 share: low nibbles are elements 0 .. 15.
static inline void nibble_codes(const uint8_t* nibbles, uint32_t (&units)[8]) {
  for (int j = 0; j < 4; ++j) {
    const uint32_t word = load<uint32_t>(nibbles + j * 4);
    units[j] = word & kNibbles;
    units[j + 4] = word >> 4 & kNibbles;
  }
}

static inline void add_fifth_bits(uint32_t bits, uint32_t (&units)[8]) {
  for (int j = 0; j < 8; ++j) units[j] |= spread_bits(bits >> j * 4) << 4;
}

struct Q8_0 {  // half d, int8 q[32]: d q
  static constexpr size_t kBytes = 34;
  static void codes(const uint8_t* block, int, uint32_t (&units)[8]) {
    for (int j = 0; j < 8; ++j) units[j] = load<uint32_t>(block + 2 + j * 4) ^ 0x80808080u;
  }
  static void header(const uint8_t*, int, uint8_t*) {}
  static void scales(const uint8_t* block, int, int column, uint8_t* to) { copy_half(block, column, to); }
};

struct Q4_0 {  // half d, nibbles: d (code - 8)
  static constexpr size_t kBytes = 18;
  static void codes(const uint8_t* block, int, uint32_t (&units)[8]) { nibble_codes(block + 2, units); }
  static void header(const uint8_t*, int, uint8_t*) {}
  static void scales(const uint8_t* block, int, int column, uint8_t* to) { copy_half(block, column, to); }
};

struct Q5_0 {  // half d, u32 fifth bits, nibbles: d (code - 16)
  static constexpr size_t kBytes = 22;
  static void codes(const uint8_t* block, int, uint32_t (&units)[8]) {
    nibble_codes(block + 6, units);
    add_fifth_bits(load<uint32_t>(block + 2), units);
  }
  static void header(const uint8_t*, int, uint8_t*) {}
  static void scales(const uint8_t* block, int, int column, uint8_t* to) { copy_half(block, column, to); }
};

struct Q4_1 {  // half d, half m, nibbles: d code + m
  static constexpr size_t kBytes = 20;
  static void codes(const uint8_t* block, int, uint32_t (&units)[8]) { nibble_codes(block + 4, units); }
  static void header(const uint8_t*, int, uint8_t*) {}
  static void scales(const uint8_t* block, int, int column, uint8_t* to) {
    copy_half(block, column, to);
    copy_negated_half(block + 2, column, to + 32);
  }
};

struct Q5_1 {  // half d, half m, u32 fifth bits, nibbles: d code + m
  static constexpr size_t kBytes = 24;
  static void codes(const uint8_t* block, int, uint32_t (&units)[8]) {
    nibble_codes(block + 8, units);
    add_fifth_bits(load<uint32_t>(block + 4), units);
  }
  static void header(const uint8_t*, int, uint8_t*) {}
  static void scales(const uint8_t* block, int, int column, uint8_t* to) { Q4_1::scales(block, 0, column, to); }
};

// half d, half dmin, u8 scales[12], nibbles u8[128]: d s code - dmin m.  Group g's codes are the low or high nibbles of
// 32 bytes.  Of the twelve bytes, 0-3 and 4-7 hold the six bits of s and m of groups 0-3; of groups 4-7 the low four
// bits are the nibbles of bytes 8-11, and the upper two bits those of bytes 0-3 (s) and 4-7 (m).
struct Q4_K {
  static constexpr size_t kBytes = 144;
  static void group_codes(const uint8_t* nibbles, int g, uint32_t (&units)[8]) {
    for (int j = 0; j < 8; ++j) units[j] = load<uint32_t>(nibbles + g / 2 * 32 + j * 4) >> g % 2 * 4 & kNibbles;
  }
  static void codes(const uint8_t* block, int g, uint32_t (&units)[8]) { group_codes(block + 16, g, units); }
  static void header(const uint8_t* block, int column, uint8_t* to) {
    copy_half(block, column, to);
    copy_half(block + 2, column, to + 32);
  }
  static void scales(const uint8_t* block, int g, int column, uint8_t* to) {
    const uint8_t* p = block + 4;
    const int scale = g < 4 ? p[g] & 63 : (p[g + 4] & 15) | p[g - 4] >> 6 << 4;
    const int min = g < 4 ? p[g + 4] & 63 : p[g + 4] >> 4 | p[g] >> 6 << 4;
    to[column] = static_cast<uint8_t>(scale);
    to[16 + column] = static_cast<uint8_t>(min);
  }
};

struct Q5_K {  // as Q4_K with u8 fifth bits[32] before the nibbles: bit g of byte i is of element i of group g
  static constexpr size_t kBytes = 176;
  static void codes(const uint8_t* block, int g, uint32_t (&units)[8]) {
    Q4_K::group_codes(block + 48, g, units);
    for (int j = 0; j < 8; ++j) units[j] |= (load<uint32_t>(block + 16 + j * 4) >> g & 0x01010101u) << 4;
  }
  static void header(const uint8_t* block, int column, uint8_t* to) { Q4_K::header(block, column, to); }
  static void scales(const uint8_t* block, int g, int column, uint8_t* to) { Q4_K::scales(block, g, column, to); }
};

// nibbles u8[128], upper bits u8[64], int8 scales[16], half d: d s (code - 32).  In each half of 128 elements, group
// r's nibbles are the low (r < 2) or high ones of 32 bytes, its upper bits are bits 2r and 2r+1 of 32 other bytes.
struct Q6_K {
  static constexpr size_t kBytes = 210;
  static void codes(const uint8_t* block, int g, uint32_t (&units)[8]) {
    const uint8_t* nibbles = block + g / 4 * 64 + g % 2 * 32;
    const uint8_t* bits = block + 128 + g / 4 * 32;
    for (int j = 0; j < 8; ++j) {
      const uint32_t low = load<uint32_t>(nibbles + j * 4) >> g % 4 / 2 * 4 & kNibbles;
      const uint32_t high = load<uint32_t>(bits + j * 4) >> g % 4 * 2 & 0x03030303u;
      units[j] = low | high << 4;
    }
  }
  static void header(const uint8_t* block, int column, uint8_t* to) { copy_half(block + 208, column, to); }
  static void scales(const uint8_t* block, int g, int column, uint8_t* to) {
    to[column] = block[192 + g * 2];
    to[16 + column] = block[192 + g * 2 + 1];
  }
};

// u8 scales[16], codes u8[64], half d, half dmin: d s code - dmin m, s and m the nibbles of a scale.  In each half of
// 128 elements, group r's codes are bits 2r and 2r+1 of 32 bytes.
struct Q2_K {
  static constexpr size_t kBytes = 84;
  static void group_codes(const uint8_t* bits, int g, uint32_t (&units)[8]) {
    for (int j = 0; j < 8; ++j) units[j] = load<uint32_t>(bits + g / 4 * 32 + j * 4) >> g % 4 * 2 & 0x03030303u;
  }
  static void codes(const uint8_t* block, int g, uint32_t (&units)[8]) { group_codes(block + 16, g, units); }
  static void header(const uint8_t* block, int column, uint8_t* to) { Q4_K::header(block + 80, column, to); }
  static void scales(const uint8_t* block, int g, int column, uint8_t* to) {
    store(to + column * 2, load<uint16_t>(block + g * 2));
  }
};

// u8 third bits[32], codes u8[64] as in Q2_K, u8 scales[12], half d: d (s - 32) (code - 4).  Bit g of byte i is of
// element i of group g.  Scale j has its low four bits in nibble j / 8 of byte j % 8, the others in bits 2(j / 4) and
// up of byte 8 + j % 4.
struct Q3_K {
  static constexpr size_t kBytes = 110;
  static void codes(const uint8_t* block, int g, uint32_t (&units)[8]) {
    Q2_K::group_codes(block + 32, g, units);
    for (int j = 0; j < 8; ++j) units[j] |= (load<uint32_t>(block + j * 4) >> g & 0x01010101u) << 2;
  }
  static void header(const uint8_t* block, int column, uint8_t* to) { copy_half(block + 108, column, to); }
  static void scales(const uint8_t* block, int g, int column, uint8_t* to) {
    const uint8_t* p = block + 96;
    for (int half = 0; half < 2; ++half) {
      const int j = g * 2 + half;
      const int scale = (p[j % 8] >> j / 8 * 4 & 15) | (p[8 + j % 4] >> j / 4 * 2 & 3) << 4;
      to[half * 16 + column] = static_cast<uint8_t>(scale - 32);
    }
  }
};

struct IQ4_NL {  // half d, nibbles: d value[code]
  static constexpr size_t kBytes = 18;
  static void codes(const uint8_t* block, int, uint32_t (&units)[8]) { nibble_codes(block + 2, units); }
  static void header(const uint8_t*, int, uint8_t*) {}
  static void scales(const uint8_t* block, int, int column, uint8_t* to) { copy_half(block, column, to); }
};

// half d, u16 upper bits of the scales, u8 their low nibbles[4], nibbles u8[8][16]: d (s - 32) value[code].
struct IQ4_XS {
  static constexpr size_t kBytes = 136;
  static void codes(const uint8_t* block, int g, uint32_t (&units)[8]) { nibble_codes(block + 8 + g * 16, units); }
  static void header(const uint8_t* block, int column, uint8_t* to) { copy_half(block, column, to); }
  static void scales(const uint8_t* block, int g, int column, uint8_t* to) {
    const int scale = (block[4 + g / 2] >> g % 2 * 4 & 15) | (load<uint16_t>(block + 2) >> g * 2 & 3) << 4;
    to[column] = static_cast<uint8_t>(scale - 32);
  }
};

struct MXFP4 {  // u8 e, nibbles: 2^(e - 128) value[code]
  static constexpr size_t kBytes = 17;
  static void codes(const uint8_t* block, int, uint32_t (&units)[8]) { nibble_codes(block + 1, units); }
  static void header(const uint8_t*, int, uint8_t*) {}
  static void scales(const uint8_t* block, int, int column, uint8_t* to) { to[column] = block[0]; }
};

// Not a file's: what formats with codebooks become on their way.  half d, u8 values[16] at most 127, int8 scales[16],
// nibbles u8[8][16]: d s (values[code] - 64) / 8, s by 16 elements.  The values are the same in all blocks of a matrix.
struct Table {
  static constexpr size_t kBytes = 162;
  static void codes(const uint8_t* block, int g, uint32_t (&units)[8]) { nibble_codes(block + 34 + g * 16, units); }
  static void header(const uint8_t* block, int column, uint8_t* to) {
    copy_half(block, column, to);
    if (column == 0) std::memcpy(to + kTableOffset, block + 2, 16);
  }
  static void scales(const uint8_t* block, int g, int column, uint8_t* to) {
    to[column] = block[18 + g * 2];
    to[16 + column] = block[18 + g * 2 + 1];
  }
};

inline constexpr size_t kLargestBlock = Q6_K::kBytes;

}  // namespace quintet::gguf
