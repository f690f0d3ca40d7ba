// Matrix kernels for AVX2 with FMA and F16C.  A panel's 16 columns are two registers of eight lanes.
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "impl.h"

namespace quintet::avx2 {
namespace {

constexpr size_t kPrefetchBytes = 2304;  // as in avx512/linear.cpp
constexpr int kHalfColumns = kPanelColumns / 2;

[[gnu::always_inline]] inline void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p) + kPrefetchBytes, _MM_HINT_T0);
}

[[gnu::always_inline]] inline __m256i load(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

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

// Eight columns of a group of 32 k, as registers of four bytes per column: exact dot products with one row.
//
// VPMADDUBSW takes unsigned times signed bytes and saturates the sum of two products at 16 bits.
struct W4 {
  static constexpr size_t kBytes = kW4GroupBytes;
  static constexpr size_t kScaleOffset = 256;
  // Codes up to 15 times 127: eight sums of two products are at most 30480, so all of a group fits 16 bits.
  [[gnu::always_inline]] static void unpack(const uint8_t* half_group, __m256i (&codes)[8]) {
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i both = load(half_group + j * 64);
      codes[j] = _mm256_and_si256(both, low);
      codes[j + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    }
  }
  [[gnu::always_inline]] static __m256i dot(const __m256i (&codes)[8], const int8_t* q, int32_t q_sum) {
    __m256i sum16 = _mm256_maddubs_epi16(codes[0], broadcast4(q));
#pragma GCC unroll 8
    for (int j = 1; j < 8; ++j) {
      sum16 = _mm256_add_epi16(sum16, _mm256_maddubs_epi16(codes[j], broadcast4(q + j * 4)));
    }
    const __m256i sum = _mm256_madd_epi16(sum16, _mm256_set1_epi16(1));
    return _mm256_sub_epi32(sum, _mm256_set1_epi32(8 * q_sum));
  }
};

struct W8 {
  static constexpr size_t kBytes = kW8GroupBytes;
  static constexpr size_t kScaleOffset = 512;
  [[gnu::always_inline]] static void unpack(const uint8_t* half_group, __m256i (&codes)[8]) {
    const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm256_xor_si256(load(half_group + j * 64), sign);
  }
  // |w| times x with w's sign: |w| may be 128 as a weight may be -128, x may not, so the sum of two products is at most
  // 2 * 128 * 127 = 32512.  (|x| times w with x's sign would turn -128 into itself.)
  [[gnu::always_inline]] static __m256i dot(const __m256i (&codes)[8], const int8_t* q, int32_t) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m256i signed_x = _mm256_sign_epi8(broadcast4(q + j * 4), codes[j]);
      const __m256i sum16 = _mm256_maddubs_epi16(_mm256_abs_epi8(codes[j]), signed_x);
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(sum16, ones));
    }
    return sum;
  }
};

// Integer codes times int8 activations, eight columns at a time: their unpacked codes fill half the registers.
template <typename Codes>
struct CodesTile {
  static constexpr int kMaxRows = 4;

  template <int ROWS>
  [[gnu::always_inline]] static void half_panel(const TileArgs& t, size_t half) {
    const size_t width = static_cast<size_t>(t.x.width);
    const size_t groups = width / kGroup;
    const int8_t* q = t.x.q8 + static_cast<size_t>(t.row) * width;
    const float* q_scale = t.x.q8_scale + static_cast<size_t>(t.row) * groups;
    const int32_t* q_sum = t.x.q8_sum + static_cast<size_t>(t.row) * groups;
    const uint8_t* group = t.panel;
    __m256 sum[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) sum[r] = _mm256_setzero_ps();
    for (size_t g = 0; g < groups; ++g, group += Codes::kBytes, q += kGroup) {
      if (half == 0) {
        for (size_t i = 0; i < Codes::kBytes; i += 64) prefetch(group + i);
      }
      __m256i codes[8];
      Codes::unpack(group + half * 32, codes);
      const __m256 scale = load_halves(group + Codes::kScaleOffset + half * 16);
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) {
        const __m256i dot = Codes::dot(codes, q + r * width, q_sum[r * groups + g]);
        const __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(q_scale[r * groups + g]));
        sum[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), both, sum[r]);
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

// Float weights: one k of a panel, as two registers.
struct F32 {
  using Element = float;
  static constexpr size_t kStep = 1;  // elements of k that lie together
  static constexpr size_t kStepBytes = kPanelColumns * 4;
  static const float* rows(const Rows& x) { return x.f32; }
  static size_t row_elements(const Rows& x) { return static_cast<size_t>(x.width); }
  [[gnu::always_inline]] static __m256 load(const uint8_t* p, size_t half, size_t) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p + half * 32));
  }
  [[gnu::always_inline]] static __m256 broadcast(const float* x) { return _mm256_broadcast_ss(x); }
};

struct F16 : F32 {
  static constexpr size_t kStepBytes = kPanelColumns * 2;
  [[gnu::always_inline]] static __m256 load(const uint8_t* p, size_t half, size_t) {
    return load_halves(p + half * 16);
  }
};

// Pairs of k share a 32-bit lane; bf16 are the upper halves of floats.
struct BF16 {
  using Element = uint16_t;
  static constexpr size_t kStep = 2;
  static constexpr size_t kStepBytes = kPanelColumns * 4;
  static const uint16_t* rows(const Rows& x) { return x.bf16; }
  static size_t row_elements(const Rows& x) { return (static_cast<size_t>(x.width) + 1) / 2 * 2; }
  [[gnu::always_inline]] static __m256 load(const uint8_t* p, size_t half, size_t step) {
    const __m256i pairs = avx2::load(p + half * 32);
    return _mm256_castsi256_ps(step == 0 ? _mm256_slli_epi32(pairs, 16)
                                         : _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  [[gnu::always_inline]] static __m256 broadcast(const uint16_t* x) {
    return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(static_cast<uint32_t>(*x) << 16)));
  }
};

// Float weights times float or bf16 activations, one chain of fused steps per output.
// Registers: 2 * ROWS sums, 2 weights, 1 activation, 1 mask.
template <typename Floats>
struct FloatTile {
  static constexpr int kMaxRows = 6;

  template <int ROWS>
  static void run(const TileArgs& t) {
    const size_t stride = Floats::row_elements(t.x);
    const typename Floats::Element* x = Floats::rows(t.x) + static_cast<size_t>(t.row) * stride;
    const uint8_t* panel = t.panel;
    __m256 sum[ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    for (size_t i = 0; i < stride; i += Floats::kStep, panel += Floats::kStepBytes, x += Floats::kStep) {
      prefetch(panel);
#pragma GCC unroll 2
      for (size_t step = 0; step < Floats::kStep; ++step) {
        const __m256 w0 = Floats::load(panel, 0, step);
        const __m256 w1 = Floats::load(panel, 1, step);
#pragma GCC unroll 6
        for (size_t r = 0; r < ROWS; ++r) {
          const __m256 in = Floats::broadcast(x + r * stride + step);
          sum[r][0] = _mm256_fmadd_ps(in, w0, sum[r][0]);
          sum[r][1] = _mm256_fmadd_ps(in, w1, sum[r][1]);
        }
      }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) {
      _mm256_storeu_ps(t.y + r * t.ldy, sum[r][0]);
      _mm256_storeu_ps(t.y + r * t.ldy + kHalfColumns, sum[r][1]);
    }
  }
};

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
  const size_t stride = panel_bytes(w.layout, w.k);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int row = row_begin; row < row_end; row += tile_rows) {
      const int rows = row_end - row < tile_rows ? row_end - row : tile_rows;
      float* out = y + static_cast<size_t>(row) * ldy + static_cast<size_t>(panel) * kPanelColumns;
      Tiles<Kernel>::by_rows[rows - 1]({x, row, w.data + static_cast<size_t>(panel) * stride, out, ldy});
    }
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

}  // namespace quintet::avx2
