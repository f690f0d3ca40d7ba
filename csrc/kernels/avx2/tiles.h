// What the matrix kernels for AVX2 share: the walk over rows and panels.  A panel's 16 columns are two registers of
// eight lanes.
#pragma once

#include <immintrin.h>

#include <cstring>
#include <utility>

#include "../impl.h"

namespace quintet::avx2 {
namespace {

constexpr size_t kPrefetchBytes = 4096;  // as in avx512/tiles.h
constexpr int kHalfColumns = kPanelColumns / 2;

[[gnu::always_inline]] inline void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p) + kPrefetchBytes, _MM_HINT_T1);
}

[[gnu::always_inline]] inline __m256i load_bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// Four bytes in every lane.
[[gnu::always_inline]] inline __m256i broadcast4(const void* p) {
  int32_t value;
  std::memcpy(&value, p, sizeof value);
  return _mm256_set1_epi32(value);
}

[[gnu::always_inline]] inline __m256 load_halves(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// One register tile: some rows of x from `row` on, one panel.
struct TileArgs {
  const Rows& x;
  int row;
  const uint8_t* panel;
  float* y;  // first row, first column of the tile
  size_t ldy;
};

// What a kernel derives from a tile's rows for several panels to use.  Most derive nothing.
struct NothingPrepared {
  static constexpr int kPanelsPerUse = 1;
  NothingPrepared(const Rows&, int, int) {}
};

// A kernel's tiles by number of rows - 1.
template <typename Kernel>
using Tile = void (*)(const TileArgs&, const typename Kernel::Prepared&);
template <typename Kernel, typename Sequence = std::make_integer_sequence<int, Kernel::kMaxRows>>
struct Tiles;
template <typename Kernel, int... INDEX>
struct Tiles<Kernel, std::integer_sequence<int, INDEX...>> {
  static constexpr Tile<Kernel> by_rows[] = {&Kernel::template run<INDEX + 1>...};
};

// Panels outermost: a panel stays in L1 while the rows, in L2, pass over it, and leaves memory once.  Rows are cut
// into the fewest tiles, nearly equal.
template <typename Kernel>
void linear(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end, float* y,
            size_t ldy) {
  const int num_rows = row_end - row_begin;
  if (num_rows <= 0) return;
  const int num_tiles = (num_rows + Kernel::kMaxRows - 1) / Kernel::kMaxRows;
  const int even_rows = (num_rows + num_tiles - 1) / num_tiles;
  const int tile_rows =
      num_tiles == 1 ? even_rows : (even_rows + Kernel::kRowStep - 1) / Kernel::kRowStep * Kernel::kRowStep;
  const size_t stride = Kernel::panel_bytes(static_cast<size_t>(w.k));
  constexpr int kPass = Kernel::Prepared::kPanelsPerUse;
  for (int pass_begin = panel_begin; pass_begin < panel_end; pass_begin += kPass) {
    const int pass_end = pass_begin + kPass < panel_end ? pass_begin + kPass : panel_end;
    for (int row = row_begin; row < row_end; row += tile_rows) {
      const int rows = row_end - row < tile_rows ? row_end - row : tile_rows;
      const typename Kernel::Prepared prepared(x, row, rows);
      for (int panel = pass_begin; panel < pass_end; ++panel) {
        float* out = y + static_cast<size_t>(row) * ldy + static_cast<size_t>(panel) * kPanelColumns;
        const TileArgs args{x, row, w.data + static_cast<size_t>(panel) * stride, out, ldy};
        Tiles<Kernel>::by_rows[rows - 1](args, prepared);
      }
    }
  }
}

}  // namespace
}  // namespace quintet::avx2
