// The loops over groups and rows.
#pragma once

#include "scales.h"

namespace quintet::avx512 {
namespace {

// A few rows wait for memory: one panel after the other, two rows at a time, sums in registers.  Registers: 8 codes,
// ROWS sums, 4 integer sums, 1 or 2 scales.
//
// More rows take two panels at once, which share each load of x: on Zen 5 two loads a cycle are as scarce as two dot
// products a cycle.  Their sums lie in memory and rows are a loop, which ends a row's integer sums after those of the
// next row have begun.  Registers: 16 codes, 8 integer sums, 2 or 4 scales, 1 or 2 activations.
template <Layout LAYOUT>
struct CodesTile {
  using Scales = ScalesOf<LAYOUT>;
  static constexpr CodeLayout kLayout = code_layout(LAYOUT);
  static constexpr int kMaxRows = Scales::kMaxRows;
  static constexpr int kPanels = 2;
  static constexpr int kFewRows = kLayout.group_bytes() > 384 ? 6 : 3;  // from memory; two streams are slower there
  static constexpr size_t kFarBytes = kPrefetchBytes * 3 / 2;  // many rows: 8 of kW8 from memory gain a seventh by it
  using Prepared = typename Scales::Prepared;
  using X = Q8Row<Prepared>;
  static size_t panel_bytes(size_t k) { return k / kLayout.block_k() * kLayout.block_bytes(); }

  template <int ROWS, int PANELS>
  static void run(const TileArgs& t, const Prepared& prepared) {
    if constexpr (ROWS <= kFewRows) {
      for (size_t p = 0; p < PANELS; ++p) few_rows<ROWS>(t, prepared, p);
    } else {
      if constexpr (Scales::kStepped) {
        if (prepared.steps.exact) return many_rows_stepped(t, prepared, ROWS, std::make_index_sequence<PANELS>());
      }
      many_rows(t, prepared, ROWS, std::make_index_sequence<PANELS>());
    }
  }
  static int max_rows(const Rows& x) { return Prepared::max_rows(static_cast<size_t>(x.width)); }

 private:
  static X first_row(const TileArgs& t, const Prepared& prepared) {
    const size_t width = static_cast<size_t>(t.x.width);
    const size_t groups = width / kGroup;
    const size_t row = static_cast<size_t>(t.row);
    return {
        t.x.q8 + row * width, t.x.q8_scale + row * groups, t.x.q8_sum + row * groups, width, groups, prepared, 0, 0};
  }

  template <int ROWS>
  static void few_rows(const TileArgs& t, const Prepared& prepared, size_t p) {
    X x = first_row(t, prepared);
    const uint8_t* block = t.panel + p * t.panel_stride;
    __m512 sum[ROWS];
#pragma GCC unroll 6
    for (auto& s : sum) s = _mm512_setzero_ps();

    while (x.group < x.groups) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, group += kLayout.group_bytes(), x.next_group()) {
        prefetch<kLayout.group_bytes()>(group);
        __m512i codes[8];
        unpack<LAYOUT>(group, codes);
        const Scales scales(block, group + kLayout.scale_offset());
        scales.prepare(codes);
        add_few<ROWS>(codes, scales, x, sum);
      }
      block += kLayout.block_bytes();
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) _mm512_storeu_ps(t.y + r * t.ldy + p * kPanelColumns, sum[r]);
  }

  // Two by two.
  template <int ROWS>
  [[gnu::always_inline]] static void add_few(const __m512i (&codes)[8], const Scales& scales, X x, __m512* sum) {
    constexpr size_t kNow = ROWS < 2 ? ROWS : 2;
    X rows[2] = {x, x};
    rows[1].next_row();
    Dots dots[kNow];
#pragma GCC unroll 2
    for (size_t r = 0; r < kNow; ++r) dots[r] = Scales::start(rows[r]);
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
#pragma GCC unroll 2
      for (size_t r = 0; r < kNow; ++r) {
        dots[r].first = dot4(dots[r].first, codes[j], rows[r].q + j * 4);
        dots[r].second = dot4(dots[r].second, codes[j + 4], rows[r].q + 16 + j * 4);
      }
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < kNow; ++r) sum[r] = scales.add(dots[r], rows[r], sum[r]);
    if constexpr (ROWS > 2) {
      rows[1].next_row();
      add_few<ROWS - 2>(codes, scales, rows[1], sum + 2);
    }
  }

  template <size_t... P>
  static void many_rows(const TileArgs& t, const Prepared& prepared, size_t rows, std::index_sequence<P...>) {
    constexpr size_t kPanelsHere = sizeof...(P);
    X x = first_row(t, prepared);
    const uint8_t* block = t.panel;
    alignas(64) float sums[kMaxRows][kPanelsHere][kPanelColumns];
    std::memset(sums, 0, rows * sizeof sums[0]);

    while (x.group < x.groups) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, group += kLayout.group_bytes(), x.next_group()) {
        __m512i codes[kPanelsHere][8];
        // What follows a panel's end is the other panel's begin, already read; the next pass is at the end of both.
        const bool inside = group + kFarBytes < t.panel + t.panel_stride;
        const size_t ahead = inside ? kFarBytes : kFarBytes + (kPanelsHere - 1) * t.panel_stride;
        (prefetch<kLayout.group_bytes()>(group + P * t.panel_stride, ahead), ...);
        (unpack<LAYOUT>(group + P * t.panel_stride, codes[P]), ...);
        const Scales scales[] = {
            Scales(block + P * t.panel_stride, group + P * t.panel_stride + kLayout.scale_offset())...};
        (scales[P].prepare(codes[P]), ...);

        X row = x;
        Dots dots[kPanelsHere];
        dot_rows(codes, row, dots);
        float* out = sums[0][0];
#pragma GCC unroll 1
        for (size_t r = 1; r < rows; ++r) {
          X next_row = row;
          next_row.next_row();
          Dots next[kPanelsHere];
          dot_rows(codes, next_row, next);
          (keep_order(dots[P], next[P]), ...);
          add_row(scales, dots, row, out);
          ((dots[P] = next[P]), ...);
          row.next_row();
          out += kPanelsHere * kPanelColumns;
        }
        add_row(scales, dots, row, out);
      }
      block += kLayout.block_bytes();
    }
    for (size_t r = 0; r < rows; ++r) {
      (_mm512_storeu_ps(t.y + r * t.ldy + P * kPanelColumns, _mm512_load_ps(sums[r][P])), ...);
    }
  }

  // As many_rows, by steps.h.
  template <size_t... P>
  static void many_rows_stepped(const TileArgs& t, const Prepared& prepared, size_t rows, std::index_sequence<P...>) {
    constexpr size_t kPanelsHere = sizeof...(P);
    const auto& steps = prepared.steps;
    Ahead* const later = rows < kAheadRows ? nullptr : t.x.ahead;
    const size_t width = static_cast<size_t>(t.x.width);
    const int8_t* q = t.x.q8 + static_cast<size_t>(t.row) * width;
    const uint8_t* block = t.panel;
    alignas(64) float sums[kMaxRows][kPanelsHere][kPanelColumns];
    typename Scales::Tables tables[kPanelsHere];
    std::memset(sums, 0, rows * sizeof sums[0]);

    for (size_t g = 0; g < width / kGroup;) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, group += kLayout.group_bytes(), ++g, q += kGroup) {
        __m512i codes[kPanelsHere][8];
        const bool inside = group + kFarBytes < t.panel + t.panel_stride;
        const size_t ahead = inside ? kFarBytes : kFarBytes + (kPanelsHere - 1) * t.panel_stride;
        (prefetch<kLayout.group_bytes()>(group + P * t.panel_stride, ahead), ...);
        if (later != nullptr) ask(*later);
        (unpack<LAYOUT>(group + P * t.panel_stride, codes[P]), ...);
        const Scales scales[] = {
            Scales(block + P * t.panel_stride, group + P * t.panel_stride + kLayout.scale_offset())...};
        (scales[P].prepare(codes[P]), ...);
        (scales[P].fill(tables[P]), ...);

        size_t at = g;
        const int8_t* row_q = q;
        Dots dots[kPanelsHere];
        dot_row_stepped(codes, row_q, steps, at, dots);
        float* out = sums[0][0];
#pragma GCC unroll 1
        for (size_t r = 1; r < rows; ++r) {
          row_q += width;
          Dots next[kPanelsHere];
          dot_row_stepped(codes, row_q, steps, at + steps.stride, next);
          (keep_order(dots[P], next[P]), ...);
          add_row_stepped(tables, dots, steps, at, out);
          ((dots[P] = next[P]), ...);
          at += steps.stride;
          out += kPanelsHere * kPanelColumns;
        }
        add_row_stepped(tables, dots, steps, at, out);
      }
      block += kLayout.block_bytes();
    }
    for (size_t r = 0; r < rows; ++r) {
      (_mm512_storeu_ps(t.y + r * t.ldy + P * kPanelColumns, _mm512_load_ps(sums[r][P])), ...);
    }
  }

  template <size_t PANELS, typename Steps>
  [[gnu::always_inline]] static void dot_row_stepped(const __m512i (&codes)[PANELS][8], const int8_t* q,
                                                     const Steps& steps, size_t at, Dots (&dots)[PANELS]) {
    dot_row(codes, q, Scales::start_stepped(steps, at), dots);
  }

  template <size_t PANELS, typename Tables, typename Steps>
  [[gnu::always_inline]] static void add_row_stepped(const Tables (&tables)[PANELS], const Dots (&dots)[PANELS],
                                                     const Steps& steps, size_t at, float* out) {
    __m512 sum[PANELS];
#pragma GCC unroll 2
    for (size_t p = 0; p < PANELS; ++p) {
      sum[p] = Scales::add_stepped(dots[p], tables[p], steps, at, _mm512_load_ps(out + p * kPanelColumns));
    }
#pragma GCC unroll 2
    for (size_t p = 0; p < PANELS; ++p) _mm512_store_ps(out + p * kPanelColumns, sum[p]);
  }

  // Without it the compiler would move one row's end before the next row's dot products.
  [[gnu::always_inline]] static void keep_order(Dots& a, Dots& b) {
    __asm__("" : "+v"(a.first), "+v"(a.second), "+v"(b.first), "+v"(b.second));
  }

  template <size_t PANELS>
  [[gnu::always_inline]] static void dot_rows(const __m512i (&codes)[PANELS][8], const X& row, Dots (&dots)[PANELS]) {
    dot_row(codes, row.q, Scales::start(row), dots);
  }

  template <size_t PANELS>
  [[gnu::always_inline]] static void dot_row(const __m512i (&codes)[PANELS][8], const int8_t* q, const Dots& start,
                                             Dots (&dots)[PANELS]) {
#pragma GCC unroll 2
    for (auto& d : dots) d = start;
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      const __m512i first = broadcast4(q + j * 4);
      const __m512i second = broadcast4(q + 16 + j * 4);
#pragma GCC unroll 2
      for (size_t p = 0; p < PANELS; ++p) {
        dots[p].first = _mm512_dpbusd_epi32(dots[p].first, codes[p][j], first);
        dots[p].second = _mm512_dpbusd_epi32(dots[p].second, codes[p][j + 4], second);
      }
    }
  }

  template <size_t PANELS>
  [[gnu::always_inline]] static void add_row(const Scales (&scales)[PANELS], const Dots (&dots)[PANELS], const X& row,
                                             float* out) {
    __m512 sum[PANELS];
#pragma GCC unroll 2
    for (size_t p = 0; p < PANELS; ++p) sum[p] = scales[p].add(dots[p], row, _mm512_load_ps(out + p * kPanelColumns));
#pragma GCC unroll 2
    for (size_t p = 0; p < PANELS; ++p) _mm512_store_ps(out + p * kPanelColumns, sum[p]);
  }
};

}  // namespace
}  // namespace quintet::avx512
