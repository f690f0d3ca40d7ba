// Matrix kernels of integer codes for AVX2.
//
// In cache on one Zen 4 core, GMAC/s of CPU time at 128 rows: kW4 95, kW5 87, kW5k 80, kW4k 79, kW2k 77, kW3k 77, kW6k
// 71, kW8 61; of 118 that VPMADDUBSW alone would reach.
#include "scales.h"

namespace quintet::avx2 {
namespace {

// Eight columns at a time: their unpacked codes fill half the registers.  Few rows have their sums in registers too;
// more, four by four, in memory, where unpacking is so long that it is worth sharing.
template <Layout LAYOUT, typename Scales>
struct CodesTile {
  static constexpr CodeLayout kLayout = code_layout(LAYOUT);
  static constexpr int kRowsAtOnce = 4;
  static constexpr int kMaxRows = kLayout.bit_bytes > 0 || has_halves(LAYOUT) ? HalfSums::kMaxRows : kRowsAtOnce;
  static constexpr int kRowStep = kRowsAtOnce;
  using Prepared = typename Scales::Prepared;
  static size_t panel_bytes(size_t k) { return k / kLayout.block_k() * kLayout.block_bytes(); }

  template <int ROWS>
  static void run(const TileArgs& t, const Prepared& prepared) {
    for (const size_t half : {0, 1}) {
      if constexpr (ROWS <= kRowsAtOnce) {
        few_rows<ROWS>(t, prepared, half);
      } else {
        many_rows(t, prepared, half, ROWS);
      }
    }
  }

 private:
  // Calls add_group(codes, scales) for each group of half a panel.
  template <typename AddGroup>
  [[gnu::always_inline]] static void for_each_group(const TileArgs& t, size_t half, const AddGroup& add_group) {
    const size_t groups = static_cast<size_t>(t.x.width) / kGroup;
    const uint8_t* block = t.panel;
    for (size_t g = 0; g < groups; block += kLayout.block_bytes()) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, ++g, group += kLayout.group_bytes()) {
        for (size_t at = 0; half == 0 && at < kLayout.group_bytes(); at += 64) prefetch(group + at);
        __m256i codes[8];
        unpack<LAYOUT>(group, half, codes);
        const Scales scales(block, group + kLayout.scale_offset(), half);
        scales.prepare(codes);
        add_group(codes, scales);
      }
    }
  }

  // Some rows of x in one group, the first one at these places.
  struct RowsAt {
    const int8_t* q;
    const float* scale;
    const int32_t* sum;
    const Prepared& prepared;
    size_t width;
    size_t groups;
    size_t row;  // of the tile
    size_t group;

    RowsAt(const TileArgs& t, const Prepared& prepared_rows)
        : q(t.x.q8 + static_cast<size_t>(t.row) * static_cast<size_t>(t.x.width)),
          scale(t.x.q8_scale + static_cast<size_t>(t.row) * (static_cast<size_t>(t.x.width) / kGroup)),
          sum(t.x.q8_sum + static_cast<size_t>(t.row) * (static_cast<size_t>(t.x.width) / kGroup)),
          prepared(prepared_rows),
          width(static_cast<size_t>(t.x.width)),
          groups(width / kGroup),
          row(0),
          group(0) {}
    [[gnu::always_inline]] void next_group() {
      q += kGroup;
      ++scale;
      ++sum;
      ++group;
    }
    [[gnu::always_inline]] void next_rows(size_t count) {
      q += count * width;
      scale += count * groups;
      sum += count * groups;
      row += count;
    }
    [[gnu::always_inline]] Q8Group at(size_t r) const {
      Q8Group x{q + r * width, scale[r * groups], sum[r * groups], nullptr};
      if constexpr (std::is_same_v<Prepared, HalfSums>) x.pair = prepared.pair(row + r, group);
      return x;
    }
  };

  template <size_t ROWS>
  [[gnu::always_inline]] static void add_rows(const RowsAt& rows, const __m256i (&codes)[8], const Scales& scales,
                                              __m256 (&sum)[ROWS]) {
    Q8Group x[ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) x[r] = rows.at(r);
    scales.add_group(codes, x, sum);
  }

  template <size_t ROWS>
  static void few_rows(const TileArgs& t, const Prepared& prepared, size_t half) {
    RowsAt x(t, prepared);
    __m256 sum[ROWS];
#pragma GCC unroll 4
    for (auto& s : sum) s = _mm256_setzero_ps();
    for_each_group(t, half, [&](const __m256i(&codes)[8], const Scales& scales) {
      add_rows(x, codes, scales, sum);
      x.next_group();
    });
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) _mm256_storeu_ps(t.y + r * t.ldy + half * kHalfColumns, sum[r]);
  }

  template <size_t ROWS>
  [[gnu::always_inline]] static void add_rows_in_memory(const RowsAt& rows, const __m256i (&codes)[8],
                                                        const Scales& scales, float* sums) {
    __m256 sum[ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) sum[r] = _mm256_load_ps(sums + r * kHalfColumns);
    add_rows(rows, codes, scales, sum);
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) _mm256_store_ps(sums + r * kHalfColumns, sum[r]);
  }

  [[gnu::noinline]] static void many_rows(const TileArgs& t, const Prepared& prepared, size_t half, size_t num_rows) {
    RowsAt first(t, prepared);
    alignas(32) float sums[kMaxRows * kHalfColumns] = {};
    for_each_group(t, half, [&](const __m256i(&codes)[8], const Scales& scales) {
      RowsAt x = first;
      first.next_group();
      float* out = sums;
#pragma GCC unroll 1
      for (; x.row + kRowsAtOnce <= num_rows; x.next_rows(kRowsAtOnce), out += kRowsAtOnce * kHalfColumns) {
        add_rows_in_memory<kRowsAtOnce>(x, codes, scales, out);
      }
#pragma GCC unroll 1
      for (; x.row < num_rows; x.next_rows(1), out += kHalfColumns) add_rows_in_memory<1>(x, codes, scales, out);
    });
    for (size_t r = 0; r < num_rows; ++r) {
      _mm256_storeu_ps(t.y + r * t.ldy + half * kHalfColumns, _mm256_load_ps(sums + r * kHalfColumns));
    }
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
  linear<CodesTile<Layout::kW4m, WithMin<Layout::kW4m>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5m(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5m, WithMin<Layout::kW5m>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4k, WithMin<Layout::kW4k>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5k, WithMin<Layout::kW5k>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
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

}  // namespace quintet::avx2
