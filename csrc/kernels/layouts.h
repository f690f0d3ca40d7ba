// How packed weights lie in memory.
//
// One geometry for all ("P16"): a matrix [n, k] (out_features, in_features) is cut into panels of 16 output
// columns; a panel holds its groups of k in order, so a thread that walks a panel reads one stream.  n is padded
// to 16 with zero weights.  Lanes are columns: nothing is ever summed across lanes, which is what makes a row's
// result independent of the rows that share the step.
//
//   layout  bytes per panel and group                                  group of k  bits per weight  exact for
//   kF32    float [k][16]                                              1           32               F32
//   kF16    half  [k][16]                                              1           16               F16
//   kBF16   bf16  [k/2][16][2]  (an odd k is padded with a zero)        2           16               BF16
//   kW8     4-byte units u8[8][16][4] = w ^ 0x80, then half scale[16]  32          8.5              Q8_0
//   kW4     u8[4][16][4], then half scale[16]                          32          4.5              Q4_0
//
// In kW8, unit j holds k = 4j .. 4j+3 of the group.  In kW4 the low nibble of unit j holds k = 4j .. 4j+3 and the
// high nibble k = 16+4j .. 16+4j+3; codes are unsigned, value = (code - 8) * scale.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quintet {

inline constexpr int kPanelColumns = 16;
inline constexpr int kGroup = 32;  // weights per scale, along k

enum class Layout : uint8_t { kF32 = 0, kF16 = 1, kBF16 = 2, kW8 = 3, kW4 = 4 };
inline constexpr int kNumLayouts = 5;

inline constexpr size_t kScaleBytes = kPanelColumns * 2;
inline constexpr size_t kW8GroupBytes = kPanelColumns * kGroup + kScaleBytes;      // 544
inline constexpr size_t kW4GroupBytes = kPanelColumns * kGroup / 2 + kScaleBytes;  // 288
static_assert(kW8GroupBytes == 544 && kW4GroupBytes == 288);

// The activation form a layout's kernel reads.
enum class ActivationForm : uint8_t { kF32 = 0, kBF16 = 1, kQ8 = 2 };

constexpr ActivationForm activation_form(Layout layout) {
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

constexpr int num_panels(int n) { return (n + kPanelColumns - 1) / kPanelColumns; }

// Bytes of one panel of a matrix with k columns in `layout`.  k is a multiple of 32 for kW8 and kW4.
constexpr size_t panel_bytes(Layout layout, int k) {
  const auto width = static_cast<size_t>(k);
  switch (layout) {
    case Layout::kF32:
      return width * kPanelColumns * 4;
    case Layout::kF16:
      return width * kPanelColumns * 2;
    case Layout::kBF16:
      return (width + 1) / 2 * kPanelColumns * 4;
    case Layout::kW8:
      return width / kGroup * kW8GroupBytes;
    case Layout::kW4:
      return width / kGroup * kW4GroupBytes;
  }
  return 0;
}

}  // namespace quintet
