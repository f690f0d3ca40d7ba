// Sixteen float lanes in two registers.  The bodies in ../lanes/ are written over this interface; avx512/lanes.h has
// the same names.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace quintet::avx2 {

#define QUINTET_INLINE [[gnu::always_inline]] static inline

struct Lanes {
  struct F {
    __m256 lo, hi;
  };
  using Mask = F;  // all ones or zeros in a lane

  QUINTET_INLINE F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  QUINTET_INLINE F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  QUINTET_INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  QUINTET_INLINE void store(float* p, F x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
  }

  // The first n of 16 lanes; the others are zero, or left alone in memory.
  QUINTET_INLINE Mask first(int n) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i count = _mm256_set1_epi32(n);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(count, index)),
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, _mm256_add_epi32(index, _mm256_set1_epi32(8))))};
  }
  QUINTET_INLINE F load_first(const float* p, int n) {
    const Mask mask = first(n);
    return {_mm256_maskload_ps(p, _mm256_castps_si256(mask.lo)),
            _mm256_maskload_ps(p + 8, _mm256_castps_si256(mask.hi))};
  }
  QUINTET_INLINE void store_first(float* p, F x, int n) {
    const Mask mask = first(n);
    _mm256_maskstore_ps(p, _mm256_castps_si256(mask.lo), x.lo);
    _mm256_maskstore_ps(p + 8, _mm256_castps_si256(mask.hi), x.hi);
  }

  QUINTET_INLINE F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  QUINTET_INLINE F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  QUINTET_INLINE F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  QUINTET_INLINE F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  QUINTET_INLINE F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
  QUINTET_INLINE F max(F a, F b) {  // b if either is NaN
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
  }
  QUINTET_INLINE Mask less(F a, F b) {
    return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
  }
  QUINTET_INLINE F select(Mask mask, F a, F b) {
    return {_mm256_blendv_ps(b.lo, a.lo, mask.lo), _mm256_blendv_ps(b.hi, a.hi, mask.hi)};
  }

  // y * 2^n, where shifted = n + kRound (exp.h).
  QUINTET_INLINE F scale_by_power(F y, F shifted, F) {
    return {scale_by_power(y.lo, shifted.lo), scale_by_power(y.hi, shifted.hi)};
  }

  // Lane i + lane i + 8, then + 4, + 2, + 1.
  QUINTET_INLINE float sum(F x) {
    const __m256 eight = _mm256_add_ps(x.lo, x.hi);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  QUINTET_INLINE float largest(F x) {  // no lane is NaN
    const __m256 eight = _mm256_max_ps(x.lo, x.hi);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }

  // Bits of the largest magnitude: as integers, NaN is above infinity and that above every number.
  QUINTET_INLINE uint32_t largest_magnitude(F a, F b) {
    const __m256i eight = _mm256_max_epi32(_mm256_max_epi32(magnitude(a.lo), magnitude(a.hi)),
                                           _mm256_max_epi32(magnitude(b.lo), magnitude(b.hi)));
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1))));
  }

  // Rounds 32 values to nearest even, stores them as bytes, returns their sum.
  QUINTET_INLINE int32_t store_int8(int8_t* p, F a, F b) {
    const __m256i x[4] = {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi), _mm256_cvtps_epi32(b.lo),
                          _mm256_cvtps_epi32(b.hi)};
    const __m256i shorts_a = _mm256_packs_epi32(x[0], x[1]);  // 128-bit halves interleaved: put right at the end
    const __m256i shorts_b = _mm256_packs_epi32(x[2], x[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(shorts_a, shorts_b), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bytes);
    const __m256i eight = _mm256_add_epi32(_mm256_add_epi32(x[0], x[1]), _mm256_add_epi32(x[2], x[3]));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }

  // Rounds to bf16, nearest even, leaving float lanes with a zero low half.
  QUINTET_INLINE F round_bf16(F x) { return {_mm256_castsi256_ps(round(x.lo)), _mm256_castsi256_ps(round(x.hi))}; }
  QUINTET_INLINE void store_bf16(uint16_t* p, F x, int n) {
    const __m256i lo = _mm256_srli_epi32(round(x.lo), 16);
    const __m256i hi = _mm256_srli_epi32(round(x.hi), 16);
    const __m256i shorts = _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8);
    if (n >= 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), shorts);
    } else {
      alignas(32) uint16_t all[16];
      _mm256_store_si256(reinterpret_cast<__m256i*>(all), shorts);
      for (int i = 0; i < n; ++i) p[i] = all[i];
    }
  }

  // Rotates 8 pairs (2i, 2i + 1) in place: a * cos - b * sin, b * cos + a * sin.
  QUINTET_INLINE void rotate_pairs(float* p, const float* cos, const float* sin) {
    rotate_four(p, cos, sin);
    rotate_four(p + 8, cos + 4, sin + 4);
  }

 private:
  QUINTET_INLINE __m256 scale_by_power(__m256 y, __m256 shifted) {
    const __m256i bits = _mm256_add_epi32(_mm256_castps_si256(y), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
    return _mm256_blendv_ps(_mm256_castsi256_ps(bits), y, _mm256_cmp_ps(y, y, _CMP_UNORD_Q));
  }
  QUINTET_INLINE __m256i magnitude(__m256 x) {
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
  }
  QUINTET_INLINE __m256i round(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_and_si256(_mm256_blendv_epi8(rounded, quiet, is_nan),
                            _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
  }
  QUINTET_INLINE void rotate_four(float* p, const float* cos, const float* sin) {
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    const __m256 c = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(cos)), twice);
    const __m256 s = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(sin)), twice);
    const __m256 x = _mm256_loadu_ps(p);
    const __m256 crossed = _mm256_mul_ps(_mm256_permute_ps(x, 0xb1), s);
    _mm256_storeu_ps(p, _mm256_addsub_ps(_mm256_mul_ps(x, c), crossed));
  }
};

}  // namespace quintet::avx2
