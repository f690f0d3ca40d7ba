// Matrix kernels of float weights for AVX-512 with BF16.
#include "tiles.h"

namespace quintet::avx512 {
namespace {

// Float weights: one step along k.
struct F32 {
  using Weights = __m512;
  static constexpr size_t kStep = 1;  // elements of k
  static constexpr size_t kStepBytes = kPanelColumns * 4;
  static constexpr size_t panel_bytes(size_t k) { return k * kStepBytes; }
  static const float* rows(const Rows& x) { return x.f32; }
  static size_t row_elements(const Rows& x) { return static_cast<size_t>(x.width); }
  [[gnu::always_inline]] static __m512 load(const uint8_t* p) { return _mm512_loadu_ps(p); }
  [[gnu::always_inline]] static __m512 fma(const float* x, __m512 w, __m512 sum) {
    return _mm512_fmadd_ps(_mm512_set1_ps(*x), w, sum);
  }
};

struct F16 : F32 {
  static constexpr size_t kStepBytes = kPanelColumns * 2;
  static constexpr size_t panel_bytes(size_t k) { return k * kStepBytes; }
  [[gnu::always_inline]] static __m512 load(const uint8_t* p) { return load_halves(p); }
};

// Two k at a time.  VDPBF16PS flushes denormals and rounds in its own way (Intel SDM, "VDPBF16PS").
struct BF16 {
  using Weights = __m512bh;
  static constexpr size_t kStep = 2;
  static constexpr size_t kStepBytes = kPanelColumns * 4;
  static constexpr size_t panel_bytes(size_t k) { return (k + 1) / 2 * kStepBytes; }
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
  static int max_rows(const Rows&) { return kMaxRows; }
  static constexpr int kPanels = 2;
  using Prepared = NothingPrepared;

  static size_t panel_bytes(size_t k) { return Floats::panel_bytes(k); }

  template <int ROWS, int PANELS>
  static void run(const TileArgs& t, const NothingPrepared&) {
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

}  // namespace quintet::avx512
