// What scales codes: how each kind of layout turns a group's integer sums into a row's float sum.
#pragma once

#include "codes.h"

namespace quintet::avx2 {
namespace {

[[gnu::always_inline]] inline __m256 to_floats(__m256i x) { return _mm256_cvtepi32_ps(x); }

// One row's part in one group.
struct Q8Group {
  const int8_t* q;
  float scale;
  int32_t sum;
};

// Eight bytes of half a panel.
[[gnu::always_inline]] inline __m128i load_half(const uint8_t* p, size_t half) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + half * 8));
}

// 2^(e - 128): e - 1 is the exponent field, but of the smallest two, which are denormals.
[[gnu::always_inline]] inline __m256 to_scales(__m256i e) {
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}

// s (code - zero point), from what scales half a panel of a group at p; the block is where its header is.
template <Layout LAYOUT>
struct Symmetric {
  static constexpr const int8_t* kValues = code_values(LAYOUT);
  static constexpr bool kSigned = zero_point(LAYOUT) == 128;  // weights, not codes, are what is multiplied
  __m256 scale;
  [[gnu::always_inline]] static __m256 load(const uint8_t* block, const uint8_t* p, size_t half) {
    if constexpr (LAYOUT == Layout::kW4x) {
      return _mm256_mul_ps(load_halves(block + half * 16), to_floats(_mm256_cvtepi8_epi32(load_half(p, half))));
    }
    if constexpr (LAYOUT == Layout::kW4e) return to_scales(_mm256_cvtepu8_epi32(load_half(p, half)));
    return load_halves(p + half * 16);
  }
  [[gnu::always_inline]] Symmetric(const uint8_t* block, const uint8_t* p, size_t half) : scale(load(block, p, half)) {}
  [[gnu::always_inline]] void prepare(__m256i (&codes)[8]) const {
    if constexpr (kValues != nullptr) {
      const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kValues));
      const __m128i above = _mm_add_epi8(values, _mm_set1_epi8(kSigned ? 0 : zero_point(LAYOUT)));
      const __m256i table = _mm256_broadcastsi128_si256(above);
#pragma GCC unroll 8
      for (auto& c : codes) c = _mm256_shuffle_epi8(table, c);
    }
    if constexpr (LAYOUT == Layout::kW8) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) codes[j] = _mm256_xor_si256(codes[j], _mm256_set1_epi8(static_cast<char>(0x80)));
    }
  }
  [[gnu::always_inline]] __m256 add_group(const __m256i (&codes)[8], const Q8Group& x, __m256 sum) const {
    __m256i dot;
    if constexpr (kSigned) {
      dot = dot_signed<128, 0, 8>(codes, x.q);
    } else {
      constexpr int kMaxCode = LAYOUT == Layout::kW4 ? 15 : 31;
      dot = _mm256_sub_epi32(dot_unsigned<kMaxCode>(codes, x.q), _mm256_set1_epi32(zero_point(LAYOUT) * x.sum));
    }
    return _mm256_fmadd_ps(to_floats(dot), _mm256_mul_ps(scale, _mm256_set1_ps(x.scale)), sum);
  }
};

// s code - m.
template <Layout LAYOUT>
struct WithMin {
  static constexpr bool kBytes = LAYOUT == Layout::kW4k || LAYOUT == Layout::kW5k;
  static constexpr int kMaxCode = code_layout(LAYOUT).bit_bytes == 0 ? 15 : 31;
  __m256 scale;
  __m256 min;
  [[gnu::always_inline]] static __m256 load(const uint8_t* header, const uint8_t* p, size_t half) {
    if constexpr (!kBytes) return load_halves(p + half * 16);
    return _mm256_mul_ps(load_halves(header + half * 16), to_floats(_mm256_cvtepu8_epi32(load_half(p, half))));
  }
  [[gnu::always_inline]] WithMin(const uint8_t* block, const uint8_t* p, size_t half)
      : scale(load(block, p, half)), min(load(block + 32, p + (kBytes ? 16 : 32), half)) {}
  [[gnu::always_inline]] void prepare(__m256i (&)[8]) const {}
  [[gnu::always_inline]] __m256 add_group(const __m256i (&codes)[8], const Q8Group& x, __m256 sum) const {
    const __m256 q_sum = _mm256_set1_ps(static_cast<float>(x.sum));
    const __m256 part =
        _mm256_fnmadd_ps(min, q_sum, _mm256_mul_ps(scale, to_floats(dot_unsigned<kMaxCode>(codes, x.q))));
    return _mm256_fmadd_ps(part, _mm256_set1_ps(x.scale), sum);
  }
};

// s (code - zero point) with a scale per 16 k.
template <Layout LAYOUT>
struct TwoScales {
  __m256 first;
  __m256 second;
  [[gnu::always_inline]] static __m256 load(const uint8_t* header, const uint8_t* p, size_t half) {
    __m256 d = load_halves(header + half * 16);
    if constexpr (has_table(LAYOUT)) d = _mm256_mul_ps(d, _mm256_set1_ps(kTableUnit));
    return _mm256_mul_ps(d, to_floats(_mm256_cvtepi8_epi32(load_half(p, half))));
  }
  [[gnu::always_inline]] TwoScales(const uint8_t* block, const uint8_t* p, size_t half)
      : first(load(block, p, half)), second(load(block, p + 16, half)) {}
  [[gnu::always_inline]] void prepare(__m256i (&codes)[8]) const {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm256_sub_epi8(codes[j], _mm256_set1_epi8(zero_point(LAYOUT)));
  }
  [[gnu::always_inline]] __m256 add_group(const __m256i (&w)[8], const Q8Group& x, __m256 sum) const {
    constexpr int kMaxMagnitude = has_table(LAYOUT) ? 64 : 32;
    const __m256 low = to_floats(dot_signed<kMaxMagnitude, 0, 4>(w, x.q));
    const __m256 high = to_floats(dot_signed<kMaxMagnitude, 4, 8>(w, x.q));
    const __m256 part = _mm256_fmadd_ps(second, high, _mm256_mul_ps(first, low));
    return _mm256_fmadd_ps(part, _mm256_set1_ps(x.scale), sum);
  }
};

// The same, of codes that the block's own table has the values of.
template <Layout LAYOUT>
struct TableScales : TwoScales<LAYOUT> {
  __m256i table;
  [[gnu::always_inline]] TableScales(const uint8_t* block, const uint8_t* p, size_t half)
      : TwoScales<LAYOUT>(block, p, half),
        table(_mm256_sub_epi8(
            _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + kTableOffset))),
            _mm256_set1_epi8(zero_point(LAYOUT)))) {}
  [[gnu::always_inline]] void prepare(__m256i (&codes)[8]) const {
#pragma GCC unroll 8
    for (auto& c : codes) c = _mm256_shuffle_epi8(table, c);
  }
};

// d s code - e m with s and m per 16 k.  Codes of two bits times s of four still fit a byte, so that both halves are
// one integer sum, and one step sums both minima.
struct ScaledCodes {
  __m256 d;
  __m256 e;
  __m256i both;  // per column the bytes of the two halves, s and m, as 16 bits each
  [[gnu::always_inline]] ScaledCodes(const uint8_t* block, const uint8_t* p, size_t half)
      : d(load_halves(block + half * 16)),
        e(load_halves(block + 32 + half * 16)),
        both(_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + half * 16)))) {}

  // A product of 16 bits multiplies two codes at once: neither exceeds its byte.
  [[gnu::always_inline]] void prepare(__m256i (&codes)[8]) const {
    const __m256i s = _mm256_and_si256(both, _mm256_set1_epi16(15));
    const __m256i first = _mm256_blend_epi16(s, _mm256_slli_epi32(s, 16), 0xaa);
    const __m256i second = _mm256_blend_epi16(_mm256_srli_epi32(s, 16), s, 0xaa);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm256_mullo_epi16(codes[j], j < 4 ? first : second);
  }

  // Per column the sums of the two halves of a row's group, as 16 bits each.
  [[gnu::always_inline]] static __m256i half_sums(const int8_t* q) {
    const __m256i q32 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
    const __m256i fours = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q32), _mm256_set1_epi16(1));
    const __m256i twos = _mm256_add_epi32(fours, _mm256_shuffle_epi32(fours, 0x4e));
    const __m256i sums = _mm256_add_epi32(twos, _mm256_shuffle_epi32(twos, 0xb1));
    const __m256i first = _mm256_permute2x128_si256(sums, sums, 0x00);
    const __m256i second = _mm256_permute2x128_si256(sums, sums, 0x11);
    return _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
  }

  [[gnu::always_inline]] __m256 add_group(const __m256i (&codes)[8], const Q8Group& x, __m256 sum) const {
    const __m256 mins = to_floats(_mm256_madd_epi16(_mm256_srli_epi16(both, 4), half_sums(x.q)));
    const __m256 part = _mm256_fnmadd_ps(e, mins, _mm256_mul_ps(d, to_floats(dot_unsigned<45>(codes, x.q))));
    return _mm256_fmadd_ps(part, _mm256_set1_ps(x.scale), sum);
  }
};

}  // namespace
}  // namespace quintet::avx2
