// Matrix kernel of bf16 weights for AMX.  Weights lie as tiles read them, two k per unit, and sums stay in tiles from
// the first k to the last.  Few rows wait for memory, and plain registers wait best: they take the tile's steps one by
// one, with the same bits.
#include "../avx512/tiles.h"
#include "../denormals.h"
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

// The steps of TDPBF16PS.  Source: Intel SDM, "TDPBF16PS".
// Registers: per row and panel a sum and two chains; 2 * PANELS weights, 2 activations.
struct TileSteps {
  static constexpr int kMaxRows = 4;
  static constexpr int kPanels = 2;
  using Prepared = avx512::NothingPrepared;
  static int max_rows(const Rows&) { return kMaxRows; }
  static size_t panel_bytes(size_t k) { return (k + 1) / 2 * kTileRowBytes; }

  template <int ROWS, int PANELS>
  static void run(const avx512::TileArgs& t, const Prepared&) {
    const size_t width = (static_cast<size_t>(t.x.width) + 1) / 2 * 2;
    const uint16_t* x = t.x.bf16 + static_cast<size_t>(t.row) * width;
    const uint8_t* panel = t.panel;
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    __m512 sum[PANELS][ROWS];
#pragma GCC unroll 2
    for (auto& of_panel : sum) {
#pragma GCC unroll 4
      for (auto& s : of_panel) s = _mm512_setzero_ps();
    }
    for (size_t step = 0; step < width; step += kStep) {
      __m512 chain[PANELS][ROWS][2];
#pragma GCC unroll 2
      for (auto& of_panel : chain) {
#pragma GCC unroll 4
        for (auto& c : of_panel) c[0] = c[1] = _mm512_setzero_ps();
      }
      const size_t end = width - step < kStep ? width : step + kStep;
      for (size_t k = step; k < end; k += 2, panel += kTileRowBytes) {
        __m512 even[PANELS];
        __m512 odd[PANELS];
#pragma GCC unroll 2
        for (size_t p = 0; p < PANELS; ++p) {
          const uint8_t* at = panel + p * t.panel_stride;
          _mm_prefetch(reinterpret_cast<const char*>(at) + avx512::kPrefetchBytes, _MM_HINT_T0);
          const __m512i both = _mm512_loadu_si512(at);
          even[p] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
          odd[p] = _mm512_castsi512_ps(_mm512_and_si512(both, high));
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < ROWS; ++r) {
          const __m512i pair = avx512::broadcast4(x + r * width + k);
          const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
          const __m512 second = _mm512_castsi512_ps(_mm512_and_si512(pair, high));
#pragma GCC unroll 2
          for (size_t p = 0; p < PANELS; ++p) {
            chain[p][r][0] = _mm512_fmadd_ps(first, even[p], chain[p][r][0]);
            chain[p][r][1] = _mm512_fmadd_ps(second, odd[p], chain[p][r][1]);
          }
        }
      }
#pragma GCC unroll 2
      for (size_t p = 0; p < PANELS; ++p) {
#pragma GCC unroll 4
        for (size_t r = 0; r < ROWS; ++r) {
          sum[p][r] = _mm512_add_ps(sum[p][r], _mm512_add_ps(chain[p][r][0], chain[p][r][1]));
        }
      }
    }
#pragma GCC unroll 2
    for (size_t p = 0; p < PANELS; ++p) {
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) _mm512_storeu_ps(t.y + r * t.ldy + p * kPanelColumns, sum[p][r]);
    }
  }
};

}  // namespace

// Two panels outermost, as in avx512/tiles.h.  While blocks of rows pass over them, the next two come from memory, be
// they of this call or, as a thread's calls go on where they ended, of the next.
void linear_bf16(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                 float* y, size_t ldy) {
  if (row_end - row_begin <= TileSteps::kMaxRows) {
    const FlushDenormals as_tiles_do;
    return avx512::linear<TileSteps>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
  }
  const size_t width = (static_cast<size_t>(x.width) + 1) / 2 * 2;
  const size_t stride = panel_bytes(Layout::kBF16, w.k);
  const int all_panels = num_panels(w.n);
  const size_t num_blocks = static_cast<size_t>((row_end - row_begin + kBlockRows - 1) / kBlockRows);
  const size_t steps = num_blocks * ((width + kStep - 1) / kStep);
  BF16Tiles tiles;
  for (int panel = panel_begin; panel < panel_end; panel += 2) {
    const int panels = panel_end - panel < 2 ? 1 : 2;
    const int left = all_panels - panel - panels;
    const int num_next = left < 2 ? left : 2;
    const uint8_t* weights = w.data + static_cast<size_t>(panel) * stride;
    Upcoming next{weights + 2 * stride, weights + static_cast<size_t>(2 + num_next) * stride};
    const int next_lines = num_blocks > 1 ? 1 + next.lines_per_step(steps) : 0;
    for (int row = row_begin; row < row_end; row += kBlockRows) {
      const int rows = row_end - row < kBlockRows ? row_end - row : kBlockRows;
      tiles.fit(rows);
      const auto run_block = rows > kTileHeight ? (panels == 2 ? run<true, true> : run<true, false>)
                                                : (panels == 2 ? run<false, true> : run<false, false>);
      run_block(x.bf16 + static_cast<size_t>(row) * width, width, rows, weights, stride, next, next_lines,
                y + static_cast<size_t>(row) * ldy + static_cast<size_t>(panel) * kPanelColumns, ldy);
    }
  }
}

}  // namespace quintet::amx
