// Matrix kernels for AVX-512 with VNNI and BF16.  A panel's 16 columns are the 16 lanes.
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "impl.h"

namespace quintet::avx512 {
namespace {

// How far ahead of its use a line of weights is asked for.  Prefetchers stop at page ends; a row or two at a time
// would wait there.
constexpr size_t kPrefetchBytes = 2304;

template <size_t BYTES>
[[gnu::always_inline]] inline void prefetch(const uint8_t* p) {
#pragma GCC unroll 16
  for (size_t i = 0; i < BYTES; i += 64) _mm_prefetch(reinterpret_cast<const char*>(p) + kPrefetchBytes + i, _MM_HINT_T0);
}

// Four bytes in every lane.
[[gnu::always_inline]] inline __m512i broadcast4(const void* p) {
  int32_t value;
  std::memcpy(&value, p, sizeof value);
  return _mm512_set1_epi32(value);
}

// sum[lane] += dot(codes[4 * lane ..], x[0 .. 3]), exact.  gcc 12 would load x into a register of its own first: half as
// many instructions again.  Sanitizers cannot see into the assembly, so they get the intrinsic.
[[gnu::always_inline]] inline __m512i dot4(__m512i sum, __m512i codes, const int8_t* x) {
#ifdef __SANITIZE_ADDRESS__
  return _mm512_dpbusd_epi32(sum, codes, broadcast4(x));
#else
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(*reinterpret_cast<const char(*)[4]>(x)));
  return sum;
#endif
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
using Tile = void (*)(const TileArgs&);

// A group of 32 k: codes unpacked to eight registers of unsigned bytes, unit j for k = 4j .. 4j+3.
struct W4 {
  static constexpr size_t kBytes = kW4GroupBytes;
  static constexpr int kZeroPoint = 8;
  [[gnu::always_inline]] static void unpack(const uint8_t* group, __m512i (&codes)[8]) {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i both = _mm512_loadu_si512(group + j * 64);
      codes[j] = _mm512_and_si512(both, low);
      codes[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
  }
  [[gnu::always_inline]] static __m512 scale(const uint8_t* group) { return load_halves(group + 256); }
};

struct W8 {
  static constexpr size_t kBytes = kW8GroupBytes;
  static constexpr int kZeroPoint = 128;
  [[gnu::always_inline]] static void unpack(const uint8_t* group, __m512i (&codes)[8]) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm512_loadu_si512(group + j * 64);
  }
  [[gnu::always_inline]] static __m512 scale(const uint8_t* group) { return load_halves(group + 512); }
};

// The q8 form of some rows, from one group on.  The compiler would keep a pointer per row and array, and spill them;
// `hide` leaves it three pointers and four strides, which address four rows.
struct Q8Rows {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  size_t width, width3;    // elements between rows of q, and three times as many
  size_t groups, groups3;  // elements between rows of scale and of sum

  [[gnu::always_inline]] void hide() { __asm__("" : "+r"(q), "+r"(scale), "+r"(sum), "+r"(width3), "+r"(groups3)); }
  [[gnu::always_inline]] void advance_four_rows() {
    q += 4 * width;
    scale += 4 * groups;
    sum += 4 * groups;
    hide();
  }
  [[gnu::always_inline]] size_t q_offset(size_t r) const { return r == 3 ? width3 : r * width; }
  [[gnu::always_inline]] size_t group_offset(size_t r) const { return r == 3 ? groups3 : r * groups; }
};

// One group of k for up to four rows, whose chains hide each other's latency.
template <int ROWS>
[[gnu::always_inline]] inline void dot_group(const __m512i (&codes)[8], __m512i zero_point, __m512 scale,
                                             const Q8Rows& x, __m512* sum) {
  __m512i dot[ROWS];
#pragma GCC unroll 4
  for (size_t r = 0; r < ROWS; ++r) dot[r] = _mm512_mullo_epi32(broadcast4(x.sum + x.group_offset(r)), zero_point);
#pragma GCC unroll 8
  for (size_t j = 0; j < 8; ++j) {
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      dot[r] = dot4(dot[r], codes[j], x.q + x.q_offset(r) + j * 4);
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < ROWS; ++r) {
    const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale[x.group_offset(r)]));
    sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r]), both, sum[r]);
  }
}

// Integer codes times int8 activations.  Weights are the unsigned operand of the dot product and stay in registers,
// activations are memory operands, the zero point is where the integer sum starts.  Rows go in blocks of four: all
// at once would need as many integer registers.  Registers: 8 codes, ROWS sums, 4 integer sums, 1 scale, 2 constants.
template <typename Codes>
struct CodesTile {
  static constexpr int kMaxRows = 16;

  template <int ROWS>
  static void run(const TileArgs& t) {
    const size_t width = static_cast<size_t>(t.x.width);
    const size_t groups = width / kGroup;
    const size_t row = static_cast<size_t>(t.row);
    Q8Rows x{t.x.q8 + row * width, t.x.q8_scale + row * groups, t.x.q8_sum + row * groups, width, 3 * width, groups, 3 * groups};
    const __m512i zero_point = _mm512_set1_epi32(-Codes::kZeroPoint);
    const uint8_t* group = t.panel;

    __m512 sum[ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) sum[r] = _mm512_setzero_ps();

    for (size_t g = 0; g < groups; ++g, group += Codes::kBytes, x.q += kGroup, ++x.scale, ++x.sum) {
      prefetch<Codes::kBytes>(group);
      __m512i codes[8];
      Codes::unpack(group, codes);
      const __m512 scale = Codes::scale(group);
      Q8Rows block = x;
      block.hide();
      if constexpr (ROWS >= 4) dot_group<4>(codes, zero_point, scale, block, sum);
      if constexpr (ROWS > 4) block.advance_four_rows();
      if constexpr (ROWS >= 8) dot_group<4>(codes, zero_point, scale, block, sum + 4);
      if constexpr (ROWS > 8) block.advance_four_rows();
      if constexpr (ROWS >= 12) dot_group<4>(codes, zero_point, scale, block, sum + 8);
      if constexpr (ROWS > 12) block.advance_four_rows();
      if constexpr (ROWS >= 16) dot_group<4>(codes, zero_point, scale, block, sum + 12);
      if constexpr (ROWS % 4 != 0) dot_group<ROWS % 4>(codes, zero_point, scale, block, sum + ROWS / 4 * 4);
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) _mm512_storeu_ps(t.y + static_cast<size_t>(r) * t.ldy, sum[r]);
  }
};

template <typename Kernel, typename Sequence>
struct Tiles;
template <typename Kernel, int... INDEX>
struct Tiles<Kernel, std::integer_sequence<int, INDEX...>> {
  static constexpr Tile by_rows[] = {&Kernel::template run<INDEX + 1>...};
};

// Panels outermost: a panel stays in L1 while the rows, in L2, pass over it, and leaves memory once.  Rows are cut
// into the fewest tiles, nearly equal, in multiples of four.
template <typename Kernel>
void linear(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end, float* y,
            size_t ldy) {
  const int num_rows = row_end - row_begin;
  if (num_rows <= 0) return;
  const int num_tiles = (num_rows + Kernel::kMaxRows - 1) / Kernel::kMaxRows;
  const int tile_rows = num_tiles == 1 ? num_rows : ((num_rows + num_tiles - 1) / num_tiles + 3) / 4 * 4;
  const size_t stride = panel_bytes(w.layout, w.k);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int row = row_begin; row < row_end; row += tile_rows) {
      const int rows = row_end - row < tile_rows ? row_end - row : tile_rows;
      float* out = y + static_cast<size_t>(row) * ldy + static_cast<size_t>(panel) * kPanelColumns;
      Tiles<Kernel, std::make_integer_sequence<int, Kernel::kMaxRows>>::by_rows[rows - 1](
          {x, row, w.data + static_cast<size_t>(panel) * stride, stride, out, ldy});
    }
  }
}

}  // namespace

void linear_w8(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<W8>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<W4>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

}  // namespace quintet::avx512
