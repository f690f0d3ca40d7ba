// Matrix kernels of float weights for NEON.
#include <iterator>

#include "tiles.h"

namespace quintet::neon {
namespace {

// Float weights: one k of a panel, as four registers.
struct F32 {
  using Element = float;
  static constexpr size_t kStep = 1;  // elements of k that lie together
  static constexpr size_t kStepBytes = kPanelColumns * 4;
  static constexpr size_t panel_bytes(size_t k) { return k * kStepBytes; }
  static const float* rows(const Rows& x) { return x.f32; }
  static size_t row_elements(const Rows& x) { return static_cast<size_t>(x.width); }
  [[gnu::always_inline]] static float32x4_t load(const uint8_t* p, size_t quarter, size_t) {
    return vld1q_f32(reinterpret_cast<const float*>(p + quarter * 16));
  }
  [[gnu::always_inline]] static float32x4_t broadcast(const float* x) { return vld1q_dup_f32(x); }
};

struct F16 : F32 {
  static constexpr size_t kStepBytes = kPanelColumns * 2;
  static constexpr size_t panel_bytes(size_t k) { return k * kStepBytes; }
  [[gnu::always_inline]] static float32x4_t load(const uint8_t* p, size_t quarter, size_t) {
    return load_halves(p + quarter * 8);
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
  [[gnu::always_inline]] static float32x4_t load(const uint8_t* p, size_t quarter, size_t step) {
    const uint32x4_t pairs = vreinterpretq_u32_u8(vld1q_u8(p + quarter * 16));
    return vreinterpretq_f32_u32(step == 0 ? vshlq_n_u32(pairs, 16) : vandq_u32(pairs, vdupq_n_u32(0xffff0000u)));
  }
  [[gnu::always_inline]] static float32x4_t broadcast(const uint16_t* x) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_dup_u16(x), 16));
  }
};

// Float weights times float or bf16 activations, one chain of fused steps per output.
// Registers: 4 * ROWS sums, 4 weights, 1 activation, 1 mask.
template <typename Floats>
struct FloatTile {
  static constexpr int kMaxRows = 6;

  static size_t panel_bytes(size_t k) { return Floats::panel_bytes(k); }

  static void run(const TileArgs& t, int rows) {
    static constexpr void (*kByRows[])(const TileArgs&) = {run_rows<1>, run_rows<2>, run_rows<3>,
                                                           run_rows<4>, run_rows<5>, run_rows<6>};
    static_assert(std::size(kByRows) == kMaxRows);
    kByRows[rows - 1](t);
  }

 private:
  template <int ROWS>
  static void run_rows(const TileArgs& t) {
    const size_t stride = Floats::row_elements(t.x);
    const typename Floats::Element* x = Floats::rows(t.x) + static_cast<size_t>(t.row) * stride;
    const uint8_t* panel = t.panel;
    float32x4_t sum[ROWS][4];
#pragma GCC unroll 6
    for (auto& row : sum) {
#pragma GCC unroll 4
      for (auto& s : row) s = vdupq_n_f32(0.0f);
    }
    for (size_t i = 0; i < stride; i += Floats::kStep, panel += Floats::kStepBytes, x += Floats::kStep) {
      prefetch<Floats::kStepBytes>(panel);
#pragma GCC unroll 2
      for (size_t step = 0; step < Floats::kStep; ++step) {
        float32x4_t w[4];
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; ++c) w[c] = Floats::load(panel, c, step);
#pragma GCC unroll 6
        for (size_t r = 0; r < ROWS; ++r) {
          const float32x4_t in = Floats::broadcast(x + r * stride + step);
#pragma GCC unroll 4
          for (size_t c = 0; c < 4; ++c) sum[r][c] = vfmaq_f32(sum[r][c], in, w[c]);
        }
      }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
      for (size_t c = 0; c < 4; ++c) vst1q_f32(t.y + r * t.ldy + c * 4, sum[r][c]);
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

}  // namespace quintet::neon
