// Matrix kernels of integer codes for AVX2.
#include "scales.h"

namespace quintet::avx2 {
namespace {

// Eight columns at a time: their unpacked codes fill half the registers.
template <Layout LAYOUT, typename Scales>
struct CodesTile {
  static constexpr CodeLayout kLayout = code_layout(LAYOUT);
  static constexpr int kMaxRows = 4;
  static size_t panel_bytes(size_t k) { return k / kLayout.block_k() * kLayout.block_bytes(); }

  template <int ROWS>
  [[gnu::always_inline]] static void half_panel(const TileArgs& t, size_t half) {
    const size_t width = static_cast<size_t>(t.x.width);
    const size_t groups = width / kGroup;
    const int8_t* q = t.x.q8 + static_cast<size_t>(t.row) * width;
    const float* q_scale = t.x.q8_scale + static_cast<size_t>(t.row) * groups;
    const int32_t* q_sum = t.x.q8_sum + static_cast<size_t>(t.row) * groups;
    const uint8_t* block = t.panel;
    __m256 sum[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) sum[r] = _mm256_setzero_ps();
    for (size_t g = 0; g < groups; block += kLayout.block_bytes()) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, ++g, group += kLayout.group_bytes(), q += kGroup) {
        for (size_t at = 0; half == 0 && at < kLayout.group_bytes(); at += 64) prefetch(group + at);
        __m256i codes[8];
        unpack<LAYOUT>(group, half, codes);
        const Scales scales(block, group + kLayout.scale_offset(), half);
        scales.prepare(codes);
#pragma GCC unroll 4
        for (size_t r = 0; r < ROWS; ++r) {
          sum[r] = scales.add_group(codes, {q + r * width, q_scale[r * groups + g], q_sum[r * groups + g]}, sum[r]);
        }
      }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) _mm256_storeu_ps(t.y + r * t.ldy + half * kHalfColumns, sum[r]);
  }

  template <int ROWS>
  static void run(const TileArgs& t) {
    half_panel<ROWS>(t, 0);
    half_panel<ROWS>(t, 1);
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
