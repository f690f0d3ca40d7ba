// Matrix kernels of integer codes for AMX.
//
// A panel's groups are unpacked once, to signed bytes less their zero point, and each becomes a tile of weights for all
// rows.  The integer sums of 16 rows and a group leave their tile through memory, to be scaled as every table does.
// That takes the time: of some 80 cycles a group (Granite Rapids) the dot products are 16.
#include "../avx512/scales.h"
#include "tiles.h"

namespace quintet::amx {
namespace {

using avx512::ScalesOf;

constexpr size_t kChunkGroups = 32;  // unpacked at a time
constexpr int kPassPanels = 4;       // that share what is prepared of rows

// Fewer rows are avx512's: to unpack a group takes as long as to multiply it with a dozen rows, and a group of two
// scales has two sums to move.
template <Layout LAYOUT>
constexpr int kFewestRows = has_halves(LAYOUT) ? 96 : 32;

enum class Scaling { kOne, kMin, kHalves, kScaledCodes };

constexpr Scaling scaling(Layout layout) {
  if (has_halves(layout)) return has_min(layout) ? Scaling::kScaledCodes : Scaling::kHalves;
  return has_min(layout) ? Scaling::kMin : Scaling::kOne;
}

constexpr int num_scales(Layout layout) {
  return scaling(layout) == Scaling::kOne ? 1 : scaling(layout) == Scaling::kScaledCodes ? 3 : 2;
}

// Of one panel.
template <Layout LAYOUT>
struct alignas(64) Group {
  static constexpr Scaling kScaling = scaling(LAYOUT);
  int8_t codes[kGroup / 4][kTileRowBytes];
  float scale[num_scales(LAYOUT)][kPanelColumns];

  void unpack(const uint8_t* block, const uint8_t* group) {
    constexpr CodeLayout kLayout = code_layout(LAYOUT);
    __m512i units[8];
    avx512::unpack<LAYOUT>(group, units);
    const ScalesOf<LAYOUT> scales(block, group + kLayout.scale_offset());
    scales.prepare(units);
    const __m512i above = _mm512_set1_epi8(static_cast<char>(zero_point(LAYOUT)));
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) _mm512_store_si512(codes[j], _mm512_sub_epi8(units[j], above));
    if constexpr (kScaling == Scaling::kOne) {
      _mm512_store_ps(scale[0], scales.scale);
    } else if constexpr (kScaling == Scaling::kMin) {
      _mm512_store_ps(scale[0], scales.scale);
      _mm512_store_ps(scale[1], scales.min);
    } else if constexpr (kScaling == Scaling::kHalves) {
      _mm512_store_ps(scale[0], scales.first);
      _mm512_store_ps(scale[1], scales.second);
    } else {
      _mm512_store_ps(scale[0], scales.d);
      _mm512_store_ps(scale[1], scales.e);
      _mm512_store_si512(scale[2], _mm512_srli_epi16(scales.both, 4));  // m of both halves, 16 bits each
    }
  }
};

// What scales the sums of 16 rows in some groups; zero for rows that are not there.
struct RowScales {
  static constexpr size_t kStride = kChunkGroups + 16;  // a line more, or rows would meet in few sets of the cache
  alignas(64) float scale[kTileHeight][kStride];
  union {
    alignas(64) float sum[kTileHeight][kStride];       // of activations, for minima
    alignas(64) int32_t halves[kTileHeight][kStride];  // sums of a group's halves, 16 bits each
  };

  template <Scaling SCALING>
  void fill(const Rows& x, size_t row, size_t rows, size_t first_group, size_t groups) {
    const size_t width = static_cast<size_t>(x.width);
    for (size_t r = 0; r < kTileHeight; ++r) {
      const size_t from = (row + r) * (width / kGroup) + first_group;
      for (size_t g = 0; g < groups; g += 16) {
        const auto some = static_cast<__mmask16>(r >= rows ? 0 : groups - g < 16 ? (1u << (groups - g)) - 1 : 0xffffu);
        const __m512 scales = _mm512_maskz_loadu_ps(some, x.q8_scale + from + g);
        _mm512_store_ps(scale[r] + g, scales);
        if constexpr (SCALING == Scaling::kMin) {
          const __m512i sums = _mm512_maskz_loadu_epi32(some, x.q8_sum + from + g);
          _mm512_store_ps(sum[r] + g, _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales));
        }
      }
      if constexpr (SCALING == Scaling::kScaledCodes) {
        for (size_t g = 0; g < groups; ++g) {
          int first = 0;
          if (r < rows) {
            const int8_t* q = x.q8 + (row + r) * width + (first_group + g) * kGroup;
            for (int i = 0; i < kGroup / 2; ++i) first += q[i];
          }
          const int whole = r < rows ? x.q8_sum[from + g] : 0;
          halves[r][g] = static_cast<int32_t>(static_cast<uint32_t>(whole - first) << 16 | (first & 0xffff));
        }
      }
    }
  }
};

// Tiles of whole blocks of 16 rows, then of a last, smaller one.
constexpr int kSum = 0;  // and 1, of the second half
constexpr int kX = 2;
constexpr int kLastX = 3;
constexpr int kWeights = 4;
constexpr int kLastSum = 5;  // and 6

struct Dots {
  alignas(64) int32_t of[2][kTileHeight][kPanelColumns];
};

// Integer sums of a group and 16 or fewer rows, each of `width` bytes.
template <Layout LAYOUT, bool WHOLE>
[[gnu::always_inline]] inline void dot(const int8_t* q, size_t width, const Group<LAYOUT>& group, Dots& dots) {
  constexpr int kRows = WHOLE ? kX : kLastX;
  constexpr int kSums = WHOLE ? kSum : kLastSum;
  zero<kSums>();
  load<kRows>(q, width);
  load<kWeights>(group.codes, kTileRowBytes);
  add_dots_int8<kSums, kRows, kWeights>();
  store<kSums>(dots.of[0], kTileRowBytes);
  if constexpr (scaling(LAYOUT) == Scaling::kHalves) {
    zero<kSums + 1>();
    load<kRows>(q + kGroup / 2, width);
    load<kWeights>(group.codes[kGroup / 8], kTileRowBytes);
    add_dots_int8<kSums + 1, kRows, kWeights>();
    store<kSums + 1>(dots.of[1], kTileRowBytes);
  }
}

// The steps of kernels.h, of row r and group g.
template <Layout LAYOUT>
[[gnu::always_inline]] inline __m512 add(const Group<LAYOUT>& group, const Dots& dots, const RowScales& x, size_t r,
                                         size_t g, __m512 sum) {
  constexpr Scaling kScaling = scaling(LAYOUT);
  const __m512 total = _mm512_cvtepi32_ps(_mm512_load_si512(dots.of[0][r]));
  const __m512 x_scale = _mm512_set1_ps(x.scale[r][g]);
  const __m512 first = _mm512_load_ps(group.scale[0]);
  if constexpr (kScaling == Scaling::kScaledCodes) {
    const __m512i mins = _mm512_madd_epi16(_mm512_load_si512(group.scale[2]), _mm512_set1_epi32(x.halves[r][g]));
    const __m512 scaled = _mm512_mul_ps(first, total);
    const __m512 part = _mm512_fnmadd_ps(_mm512_load_ps(group.scale[1]), _mm512_cvtepi32_ps(mins), scaled);
    return _mm512_fmadd_ps(part, x_scale, sum);
  } else {
    sum = _mm512_fmadd_ps(total, _mm512_mul_ps(first, x_scale), sum);
    if constexpr (kScaling == Scaling::kMin) {
      sum = _mm512_fnmadd_ps(_mm512_load_ps(group.scale[1]), _mm512_set1_ps(x.sum[r][g]), sum);
    }
    if constexpr (kScaling == Scaling::kHalves) {
      const __m512 second = _mm512_cvtepi32_ps(_mm512_load_si512(dots.of[1][r]));
      sum = _mm512_fmadd_ps(second, _mm512_mul_ps(_mm512_load_ps(group.scale[1]), x_scale), sum);
    }
    return sum;
  }
}

// Some groups of a panel and up to 16 rows.  y: their sums so far, where there are any.
// Registers: 16 sums, a few more.
template <Layout LAYOUT, bool WHOLE>
void add_block(const Group<LAYOUT>* groups, size_t num_groups, bool is_first, const int8_t* q, size_t width,
               const RowScales& x, size_t rows, Upcoming& next, int next_lines, Ahead* ahead, float* y, size_t ldy) {
  Dots dots;
  __m512 sum[kTileHeight];
#pragma GCC unroll 16
  for (size_t r = 0; r < kTileHeight; ++r) {
    sum[r] = is_first || (!WHOLE && r >= rows) ? _mm512_setzero_ps() : _mm512_loadu_ps(y + r * ldy);
  }
#pragma GCC unroll 1
  for (size_t g = 0; g < num_groups; ++g) {
    dot<LAYOUT, WHOLE>(q + g * kGroup, width, groups[g], dots);
    next.ask(next_lines);
    if (ahead != nullptr) avx512::ask(*ahead);
#pragma GCC unroll 16
    for (size_t r = 0; r < kTileHeight; ++r) sum[r] = add<LAYOUT>(groups[g], dots, x, r, g, sum[r]);
  }
#pragma GCC unroll 16
  for (size_t r = 0; r < kTileHeight; ++r) {
    if (WHOLE || r < rows) _mm512_storeu_ps(y + r * ldy, sum[r]);
  }
}

template <Layout LAYOUT>
TileShape x_shape(int rows) {
  return {rows, scaling(LAYOUT) == Scaling::kHalves ? kGroup / 2 : kGroup};
}

// A matrix's panels by passes of some panels and chunks of some groups.
template <Layout LAYOUT>
class Chunks {
 public:
  static constexpr CodeLayout kLayout = code_layout(LAYOUT);
  static constexpr size_t kBytes = kChunkGroups / kLayout.groups_per_block * kLayout.block_bytes();
  using Unpacked = Group<LAYOUT>[kPassPanels][kChunkGroups];

  explicit Chunks(const PackedMatrix& w)
      : data_(w.data), stride_(panel_bytes(LAYOUT, w.k)), num_panels_(num_panels(w.n)) {}

  void unpack(int pass, int panels, size_t first_group, size_t num_groups, Unpacked& to) const {
    for (int p = 0; p < panels; ++p) {
      const uint8_t* block = at(pass + p, first_group);
      for (size_t i = 0; i < num_groups; block += kLayout.block_bytes()) {
        const uint8_t* group = block + kLayout.header_bytes;
        for (int j = 0; j < kLayout.groups_per_block; ++j, ++i, group += kLayout.group_bytes()) {
          to[p][i].unpack(block, group);
        }
      }
    }
  }

  // What a panel of a pass needs next: its next chunk, or that of the next pass, be it of this call or, as a thread's
  // calls go on where they ended, of the next.
  Upcoming next(int panel, size_t first_group, size_t all_groups) const {
    const size_t next_group = first_group + kChunkGroups;
    const bool is_last = next_group >= all_groups;
    const int next_panel = is_last ? panel + kPassPanels : panel;
    if (next_panel >= num_panels_) return {nullptr, nullptr};
    const uint8_t* begin = at(next_panel, is_last ? 0 : next_group);
    return {begin, begin + (stride_ < kBytes ? stride_ : kBytes)};
  }

 private:
  const uint8_t* at(int panel, size_t first_group) const {
    return data_ + static_cast<size_t>(panel) * stride_ + first_group / kChunkGroups * kBytes;
  }
  const uint8_t* data_;
  size_t stride_;
  int num_panels_;
};

template <Layout LAYOUT>
void linear_tiles(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                  float* y, size_t ldy) {
  const int last_rows = (row_end - row_begin) % kTileHeight;
  const TileShape sums{kTileHeight, kTileRowBytes};
  const TileShape last_sums{last_rows, kTileRowBytes};
  const TileShape x_tile = x_shape<LAYOUT>(kTileHeight);
  const Tiles tiles(
      {sums, sums, x_tile, x_shape<LAYOUT>(last_rows), {x_tile.row_bytes / 4, kTileRowBytes}, last_sums, last_sums});
  const Chunks<LAYOUT> chunks(w);
  typename Chunks<LAYOUT>::Unpacked groups;
  RowScales scales;
  const size_t width = static_cast<size_t>(x.width);
  const size_t all_groups = width / kGroup;
  const size_t num_blocks = static_cast<size_t>((row_end - row_begin + kTileHeight - 1) / kTileHeight);

  for (int pass = panel_begin; pass < panel_end; pass += kPassPanels) {
    const int panels = panel_end - pass < kPassPanels ? panel_end - pass : kPassPanels;
    for (size_t g = 0; g < all_groups; g += kChunkGroups) {
      const size_t num_groups = all_groups - g < kChunkGroups ? all_groups - g : kChunkGroups;
      chunks.unpack(pass, panels, g, num_groups, groups);
      Upcoming next[kPassPanels];
      for (int p = 0; p < kPassPanels; ++p) next[p] = chunks.next(pass + p, g, all_groups);
      const int next_lines = next[0].lines_per_step(num_blocks * num_groups);
      for (int row = row_begin; row < row_end; row += kTileHeight) {
        const size_t rows = static_cast<size_t>(row_end - row < kTileHeight ? row_end - row : kTileHeight);
        scales.fill<scaling(LAYOUT)>(x, static_cast<size_t>(row), rows, g, num_groups);
        const int8_t* q = x.q8 + static_cast<size_t>(row) * width + g * kGroup;
        const auto add = rows == kTileHeight ? add_block<LAYOUT, true> : add_block<LAYOUT, false>;
        for (int p = 0; p < panels; ++p) {
          float* out = y + static_cast<size_t>(row) * ldy + static_cast<size_t>(pass + p) * kPanelColumns;
          add(groups[p], num_groups, g == 0, q, width, scales, rows, next[p], next_lines, x.ahead, out, ldy);
        }
      }
    }
  }
}

template <Layout LAYOUT>
[[gnu::always_inline]] inline void linear_codes(LinearFunction* few_rows, const PackedMatrix& w, const Rows& x,
                                                int row_begin, int row_end, int panel_begin, int panel_end, float* y,
                                                size_t ldy) {
  if (row_end - row_begin < kFewestRows<LAYOUT>) {
    few_rows(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
  } else {
    linear_tiles<LAYOUT>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
  }
}

}  // namespace

#define QUINTET_LINEAR(name, layout)                                                                          \
  void name(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end, \
            float* y, size_t ldy) {                                                                           \
    linear_codes<Layout::layout>(avx512::name, w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);     \
  }

QUINTET_LINEAR(linear_w8, kW8)
QUINTET_LINEAR(linear_w4, kW4)
QUINTET_LINEAR(linear_w5, kW5)
QUINTET_LINEAR(linear_w4m, kW4m)
QUINTET_LINEAR(linear_w5m, kW5m)
QUINTET_LINEAR(linear_w4k, kW4k)
QUINTET_LINEAR(linear_w5k, kW5k)
QUINTET_LINEAR(linear_w6k, kW6k)
QUINTET_LINEAR(linear_w3k, kW3k)
QUINTET_LINEAR(linear_w2k, kW2k)
QUINTET_LINEAR(linear_w4n, kW4n)
QUINTET_LINEAR(linear_w4x, kW4x)
QUINTET_LINEAR(linear_w4e, kW4e)
QUINTET_LINEAR(linear_w4t, kW4t)
QUINTET_LINEAR(linear_w3t, kW3t)

#undef QUINTET_LINEAR

}  // namespace quintet::amx
