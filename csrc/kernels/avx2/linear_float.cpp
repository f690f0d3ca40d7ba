// Matrix kernels of float weights for AVX2 with FMA and F16C.
#include "tiles.h"

namespace quintet::avx2 {
namespace {

// Float weights: one k of a panel, as two registers.
struct F32 {
  using Element = float;
  static constexpr size_t kStep = 1;  // elements of k that lie together
  static constexpr size_t kStepBytes = kPanelColumns * 4;
  static constexpr size_t panel_bytes(size_t k) { return k * kStepBytes; }
  static const float* rows(const Rows& x) { return x.f32; }
  static size_t row_elements(const Rows& x) { return static_cast<size_t>(x.width); }
  [[gnu::always_inline]] static __m256 load(const uint8_t* p, size_t half, size_t) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p + half * 32));
  }
  [[gnu::always_inline]] static __m256 broadcast(const float* x) { return _mm256_broadcast_ss(x); }
};

struct F16 : F32 {
  static constexpr size_t kStepBytes = kPanelColumns * 2;
  static constexpr size_t panel_bytes(size_t k) { return k * kStepBytes; }
  [[gnu::always_inline]] static __m256 load(const uint8_t* p, size_t half, size_t) {
    return load_halves(p + half * 16);
  }
};

// Pairs of k share a 32-bit lane; bf16 are the upper halves of floats.
struct BF16 {
  using Element = uint16_t;
  static constexpr size_t kStep = 2;
  static constexpr size_t kStepBytes = kPanelColumns * 4;
  static constexpr size_t panel_bytes(size_t k) { return (k + 1) / 2 * kStepBytes; }
  static const uint16_t* rows(const Rows& x) { return x.bf16; }
  static size_t row_elements(const Rows& x) { return (static_cast<size_t>(x.width) + 1) / 2 * 2; }
  [[gnu::always_inline]] static __m256 load(const uint8_t* p, size_t half, size_t step) {
    const __m256i pairs = load_bytes(p + half * 32);
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
  static constexpr int kRowStep = 1;
  using Prepared = NothingPrepared;

  static size_t panel_bytes(size_t k) { return Floats::panel_bytes(k); }

  template <int ROWS>
  static void run(const TileArgs& t, const Prepared&) {
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

}  // namespace quintet::avx2
