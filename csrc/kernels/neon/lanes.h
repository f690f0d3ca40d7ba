// Sixteen float lanes in four registers.  The bodies in ../lanes/ are written over this interface; avx2/lanes.h has the
// same names.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace quintet::neon {

#define QUINTET_INLINE [[gnu::always_inline]] static inline

struct Lanes {
  struct F {
    float32x4_t a, b, c, d;
  };
  struct Mask {  // all ones or zeros in a lane
    uint32x4_t a, b, c, d;
  };

  QUINTET_INLINE F zero() { return set1(0.0f); }
  QUINTET_INLINE F set1(float x) {
    const float32x4_t all = vdupq_n_f32(x);
    return {all, all, all, all};
  }
  QUINTET_INLINE F load(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
  }
  QUINTET_INLINE void store(float* p, F x) {
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
  }

  // The first n of 16 lanes; the others are zero, or left alone in memory.
  QUINTET_INLINE Mask first(int n) {
    constexpr int32_t kIndex[4] = {0, 1, 2, 3};
    const int32x4_t index = vld1q_s32(kIndex);
    return {vcgtq_s32(vdupq_n_s32(n), index), vcgtq_s32(vdupq_n_s32(n - 4), index),
            vcgtq_s32(vdupq_n_s32(n - 8), index), vcgtq_s32(vdupq_n_s32(n - 12), index)};
  }
  QUINTET_INLINE F load_first(const float* p, int n) {
    float all[16] = {};
    for (int i = 0; i < n; ++i) all[i] = p[i];
    return load(all);
  }
  QUINTET_INLINE void store_first(float* p, F x, int n) {
    float all[16];
    store(all, x);
    for (int i = 0; i < n; ++i) p[i] = all[i];
  }

  QUINTET_INLINE F add(F x, F y) {
    return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
  }
  QUINTET_INLINE F sub(F x, F y) {
    return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
  }
  QUINTET_INLINE F mul(F x, F y) {
    return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
  }
  QUINTET_INLINE F div(F x, F y) {
    return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
  }
  QUINTET_INLINE F fma(F x, F y, F z) {
    return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
  }
  QUINTET_INLINE F max(F x, F y) { return select(less(y, x), x, y); }  // y if either is NaN: FMAX would give NaN
  QUINTET_INLINE Mask less(F x, F y) {
    return {vcltq_f32(x.a, y.a), vcltq_f32(x.b, y.b), vcltq_f32(x.c, y.c), vcltq_f32(x.d, y.d)};
  }
  QUINTET_INLINE F select(Mask mask, F x, F y) {
    return {vbslq_f32(mask.a, x.a, y.a), vbslq_f32(mask.b, x.b, y.b), vbslq_f32(mask.c, x.c, y.c),
            vbslq_f32(mask.d, x.d, y.d)};
  }

  // y * 2^n, where shifted = n + kRound (exp.h).
  QUINTET_INLINE F scale_by_power(F y, F shifted, F) {
    return {scale_by_power(y.a, shifted.a), scale_by_power(y.b, shifted.b), scale_by_power(y.c, shifted.c),
            scale_by_power(y.d, shifted.d)};
  }

  // Lane i + lane i + 8, then + 4, + 2, + 1.
  QUINTET_INLINE float sum(F x) {
    const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(vpadd_f32(two, two), 0);
  }
  QUINTET_INLINE float largest(F x) {  // no lane is NaN
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.c), vmaxq_f32(x.b, x.d)));
  }

  // Bits of the largest magnitude: as integers, NaN is above infinity and that above every number.
  QUINTET_INLINE uint32_t largest_magnitude(F x, F y) {
    return vmaxvq_u32(vmaxq_u32(largest_magnitudes(x), largest_magnitudes(y)));
  }

  // Rounds 32 values to nearest even, stores them as bytes, returns their sum.
  QUINTET_INLINE int32_t store_int8(int8_t* p, F x, F y) {
    const int16x8_t shorts[4] = {round_shorts(x.a, x.b), round_shorts(x.c, x.d), round_shorts(y.a, y.b),
                                 round_shorts(y.c, y.d)};
    vst1q_s8(p, vcombine_s8(vmovn_s16(shorts[0]), vmovn_s16(shorts[1])));
    vst1q_s8(p + 16, vcombine_s8(vmovn_s16(shorts[2]), vmovn_s16(shorts[3])));
    return vaddlvq_s16(vaddq_s16(vaddq_s16(shorts[0], shorts[1]), vaddq_s16(shorts[2], shorts[3])));
  }

  // Eight values rounded to nearest even.
  QUINTET_INLINE int16x8_t round_shorts(float32x4_t low, float32x4_t high) {
    return vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(low)), vqmovn_s32(vcvtnq_s32_f32(high)));
  }

  // Rounds to bf16, nearest even, leaving float lanes with a zero low half.
  QUINTET_INLINE F round_bf16(F x) { return {upper(x.a), upper(x.b), upper(x.c), upper(x.d)}; }
  QUINTET_INLINE void store_bf16(uint16_t* p, F x, int n) {
    const uint16x8_t low = vcombine_u16(vshrn_n_u32(round(x.a), 16), vshrn_n_u32(round(x.b), 16));
    const uint16x8_t high = vcombine_u16(vshrn_n_u32(round(x.c), 16), vshrn_n_u32(round(x.d), 16));
    if (n >= 16) {
      vst1q_u16(p, low);
      vst1q_u16(p + 8, high);
    } else {
      uint16_t all[16];
      vst1q_u16(all, low);
      vst1q_u16(all + 8, high);
      for (int i = 0; i < n; ++i) p[i] = all[i];
    }
  }

  // Rotates 8 pairs (2i, 2i + 1) in place: a * cos - b * sin, b * cos + a * sin.
  QUINTET_INLINE void rotate_pairs(float* p, const float* cos, const float* sin) {
    rotate_four(p, vld1q_f32(cos), vld1q_f32(sin));
    rotate_four(p + 8, vld1q_f32(cos + 4), vld1q_f32(sin + 4));
  }

 private:
  QUINTET_INLINE float32x4_t scale_by_power(float32x4_t y, float32x4_t shifted) {
    const int32x4_t power = vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23);
    const int32x4_t bits = vaddq_s32(vreinterpretq_s32_f32(y), power);
    return vbslq_f32(vceqq_f32(y, y), vreinterpretq_f32_s32(bits), y);
  }
  QUINTET_INLINE uint32x4_t magnitude(float32x4_t x) { return vreinterpretq_u32_f32(vabsq_f32(x)); }
  QUINTET_INLINE uint32x4_t largest_magnitudes(F x) {
    return vmaxq_u32(vmaxq_u32(magnitude(x.a), magnitude(x.b)), vmaxq_u32(magnitude(x.c), magnitude(x.d)));
  }
  QUINTET_INLINE uint32x4_t round(float32x4_t x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x00400000));
    return vbslq_u32(vceqq_f32(x, x), rounded, quiet);
  }
  QUINTET_INLINE float32x4_t upper(float32x4_t x) {
    return vreinterpretq_f32_u32(vandq_u32(round(x), vdupq_n_u32(0xffff0000u)));
  }
  QUINTET_INLINE void rotate_four(float* p, float32x4_t cos, float32x4_t sin) {
    float32x4x2_t pairs = vld2q_f32(p);
    const float32x4_t first = pairs.val[0];
    pairs.val[0] = vsubq_f32(vmulq_f32(first, cos), vmulq_f32(pairs.val[1], sin));
    pairs.val[1] = vaddq_f32(vmulq_f32(pairs.val[1], cos), vmulq_f32(first, sin));
    vst2q_f32(p, pairs);
  }
};

}  // namespace quintet::neon
