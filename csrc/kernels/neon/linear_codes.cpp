// Matrix kernels of integer codes for NEON with the dot product extension (SDOT, Armv8.2-A).
#include <cstring>

#include "codes.h"
#include "scales.h"
#include "tiles.h"

namespace quintet::neon {
namespace {

// Eight columns at a time: their unpacked codes fill half the registers and stay there while the rows pass, whose sums
// lie in memory.  Registers: 16 codes, 2 or 4 scales, 2 or 4 integer sums, 2 activations.
template <Layout LAYOUT, typename Scales>
struct CodesTile {
  static constexpr CodeLayout kLayout = code_layout(LAYOUT);
  static constexpr int kMaxRows = 32;  // 2 kB of sums
  static size_t panel_bytes(size_t k) { return k / kLayout.block_k() * kLayout.block_bytes(); }

  static void run(const TileArgs& t, int num_rows) {
    const size_t rows = static_cast<size_t>(num_rows);
    const size_t width = static_cast<size_t>(t.x.width);
    const size_t groups = width / kGroup;
    const int8_t* q = t.x.q8 + static_cast<size_t>(t.row) * width;
    const float* q_scale = t.x.q8_scale + static_cast<size_t>(t.row) * groups;
    const int32_t* q_sum = t.x.q8_sum + static_cast<size_t>(t.row) * groups;
    const uint8_t* block = t.panel;
    alignas(64) float sums[kMaxRows][kPanelColumns];
    std::memset(sums, 0, rows * sizeof sums[0]);
    for (size_t g = 0; g < groups; block += kLayout.block_bytes()) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, ++g, group += kLayout.group_bytes()) {
        prefetch<kLayout.group_bytes()>(group);
#pragma GCC unroll 1
        for (size_t half = 0; half < 2; ++half) {
          Codes codes;
          unpack<LAYOUT>(group, half, codes);
          const Scales scales(block, group + kLayout.scale_offset(), half);
          scales.prepare(codes);
#pragma GCC unroll 1
          for (size_t r = 0; r < rows; ++r) {
            const Q8Group x{q + r * width + g * kGroup, q_scale[r * groups + g], q_sum[r * groups + g]};
            scales.add_group(codes, x, sums[r] + half * kHalfColumns);
          }
        }
      }
    }
    for (size_t r = 0; r < rows; ++r) std::memcpy(t.y + r * t.ldy, sums[r], sizeof sums[r]);
  }
};

}  // namespace

void linear_w8(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<Layout::kW8, Symmetric<Layout::kW8>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4, Symmetric<Layout::kW4>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5, Symmetric<Layout::kW5>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4m(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4m, HalfWithMin>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5m(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5m, HalfWithMin>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4k, ByteWithMin>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5k, ByteWithMin>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w6k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW6k, TwoScales<Layout::kW6k>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w3k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW3k, TwoScales<Layout::kW3k>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w2k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW2k, ScaledCodes>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4n(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4n, Symmetric<Layout::kW4n>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4x(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4x, Symmetric<Layout::kW4x>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4e(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4e, Symmetric<Layout::kW4e>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4t(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4t, TableScales<Layout::kW4t>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w3t(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW3t, TableScales<Layout::kW3t>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

}  // namespace quintet::neon
