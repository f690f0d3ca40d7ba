// Sixteen float lanes in one register.  The bodies in ../lanes/ are written over this interface; avx2/lanes.h has the
// same names.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace quintet::avx512 {

#define QUINTET_INLINE [[gnu::always_inline]] static inline

struct Lanes {
  using F = __m512;
  using Mask = __mmask16;

  QUINTET_INLINE F zero() { return _mm512_setzero_ps(); }
  QUINTET_INLINE F set1(float x) { return _mm512_set1_ps(x); }
  QUINTET_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
  QUINTET_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }

  // The first n of 16 lanes; the others are zero, or left alone in memory.
  QUINTET_INLINE Mask first(int n) { return static_cast<Mask>((1u << n) - 1u); }
  QUINTET_INLINE F load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  QUINTET_INLINE void store_first(float* p, F x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }

  QUINTET_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
  QUINTET_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  QUINTET_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  QUINTET_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
  QUINTET_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  QUINTET_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }  // b if either is NaN
  QUINTET_INLINE Mask less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  QUINTET_INLINE F select(Mask mask, F a, F b) { return _mm512_mask_blend_ps(mask, b, a); }

  // y * 2^n, where shifted = n + kRound (exp.h).
  QUINTET_INLINE F scale_by_power(F y, F shifted, F round) {
    return _mm512_scalef_ps(y, _mm512_sub_ps(shifted, round));
  }

  // Lane i + lane i + 8, then + 4, + 2, + 1.
  QUINTET_INLINE float sum(F x) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  QUINTET_INLINE float largest(F x) { return _mm512_reduce_max_ps(x); }  // no lane is NaN

  // Bits of the largest magnitude: as integers, NaN is above infinity and that above every number.
  QUINTET_INLINE uint32_t largest_magnitude(F a, F b) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m512i x = _mm512_and_si512(_mm512_castps_si512(a), magnitude);
    const __m512i y = _mm512_and_si512(_mm512_castps_si512(b), magnitude);
    return static_cast<uint32_t>(_mm512_reduce_max_epi32(_mm512_max_epi32(x, y)));
  }

  // Rounds 32 values to nearest even, stores them as bytes, returns their sum.
  QUINTET_INLINE int32_t store_int8(int8_t* p, F a, F b) {
    const __m512i x = _mm512_cvtps_epi32(a);
    const __m512i y = _mm512_cvtps_epi32(b);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm512_cvtepi32_epi8(y));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(x, y));
  }

  // Rounds to bf16, nearest even; unlike VCVTNEPS2BF16 keeps subnormals, as half.h does.
  QUINTET_INLINE __m256i to_bf16(F x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x00400000));
    const Mask is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(is_nan, rounded, quiet), 16));
  }
  QUINTET_INLINE void store_bf16(uint16_t* p, F x, int n) { _mm256_mask_storeu_epi16(p, first(n), to_bf16(x)); }

  // Rotates 8 pairs (2i, 2i + 1) in place: a * cos - b * sin, b * cos + a * sin.
  QUINTET_INLINE void rotate_pairs(float* p, const float* cos, const float* sin) {
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const F c = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(cos)));
    const F s = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(sin)));
    const F x = load(p);
    const F straight = mul(x, c);
    const F crossed = mul(_mm512_permute_ps(x, 0xb1), s);
    store(p, _mm512_mask_sub_ps(add(straight, crossed), 0x5555, straight, crossed));
  }
};

}  // namespace quintet::avx512
