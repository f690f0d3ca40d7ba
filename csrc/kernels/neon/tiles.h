// What the matrix kernels for NEON share: the walk over rows and panels.  A panel's 16 columns are four registers of
// four lanes.
#pragma once

#include <arm_neon.h>

#include "../impl.h"

namespace quintet::neon {
namespace {

constexpr size_t kPrefetchBytes = 4096;  // as in avx512/tiles.h

template <size_t BYTES>
[[gnu::always_inline]] inline void prefetch(const uint8_t* p) {
#pragma GCC unroll 16
  for (size_t i = 0; i < BYTES; i += 64) __builtin_prefetch(p + kPrefetchBytes + i);
}

// Four halves as floats.
[[gnu::always_inline]] inline float32x4_t load_halves(const uint8_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

// One register tile: some rows of x from `row` on, one panel.
struct TileArgs {
  const Rows& x;
  int row;
  const uint8_t* panel;
  float* y;  // first row, first column of the tile
  size_t ldy;
};

// Panels outermost: a panel stays in the cache while the rows pass over it, and leaves memory once.  Rows are cut into
// the fewest tiles, nearly equal.
template <typename Kernel>
void linear(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end, float* y,
            size_t ldy) {
  const int num_rows = row_end - row_begin;
  if (num_rows <= 0) return;
  const int num_tiles = (num_rows + Kernel::kMaxRows - 1) / Kernel::kMaxRows;
  const int tile_rows = (num_rows + num_tiles - 1) / num_tiles;
  const size_t stride = Kernel::panel_bytes(static_cast<size_t>(w.k));
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int row = row_begin; row < row_end; row += tile_rows) {
      const int rows = row_end - row < tile_rows ? row_end - row : tile_rows;
      float* out = y + static_cast<size_t>(row) * ldy + static_cast<size_t>(panel) * kPanelColumns;
      Kernel::run({x, row, w.data + static_cast<size_t>(panel) * stride, out, ldy}, rows);
    }
  }
}

}  // namespace
}  // namespace quintet::neon
