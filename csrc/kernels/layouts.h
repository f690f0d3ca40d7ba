// How packed weights lie in memory.
//
// One geometry for all ("P16"): a matrix [n, k] (out_features, in_features) is cut into panels of 16 output
// columns; a panel holds its groups of k in order, so a thread that walks a panel reads one stream.  n is padded
// to 16 with zero weights.  Lanes are columns: nothing is ever summed across lanes, which is what makes a row's
// result independent of the rows that share the step.
//
// Float layouts, by k:
//
//   layout  bytes per panel and step                                   step of k  bits per weight  exact for
//   kF32    float [k][16]                                              1          32               F32
//   kF16    half  [k][16]                                              1          16               F16
//   kBF16   bf16  [k/2][16][2]  (an odd k is padded with a zero)       2          16               BF16
//
// Code layouts, by groups of 32 k: unsigned integer codes, then what scales them, one value per column.  The codes of
// a group are eight units u8[16][4]; unit j holds k = 4j .. 4j+3.
//
//   codes8  units as they are, u8[8][16][4]
//   codes4  u8[4][16][4]: the low nibble of byte j is unit j, the high nibble unit j + 4
//   codes2  u8[2][16][4]: bits 2(j % 4) and up of byte j / 4 are unit j
//   bits1   u8[16][4]: bit j is the next bit (above those of codes4 or codes2) of unit j's code
//   bits2   u8[2][16][4]: bits 2(j % 4) and up of byte j / 4 are the next two bits of unit j's code
//
//   layout  a block of k, in order                                        weight                   bits   exact for
//   kW8     32:  codes8, half s[16]                                       s (code - 128)           8.5    Q8_0
//   kW4     32:  codes4, half s[16]                                       s (code - 8)             4.5    Q4_0
//   kW5     32:  codes4, bits1, half s[16]                                s (code - 16)            5.5    Q5_0
//   kW4m    32:  codes4, half s[16], half m[16]                           s code - m               5.0    Q4_1
//   kW5m    32:  codes4, bits1, half s[16], half m[16]                    s code - m               6.0    Q5_1
//   kW4k    256: half d[16], half e[16], 8 x {codes4, u8 s[16], u8 m[16]} d s code - e m           4.625  Q4_K
//   kW5k    256: half d[16], half e[16], 8 x {codes4, bits1, u8 s[16], u8 m[16]}  the same         5.625  Q5_K
//   kW6k    256: half d[16], 8 x {codes4, bits2, i8 s[2][16]}             d s[k / 16 % 2] (code - 32)  6.5625  Q6_K
//   kW3k    256: half d[16], 8 x {codes2, bits1, i8 s[2][16]}  d s[k / 16 % 2] (code - 4)   3.5625  Q3_K
//   kW2k    256: half d[16], half e[16], 8 x {codes2, u8 t[16][2]}        d s code - e m           2.625  Q2_K
//           s and m are the low and the high nibble of t[k / 16 % 2]
//   kW4n    32:  codes4, half s[16]                                       s value[code]            4.5    IQ4_NL
//   kW4x    256: half d[16], 8 x {codes4, i8 s[16]}                       d s value[code]          4.3125 IQ4_XS
//   kW4e    32:  codes4, u8 e[16]                                         2^(e - 128) value[code]  4.25   MXFP4
//   kW4t    256: half d[16], u8 t[16], 8 x {codes4, i8 s[2][16]}          d s[k / 16 % 2] (t[code] - 64) / 8  4.59375
//   kW3t    256: half d[16], u8 t[16], 8 x {codes2, bits1, i8 s[2][16]}   the same                            3.59375
//
// The last five look their codes up.  The values of kW4n, kW4x and kW4e are constants: see code_values.  Those of kW4t
// and kW3t are the matrix's own, t, at most 127 and the same in all of its blocks: exact for codebooks of up to 16
// or 8 small whole numbers, as IQ3 and IQ2 are.  Theirs count eighths of d, which a half could lose.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quintet {

// Functions are `static` so that each file keeps its own copy (see impl.h).

// Counts up whenever a layout or a packing changes: packed weights are kept in files.
inline constexpr int kLayoutsVersion = 1;

inline constexpr int kPanelColumns = 16;
inline constexpr int kGroup = 32;        // weights per scale, along k
inline constexpr int kSuperBlock = 256;  // weights per scale of scales

enum class Layout : uint8_t {
  kF32 = 0,
  kF16 = 1,
  kBF16 = 2,
  kW8 = 3,
  kW4 = 4,
  kW5 = 5,
  kW4m = 6,
  kW5m = 7,
  kW4k = 8,
  kW5k = 9,
  kW6k = 10,
  kW3k = 11,
  kW2k = 12,
  kW4n = 13,
  kW4x = 14,
  kW4e = 15,
  kW4t = 16,
  kW3t = 17,
};
inline constexpr int kNumLayouts = 18;

// The parts of a code layout: where things are, in bytes.  A block is a header and some groups; a group is its codes,
// their further bits, and what scales them.
struct CodeLayout {
  int groups_per_block;  // 0 for a float layout
  size_t header_bytes;
  size_t code_bytes;
  size_t bit_bytes;
  size_t scale_bytes;

  constexpr int code_bits() const { return static_cast<int>(code_bytes / 64); }  // without the further ones
  constexpr size_t scale_offset() const { return code_bytes + bit_bytes; }
  constexpr size_t group_bytes() const { return code_bytes + bit_bytes + scale_bytes; }
  constexpr size_t block_bytes() const { return header_bytes + static_cast<size_t>(groups_per_block) * group_bytes(); }
  constexpr int block_k() const { return groups_per_block * kGroup; }
};

static constexpr CodeLayout code_layout(Layout layout) {
  switch (layout) {
    case Layout::kW8:
      return {1, 0, 512, 0, 32};
    case Layout::kW4:
      return {1, 0, 256, 0, 32};
    case Layout::kW5:
      return {1, 0, 256, 64, 32};
    case Layout::kW4m:
      return {1, 0, 256, 0, 64};
    case Layout::kW5m:
      return {1, 0, 256, 64, 64};
    case Layout::kW4k:
      return {8, 64, 256, 0, 32};
    case Layout::kW5k:
      return {8, 64, 256, 64, 32};
    case Layout::kW6k:
      return {8, 32, 256, 128, 32};
    case Layout::kW3k:
      return {8, 32, 128, 64, 32};
    case Layout::kW2k:
      return {8, 64, 128, 0, 32};
    case Layout::kW4n:
      return {1, 0, 256, 0, 32};
    case Layout::kW4x:
      return {8, 32, 256, 0, 16};
    case Layout::kW4e:
      return {1, 0, 256, 0, 16};
    case Layout::kW4t:
      return {8, 48, 256, 0, 32};
    case Layout::kW3t:
      return {8, 48, 128, 64, 32};
    default:
      return {};
  }
}

static_assert(code_layout(Layout::kW8).block_bytes() * 8 == 17 * kPanelColumns * kGroup / 2);          // 8.5 bits
static_assert(code_layout(Layout::kW4).block_bytes() * 8 == 9 * kPanelColumns * kGroup / 2);           // 4.5
static_assert(code_layout(Layout::kW5).block_bytes() * 8 == 11 * kPanelColumns * kGroup / 2);          // 5.5
static_assert(code_layout(Layout::kW4m).block_bytes() * 8 == 5 * kPanelColumns * kGroup);              // 5
static_assert(code_layout(Layout::kW5m).block_bytes() * 8 == 6 * kPanelColumns * kGroup);              // 6
static_assert(code_layout(Layout::kW4k).block_bytes() * 8 == 37 * kPanelColumns * kSuperBlock / 8);    // 4.625
static_assert(code_layout(Layout::kW5k).block_bytes() * 8 == 45 * kPanelColumns * kSuperBlock / 8);    // 5.625
static_assert(code_layout(Layout::kW6k).block_bytes() * 8 == 105 * kPanelColumns * kSuperBlock / 16);  // 6.5625
static_assert(code_layout(Layout::kW3k).block_bytes() * 8 == 57 * kPanelColumns * kSuperBlock / 16);   // 3.5625
static_assert(code_layout(Layout::kW2k).block_bytes() * 8 == 21 * kPanelColumns * kSuperBlock / 8);    // 2.625
static_assert(code_layout(Layout::kW4n).block_bytes() * 8 == 9 * kPanelColumns * kGroup / 2);          // 4.5
static_assert(code_layout(Layout::kW4x).block_bytes() * 8 == 69 * kPanelColumns * kSuperBlock / 16);   // 4.3125
static_assert(code_layout(Layout::kW4e).block_bytes() * 8 == 17 * kPanelColumns * kGroup / 4);         // 4.25
static_assert(code_layout(Layout::kW4t).block_bytes() * 8 == 147 * kPanelColumns * kSuperBlock / 32);  // 4.59375
static_assert(code_layout(Layout::kW3t).block_bytes() * 8 == 115 * kPanelColumns * kSuperBlock / 32);  // 3.59375

// What the codes of kW4n, kW4x and kW4e stand for; null for the others, whose codes are numbers.  Sources:
// kvalues_iq4nl of ggml/src/ggml-common.h; the E2M1 numbers of OCP Microscaling Formats v1.0, doubled to be whole.
inline constexpr int8_t kIQ4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
inline constexpr int8_t kFP4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static constexpr bool has_code_values(Layout layout) {
  return layout == Layout::kW4n || layout == Layout::kW4x || layout == Layout::kW4e;
}

static constexpr const int8_t* code_values(Layout layout) {
  switch (layout) {
    case Layout::kW4n:
    case Layout::kW4x:
      return kIQ4Values;
    case Layout::kW4e:
      return kFP4Values;
    default:
      return nullptr;
  }
}

// True where a block's header has its values after d.
static constexpr bool has_table(Layout layout) { return layout == Layout::kW4t || layout == Layout::kW3t; }
inline constexpr size_t kTableOffset = 32;
inline constexpr float kTableUnit = 0.125f;

// What an unsigned code, or in kernels a value made unsigned, stands above its number by.
static constexpr int zero_point(Layout layout) {
  switch (layout) {
    case Layout::kW8:
    case Layout::kW4n:
    case Layout::kW4x:
      return 128;
    case Layout::kW4t:
    case Layout::kW3t:
      return 64;
    case Layout::kW6k:
      return 32;
    case Layout::kW5:
      return 16;
    case Layout::kW4e:
      return 12;
    case Layout::kW4:
      return 8;
    case Layout::kW3k:
      return 4;
    default:
      return 0;
  }
}

// True where scales change within a group of 32: at every 16 k.
static constexpr bool has_halves(Layout layout) {
  return layout == Layout::kW6k || layout == Layout::kW3k || layout == Layout::kW2k || has_table(layout);
}

// True where a minimum is subtracted from each weight.
static constexpr bool has_min(Layout layout) {
  switch (layout) {
    case Layout::kW4m:
    case Layout::kW5m:
    case Layout::kW4k:
    case Layout::kW5k:
    case Layout::kW2k:
      return true;
    default:
      return false;
  }
}

// The activation form a layout's kernel reads.
enum class ActivationForm : uint8_t { kF32 = 0, kBF16 = 1, kQ8 = 2 };

static constexpr ActivationForm activation_form(Layout layout) {
  switch (layout) {
    case Layout::kF32:
    case Layout::kF16:
      return ActivationForm::kF32;
    case Layout::kBF16:
      return ActivationForm::kBF16;
    default:
      return ActivationForm::kQ8;
  }
}

// Kernels of layouts with halves keep a sum per 16 activations on the stack, for at most this many.
inline constexpr int kMaxHalvesK = 65536;

// What k must be a multiple of.
static constexpr int k_multiple(Layout layout) {
  const int block = code_layout(layout).block_k();
  return block == 0 ? 1 : block;
}

static constexpr int num_panels(int n) { return (n + kPanelColumns - 1) / kPanelColumns; }

// Bytes of one panel of a matrix with k columns in `layout`.  k is a multiple of k_multiple(layout).
static constexpr size_t panel_bytes(Layout layout, int k) {
  const auto width = static_cast<size_t>(k);
  switch (layout) {
    case Layout::kF32:
      return width * kPanelColumns * 4;
    case Layout::kF16:
      return width * kPanelColumns * 2;
    case Layout::kBF16:
      return (width + 1) / 2 * kPanelColumns * 4;
    default: {
      const CodeLayout codes = code_layout(layout);
      return width / static_cast<size_t>(codes.block_k()) * codes.block_bytes();
    }
  }
}

}  // namespace quintet
