// What the matrix kernels for AVX-512 share: the walk over rows and panels.  A panel's 16 columns are the 16 lanes.
#pragma once

#include <immintrin.h>

#include <cstring>
#include <utility>

#include "../impl.h"

namespace quintet::avx512 {
namespace {

// How far ahead of its use a line of weights is asked for.  Prefetchers stop at page ends; a row or two at a time
// would wait there.  One row of kW4 and of kW6k on one Zen 5 core, GB/s: 37 and 36 at 1152, 39 and 39 at 2304, 41 and
// 41 at 4096, 41 and 43 at 8192, where plain reads reach 42.  Into L2, because more lines may be on their way there
// than to L1: on Zen 4, 4 rows of kW4 gain 59 % by it, 8 of kW6k 21 %, one or two rows up to 6 %.
constexpr size_t kPrefetchBytes = 4096;

template <size_t BYTES>
[[gnu::always_inline]] inline void prefetch(const uint8_t* p, size_t bytes_ahead = kPrefetchBytes) {
#pragma GCC unroll 16
  for (size_t i = 0; i < BYTES; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(p) + bytes_ahead + i, _MM_HINT_T1);
  }
}

// So many rows of a group take some 20 cycles each, in which memory would be idle.
constexpr size_t kAheadRows = 8;
constexpr int kAheadLines = 8;

// Into L2, from where they go to L3 as others follow.
[[gnu::always_inline]] inline void ask(Ahead& ahead) {
#pragma GCC unroll 1
  for (int i = 0; i < kAheadLines; ++i, ahead.at += 64) {
    if (ahead.at == ahead.end && !ahead.next(ahead)) return;
    _mm_prefetch(reinterpret_cast<const char*>(ahead.at), _MM_HINT_T1);
  }
}

// Four bytes in every lane.
[[gnu::always_inline]] inline __m512i broadcast4(const void* p) {
  int32_t value;
  std::memcpy(&value, p, sizeof value);
  return _mm512_set1_epi32(value);
}

[[gnu::always_inline]] inline __m512 load_halves(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// One register tile: some rows of x from `row` on, one panel or several that follow each other.
struct TileArgs {
  const Rows& x;
  int row;
  const uint8_t* panel;
  size_t panel_stride;
  float* y;  // first row, first column of the tile
  size_t ldy;
};

// What a kernel derives from a tile's rows for several panels to use.  Most derive nothing, and take no more panels at
// a time than their registers hold.
struct NothingPrepared {
  static constexpr int kPanelsPerUse = 1;
  static int max_rows(size_t) { return 32; }
  NothingPrepared(const Rows&, int, int) {}
};

// A kernel's tiles by number of rows - 1.
template <typename Kernel>
using Tile = void (*)(const TileArgs&, const typename Kernel::Prepared&);
template <typename Kernel, int PANELS, typename Sequence = std::make_integer_sequence<int, Kernel::kMaxRows>>
struct Tiles;
template <typename Kernel, int PANELS, int... INDEX>
struct Tiles<Kernel, PANELS, std::integer_sequence<int, INDEX...>> {
  static constexpr Tile<Kernel> by_rows[] = {&Kernel::template run<INDEX + 1, PANELS>...};
};

// Panels outermost: a panel stays in the cache while the rows, in L2, pass over it, and leaves memory once.  Rows are
// cut into the fewest tiles, nearly equal.
template <typename Kernel>
void linear(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end, float* y,
            size_t ldy) {
  const int num_rows = row_end - row_begin;
  if (num_rows <= 0) return;
  const int max_rows = Kernel::max_rows(x);
  const int num_tiles = (num_rows + max_rows - 1) / max_rows;
  const int tile_rows = num_tiles == 1 ? num_rows : ((num_rows + num_tiles - 1) / num_tiles + 1) / 2 * 2;
  const size_t stride = Kernel::panel_bytes(static_cast<size_t>(w.k));
  const int pass = num_tiles == 1 ? panel_end - panel_begin : Kernel::kPanels * Kernel::Prepared::kPanelsPerUse;
  for (int pass_begin = panel_begin; pass_begin < panel_end; pass_begin += pass) {
    const int pass_end = pass_begin + pass < panel_end ? pass_begin + pass : panel_end;
    for (int row = row_begin; row < row_end; row += tile_rows) {
      const int rows = row_end - row < tile_rows ? row_end - row : tile_rows;
      const typename Kernel::Prepared prepared(x, row, rows);
      for (int panel = pass_begin; panel < pass_end;) {
        float* out = y + static_cast<size_t>(row) * ldy + static_cast<size_t>(panel) * kPanelColumns;
        const TileArgs args{x, row, w.data + static_cast<size_t>(panel) * stride, stride, out, ldy};
        if (pass_end - panel >= Kernel::kPanels) {
          Tiles<Kernel, Kernel::kPanels>::by_rows[rows - 1](args, prepared);
          panel += Kernel::kPanels;
        } else {
          Tiles<Kernel, 1>::by_rows[rows - 1](args, prepared);
          ++panel;
        }
      }
    }
  }
}

}  // namespace
}  // namespace quintet::avx512
