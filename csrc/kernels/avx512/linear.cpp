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
  for (size_t i = 0; i < BYTES; i += 64)
    _mm_prefetch(reinterpret_cast<const char*>(p) + kPrefetchBytes + i, _MM_HINT_T0);
}

// Four bytes in every lane.
[[gnu::always_inline]] inline __m512i broadcast4(const void* p) {
  int32_t value;
  std::memcpy(&value, p, sizeof value);
  return _mm512_set1_epi32(value);
}

// sum[lane] += dot(codes[4 * lane ..], x[0 .. 3]), exact.  gcc 12 would load x into a register of its own first: half
// as many instructions again.  Sanitizers cannot see into the assembly, so they get the intrinsic.
[[gnu::always_inline]] inline __m512i dot4(__m512i sum, __m512i codes, const int8_t* x) {
#ifdef __SANITIZE_ADDRESS__
  return _mm512_dpbusd_epi32(sum, codes, broadcast4(x));
#else
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(*reinterpret_cast<const char (*)[4]>(x)));
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
// `hide` leaves it three pointers and two strides.
struct Q8Rows {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  size_t width;   // elements between rows of q
  size_t groups;  // elements between rows of scale and of sum

  [[gnu::always_inline]] void hide() { __asm__("" : "+r"(q), "+r"(scale), "+r"(sum)); }
  [[gnu::always_inline]] void advance(size_t rows) {
    q += rows * width;
    scale += rows * groups;
    sum += rows * groups;
  }
};

// One group of k for one row or two.
template <int ROWS, int ZERO_POINT>
[[gnu::always_inline]] inline void dot_group(const __m512i (&codes)[8], __m512 scale, const Q8Rows& x, __m512* sum) {
  __m512i dot[ROWS];
#pragma GCC unroll 2
  for (size_t r = 0; r < ROWS; ++r) dot[r] = _mm512_set1_epi32(-ZERO_POINT * x.sum[r * x.groups]);
#pragma GCC unroll 8
  for (size_t j = 0; j < 8; ++j) {
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) dot[r] = dot4(dot[r], codes[j], x.q + r * x.width + j * 4);
  }
#pragma GCC unroll 2
  for (size_t r = 0; r < ROWS; ++r) {
    const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale[r * x.groups]));
    sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r]), both, sum[r]);
  }
}

// One group of k for ROWS rows, two by two.
template <int ROWS, int ZERO_POINT>
[[gnu::always_inline]] inline void dot_pairs(const __m512i (&codes)[8], __m512 scale, Q8Rows x, __m512* sum) {
  x.hide();
  dot_group<(ROWS >= 2 ? 2 : 1), ZERO_POINT>(codes, scale, x, sum);
  if constexpr (ROWS > 2) {
    x.advance(2);
    dot_pairs<ROWS - 2, ZERO_POINT>(codes, scale, x, sum + 2);
  }
}

// Integer codes times int8 activations.  Weights are the unsigned operand of the dot product and stay in registers,
// activations are memory operands, the zero point is where the integer sum starts.  Rows go in pairs and reordering
// overlaps the pairs: on Zen 5 pairs reach 74 % of peak, fours 67 %, eights (which spill) 58 %.
// Registers: 8 codes, ROWS sums, 2 integer sums, 1 scale, 1 constant.
template <typename Codes>
struct CodesTile {
  static constexpr int kMaxRows = 16;
  static constexpr int kPanels = 1;

  template <int ROWS, int PANELS>
  static void run(const TileArgs& t) {
    static_assert(PANELS == 1);
    const size_t width = static_cast<size_t>(t.x.width);
    const size_t groups = width / kGroup;
    const size_t row = static_cast<size_t>(t.row);
    Q8Rows x{t.x.q8 + row * width, t.x.q8_scale + row * groups, t.x.q8_sum + row * groups, width, groups};
    const uint8_t* group = t.panel;

    __m512 sum[ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) sum[r] = _mm512_setzero_ps();

    for (size_t g = 0; g < groups; ++g, group += Codes::kBytes, x.q += kGroup, ++x.scale, ++x.sum) {
      prefetch<Codes::kBytes>(group);
      __m512i codes[8];
      Codes::unpack(group, codes);
      const __m512 scale = Codes::scale(group);
      dot_pairs<ROWS, Codes::kZeroPoint>(codes, scale, x, sum);
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) _mm512_storeu_ps(t.y + static_cast<size_t>(r) * t.ldy, sum[r]);
  }
};

// Float weights: one step along k.
struct F32 {
  using Weights = __m512;
  static constexpr size_t kStep = 1;  // elements of k
  static constexpr size_t kStepBytes = kPanelColumns * 4;
  static const float* rows(const Rows& x) { return x.f32; }
  static size_t row_elements(const Rows& x) { return static_cast<size_t>(x.width); }
  [[gnu::always_inline]] static __m512 load(const uint8_t* p) { return _mm512_loadu_ps(p); }
  [[gnu::always_inline]] static __m512 fma(const float* x, __m512 w, __m512 sum) {
    return _mm512_fmadd_ps(_mm512_set1_ps(*x), w, sum);
  }
};

struct F16 : F32 {
  static constexpr size_t kStepBytes = kPanelColumns * 2;
  [[gnu::always_inline]] static __m512 load(const uint8_t* p) { return load_halves(p); }
};

// Two k at a time.  VDPBF16PS flushes denormals and rounds in its own way (Intel SDM, "VDPBF16PS").
struct BF16 {
  using Weights = __m512bh;
  static constexpr size_t kStep = 2;
  static constexpr size_t kStepBytes = kPanelColumns * 4;
  static const uint16_t* rows(const Rows& x) { return x.bf16; }
  static size_t row_elements(const Rows& x) { return (static_cast<size_t>(x.width) + 1) / 2 * 2; }
  [[gnu::always_inline]] static __m512bh load(const uint8_t* p) {
    return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p));
  }
  [[gnu::always_inline]] static __m512 fma(const uint16_t* x, __m512bh w, __m512 sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(broadcast4(x)), w);
  }
};

// Float weights times float or bf16 activations, one chain of fused steps per output.  Two panels share each load of
// x, and give a single row two chains: one alone would wait for its own latency.
// Registers: ROWS * PANELS sums, PANELS weights, 1 activation.
template <typename Floats>
struct FloatTile {
  static constexpr int kMaxRows = 12;
  static constexpr int kPanels = 2;

  template <int ROWS, int PANELS>
  static void run(const TileArgs& t) {
    const size_t stride = Floats::row_elements(t.x);
    const auto* x = Floats::rows(t.x) + static_cast<size_t>(t.row) * stride;
    const uint8_t* panel = t.panel;

    __m512 sum[PANELS][ROWS];
#pragma GCC unroll 4
    for (int p = 0; p < PANELS; ++p) {
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; ++r) sum[p][r] = _mm512_setzero_ps();
    }
    for (size_t i = 0; i < stride; i += Floats::kStep, panel += Floats::kStepBytes, x += Floats::kStep) {
      typename Floats::Weights w[PANELS];
#pragma GCC unroll 4
      for (size_t p = 0; p < PANELS; ++p) {
        _mm_prefetch(reinterpret_cast<const char*>(panel) + p * t.panel_stride + kPrefetchBytes, _MM_HINT_T0);
        w[p] = Floats::load(panel + p * t.panel_stride);
      }
#pragma GCC unroll 12
      for (size_t r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
        for (size_t p = 0; p < PANELS; ++p) sum[p][r] = Floats::fma(x + r * stride, w[p], sum[p][r]);
      }
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < PANELS; ++p) {
#pragma GCC unroll 12
      for (size_t r = 0; r < ROWS; ++r) _mm512_storeu_ps(t.y + r * t.ldy + p * kPanelColumns, sum[p][r]);
    }
  }
};

// A kernel's tiles by number of rows - 1.
template <typename Kernel, int PANELS, typename Sequence = std::make_integer_sequence<int, Kernel::kMaxRows>>
struct Tiles;
template <typename Kernel, int PANELS, int... INDEX>
struct Tiles<Kernel, PANELS, std::integer_sequence<int, INDEX...>> {
  static constexpr Tile by_rows[] = {&Kernel::template run<INDEX + 1, PANELS>...};
};

// Panels outermost: a panel stays in L1 while the rows, in L2, pass over it, and leaves memory once.  Rows are cut
// into the fewest tiles, nearly equal.
template <typename Kernel>
void linear(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end, float* y,
            size_t ldy) {
  const int num_rows = row_end - row_begin;
  if (num_rows <= 0) return;
  const int num_tiles = (num_rows + Kernel::kMaxRows - 1) / Kernel::kMaxRows;
  const int tile_rows = num_tiles == 1 ? num_rows : ((num_rows + num_tiles - 1) / num_tiles + 1) / 2 * 2;
  const size_t stride = panel_bytes(w.layout, w.k);
  for (int panel = panel_begin; panel < panel_end;) {
    const bool wide = panel_end - panel >= Kernel::kPanels;
    const Tile* tiles = wide ? Tiles<Kernel, Kernel::kPanels>::by_rows : Tiles<Kernel, 1>::by_rows;
    for (int row = row_begin; row < row_end; row += tile_rows) {
      const int rows = row_end - row < tile_rows ? row_end - row : tile_rows;
      float* out = y + static_cast<size_t>(row) * ldy + static_cast<size_t>(panel) * kPanelColumns;
      tiles[rows - 1]({x, row, w.data + static_cast<size_t>(panel) * stride, stride, out, ldy});
    }
    panel += wide ? Kernel::kPanels : 1;
  }
}

}  // namespace

void linear_f32(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<FloatTile<F32>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_f16(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<FloatTile<F16>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_bf16(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                 float* y, size_t ldy) {
  linear<FloatTile<BF16>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w8(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<W8>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<W4>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

// Strided reads of one column: nothing for wide registers to do.
void unpack_row(const PackedMatrix& w, int row, float* out) { reference::unpack_row(w, row, out); }

}  // namespace quintet::avx512
