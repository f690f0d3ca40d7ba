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
  _mm_prefetch(reinterpret_cast<const char*>(p) + kPrefetchBytes, _MM_HINT_T0);
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
using Tile = void (*)(const TileArgs&);

// A kernel's tiles by number of rows - 1.
template <typename Kernel, typename Sequence = std::make_integer_sequence<int, Kernel::kMaxRows>>
struct Tiles;
template <typename Kernel, int... INDEX>
struct Tiles<Kernel, std::integer_sequence<int, INDEX...>> {
  static constexpr Tile by_rows[] = {&Kernel::template run<INDEX + 1>...};
};

// Panels outermost: a panel stays in L1 while the rows, in L2, pass over it, and leaves memory once.  Rows are cut
// into the fewest tiles, nearly equal.
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
      Tiles<Kernel>::by_rows[rows - 1]({x, row, w.data + static_cast<size_t>(panel) * stride, out, ldy});
    }
  }
}

}  // namespace
}  // namespace quintet::avx2
