// Matrix kernel of bf16 weights for AMX.  Weights lie as tiles read them, two k per unit, and sums stay in tiles from
// the first k to the last.
#include "../avx512/tiles.h"

#include "tiles.h"

namespace quintet::amx {
namespace {

constexpr size_t kStep = kBF16TileK;
constexpr size_t kStepBytes = kStep / 2 * kTileRowBytes;
constexpr int kBlockRows = 2 * kTileHeight;

// The k that do not fill a tile, with zeros behind them.
struct Rest {
  alignas(64) uint16_t x[kBlockRows][kStep];
  alignas(64) uint8_t weights[2][kStepBytes];
};

// 32 rows or fewer, which the tiles are configured for, and one panel or two.
template <bool TWO_TILES, bool TWO_PANELS>
void run(const uint16_t* x, size_t width, int rows, const uint8_t* panel, size_t panel_stride, Upcoming& next,
         int next_lines, float* y, size_t ldy) {
  zero_bf16_sums<TWO_TILES, TWO_PANELS>();
  const size_t whole = width / kStep * kStep;
  for (size_t k = 0; k < whole; k += kStep, panel += kStepBytes) {
    if (next_lines == 0) {  // all rows at once: the panels come from memory now
      avx512::prefetch<kStepBytes>(panel);
      if constexpr (TWO_PANELS) avx512::prefetch<kStepBytes>(panel + panel_stride);
    } else {
      next.ask(next_lines);
    }
    add_bf16_tiles<TWO_TILES, TWO_PANELS>(x + k, width * sizeof *x, panel, panel + panel_stride, kTileRowBytes);
  }
  if (whole < width) {
    Rest rest{};
    for (int r = 0; r < rows; ++r) {
      std::memcpy(rest.x[r], x + static_cast<size_t>(r) * width + whole, (width - whole) * sizeof *x);
    }
    const size_t bytes = (width - whole) / 2 * kTileRowBytes;
    std::memcpy(rest.weights[0], panel, bytes);
    if constexpr (TWO_PANELS) std::memcpy(rest.weights[1], panel + panel_stride, bytes);
    add_bf16_tiles<TWO_TILES, TWO_PANELS>(rest.x, kStep * sizeof *x, rest.weights[0], rest.weights[1], kTileRowBytes);
  }
  store_bf16_sums<TWO_TILES, TWO_PANELS>(y, ldy);
}

}  // namespace

// Two panels outermost, as in avx512/tiles.h.  While blocks of rows pass over them, the next two come from memory.
void linear_bf16(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                 float* y, size_t ldy) {
  const size_t width = (static_cast<size_t>(x.width) + 1) / 2 * 2;
  const size_t stride = panel_bytes(Layout::kBF16, w.k);
  const size_t num_blocks = static_cast<size_t>((row_end - row_begin + kBlockRows - 1) / kBlockRows);
  const size_t steps = num_blocks * ((width + kStep - 1) / kStep);
  for (int panel = panel_begin; panel < panel_end; panel += 2) {
    const int num_panels = panel_end - panel < 2 ? 1 : 2;
    const int num_next = panel_end - panel - num_panels < 2 ? panel_end - panel - num_panels : 2;
    const uint8_t* weights = w.data + static_cast<size_t>(panel) * stride;
    Upcoming next{weights + 2 * stride, weights + static_cast<size_t>(2 + num_next) * stride};
    const int next_lines = num_blocks > 1 ? 1 + next.lines_per_step(steps) : 0;
    for (int row = row_begin; row < row_end; row += kBlockRows) {
      const int rows = row_end - row < kBlockRows ? row_end - row : kBlockRows;
      const Tiles tiles = bf16_tiles(rows);
      const auto run_block = rows > kTileHeight ? (num_panels == 2 ? run<true, true> : run<true, false>)
                                              : (num_panels == 2 ? run<false, true> : run<false, false>);
      run_block(x.bf16 + static_cast<size_t>(row) * width, width, rows, weights, stride, next, next_lines,
                y + static_cast<size_t>(row) * ldy + static_cast<size_t>(panel) * kPanelColumns, ldy);
    }
  }
}

}  // namespace quintet::amx
