// How a group's integer sums become part of a row's output, layout by layout.
//
// Each class has, for half a panel of a group:
//   (block, p, half)             reads what scales it at p; the block is where its header is
//   prepare(codes)               unpacked codes to what is multiplied
//   add_group(codes, x, sums)    adds one row's part to its eight sums
#pragma once

#include <arm_neon.h>

#include "codes.h"
#include "tiles.h"

namespace quintet::neon {
namespace {

// One row's part in one group.
struct Q8Group {
  const int8_t* q;
  float scale;
  int32_t sum;
};

// One float per column.
struct Columns {
  float32x4_t low, high;
};

[[gnu::always_inline]] inline Columns operator*(Columns a, Columns b) {
  return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
}

[[gnu::always_inline]] inline Columns to_floats(Dots x) { return {vcvtq_f32_s32(x.low), vcvtq_f32_s32(x.high)}; }

[[gnu::always_inline]] inline Columns halves(const uint8_t* p, size_t half) {
  return {load_halves(p + half * 16), load_halves(p + half * 16 + 8)};
}

[[gnu::always_inline]] inline Columns unsigned_bytes(const uint8_t* p, size_t half) {
  const uint16x8_t shorts = vmovl_u8(vld1_u8(p + half * 8));
  return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(shorts))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(shorts)))};
}

[[gnu::always_inline]] inline Columns signed_bytes(const uint8_t* p, size_t half) {
  const int16x8_t shorts = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p + half * 8)));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(shorts))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(shorts)))};
}

// 2^(e - 128): e - 1 is the exponent field, but of the smallest two, which are denormals.
[[gnu::always_inline]] inline float32x4_t power(uint16x4_t exponent) {
  const uint32x4_t e = vmovl_u16(exponent);
  const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
  const uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
  return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), tiny, normal));
}

[[gnu::always_inline]] inline Columns powers(const uint8_t* p, size_t half) {
  const uint16x8_t e = vmovl_u8(vld1_u8(p + half * 8));
  return {power(vget_low_u16(e)), power(vget_high_u16(e))};
}

// sums += x * y
[[gnu::always_inline]] inline void add_product(Columns x, Columns y, float* sums) {
  vst1q_f32(sums, vfmaq_f32(vld1q_f32(sums), x.low, y.low));
  vst1q_f32(sums + 4, vfmaq_f32(vld1q_f32(sums + 4), x.high, y.high));
}

[[gnu::always_inline]] inline Columns all(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }

// Applies f to all codes.
template <typename F>
[[gnu::always_inline]] inline void change(Codes& codes, const F& f) {
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    codes.low[j] = f(codes.low[j]);
    codes.high[j] = f(codes.high[j]);
  }
}

// s (code - zero point).  Codes that are looked up become signed numbers, those of eight bits too; of the others the
// zero point is where the integer sum starts.
template <Layout LAYOUT>
struct Symmetric {
  static constexpr const int8_t* kValues = code_values(LAYOUT);
  static constexpr bool kSigned = kValues != nullptr || LAYOUT == Layout::kW8;
  Columns scale;
  [[gnu::always_inline]] static Columns load(const uint8_t* block, const uint8_t* p, size_t half) {
    if constexpr (LAYOUT == Layout::kW4x) return halves(block, half) * signed_bytes(p, half);
    if constexpr (LAYOUT == Layout::kW4e) return powers(p, half);
    return halves(p, half);
  }
  [[gnu::always_inline]] Symmetric(const uint8_t* block, const uint8_t* p, size_t half) : scale(load(block, p, half)) {}
  [[gnu::always_inline]] void prepare(Codes& codes) const {
    if constexpr (kValues != nullptr) {
      const uint8x16_t values = vreinterpretq_u8_s8(vld1q_s8(kValues));
      change(codes, [&](uint8x16_t code) { return vqtbl1q_u8(values, code); });
    } else if constexpr (kSigned) {
      change(codes, [](uint8x16_t code) { return veorq_u8(code, vdupq_n_u8(0x80)); });
    }
  }
  [[gnu::always_inline]] void add_group(const Codes& codes, const Q8Group& x, float* sums) const {
    const Dots dots = dot32(dots_from(kSigned ? 0 : -zero_point(LAYOUT) * x.sum), codes, x.q);
    add_product(to_floats(dots), scale * all(x.scale), sums);
  }
};

// s code - m.
struct WithMin {
  Columns scale;
  Columns min;
  [[gnu::always_inline]] void prepare(Codes&) const {}
  [[gnu::always_inline]] void add_group(const Codes& codes, const Q8Group& x, float* sums) const {
    add_product(to_floats(dot32(dots_from(0), codes, x.q)), scale * all(x.scale), sums);
    add_product(min, all(-(static_cast<float>(x.sum) * x.scale)), sums);
  }
};

struct HalfWithMin : WithMin {
  [[gnu::always_inline]] HalfWithMin(const uint8_t*, const uint8_t* p, size_t half)
      : WithMin{halves(p, half), halves(p + 32, half)} {}
};

struct ByteWithMin : WithMin {
  [[gnu::always_inline]] ByteWithMin(const uint8_t* block, const uint8_t* p, size_t half)
      : WithMin{halves(block, half) * unsigned_bytes(p, half),
                halves(block + 32, half) * unsigned_bytes(p + 16, half)} {}
};

// s (code - zero point) with a scale per 16 k.
template <Layout LAYOUT>
struct TwoScales {
  Columns first;
  Columns second;
  [[gnu::always_inline]] static Columns load(const uint8_t* block, const uint8_t* p, size_t half) {
    Columns d = halves(block, half);
    if constexpr (has_table(LAYOUT)) d = d * all(kTableUnit);
    return d * signed_bytes(p, half);
  }
  [[gnu::always_inline]] TwoScales(const uint8_t* block, const uint8_t* p, size_t half)
      : first(load(block, p, half)), second(load(block, p + 16, half)) {}
  [[gnu::always_inline]] void prepare(Codes& codes) const {
    change(codes, [](uint8x16_t code) { return vsubq_u8(code, vdupq_n_u8(zero_point(LAYOUT))); });
  }
  [[gnu::always_inline]] void add_group(const Codes& codes, const Q8Group& x, float* sums) const {
    add_product(to_floats(dot16<0>(dots_from(0), codes, x.q)), first * all(x.scale), sums);
    add_product(to_floats(dot16<4>(dots_from(0), codes, x.q + 16)), second * all(x.scale), sums);
  }
};

// The same, of codes that the block's own table has the values of.
template <Layout LAYOUT>
struct TableScales : TwoScales<LAYOUT> {
  uint8x16_t table;
  [[gnu::always_inline]] TableScales(const uint8_t* block, const uint8_t* p, size_t half)
      : TwoScales<LAYOUT>(block, p, half),
        table(vsubq_u8(vld1q_u8(block + kTableOffset), vdupq_n_u8(zero_point(LAYOUT)))) {}
  [[gnu::always_inline]] void prepare(Codes& codes) const {
    change(codes, [&](uint8x16_t code) { return vqtbl1q_u8(table, code); });
  }
};

// d s code - e m with s and m per 16 k.  Codes of two bits times s of four still fit a byte, so that both halves are
// one integer sum, and one step sums both minima.
struct ScaledCodes {
  Columns d;
  Columns e;
  uint8x16_t s;               // per column those of the two halves of k
  int16x8_t m_first, m_last;  // per column
  [[gnu::always_inline]] ScaledCodes(const uint8_t* block, const uint8_t* p, size_t half)
      : d(halves(block, half)), e(halves(block + 32, half)) {
    const uint8x16_t both = vld1q_u8(p + half * 16);
    s = vandq_u8(both, vdupq_n_u8(15));
    const uint16x8_t pairs = vreinterpretq_u16_u8(vshrq_n_u8(both, 4));
    m_first = vreinterpretq_s16_u16(vandq_u16(pairs, vdupq_n_u16(15)));
    m_last = vreinterpretq_s16_u16(vshrq_n_u16(pairs, 8));
  }

  [[gnu::always_inline]] void prepare(Codes& codes) const {
    const auto repeat = [](uint8x16_t x) { return vreinterpretq_u16_u8(vzip1q_u8(x, x)); };
    const uint16x8_t twice_first = repeat(vuzp1q_u8(s, s));
    const uint16x8_t twice_last = repeat(vuzp2q_u8(s, s));
    const uint8x16_t low_first = vreinterpretq_u8_u16(vzip1q_u16(twice_first, twice_first));
    const uint8x16_t high_first = vreinterpretq_u8_u16(vzip2q_u16(twice_first, twice_first));
    const uint8x16_t low_last = vreinterpretq_u8_u16(vzip1q_u16(twice_last, twice_last));
    const uint8x16_t high_last = vreinterpretq_u8_u16(vzip2q_u16(twice_last, twice_last));
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      codes.low[j] = vmulq_u8(codes.low[j], j < 4 ? low_first : low_last);
      codes.high[j] = vmulq_u8(codes.high[j], j < 4 ? high_first : high_last);
    }
  }

  [[gnu::always_inline]] void add_group(const Codes& codes, const Q8Group& x, float* sums) const {
    const int16_t first_sum = vaddlvq_s8(vld1q_s8(x.q));
    const auto last_sum = static_cast<int16_t>(x.sum - first_sum);
    const Columns mins = to_floats({minima(vget_low_s16(m_first), first_sum, vget_low_s16(m_last), last_sum),
                                    minima(vget_high_s16(m_first), first_sum, vget_high_s16(m_last), last_sum)});
    const Columns part = d * to_floats(dot32(dots_from(0), codes, x.q));
    add_product({vfmsq_f32(part.low, e.low, mins.low), vfmsq_f32(part.high, e.high, mins.high)}, all(x.scale), sums);
  }

 private:
  [[gnu::always_inline]] static int32x4_t minima(int16x4_t first, int16_t first_sum, int16x4_t last, int16_t last_sum) {
    return vmlal_n_s16(vmull_n_s16(first, first_sum), last, last_sum);
  }
};

}  // namespace
}  // namespace quintet::neon
