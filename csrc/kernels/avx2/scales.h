// What scales codes: how each kind of layout turns a group's integer sums into a row's float sum.
#pragma once

#include "codes.h"

namespace quintet::avx2 {
namespace {

[[gnu::always_inline]] inline __m256 to_floats(__m256i x) { return _mm256_cvtepi32_ps(x); }

// The sums of the two halves of each group, for layouts whose scales change there.
struct HalfSums {
  static constexpr int kMaxRows = 16;
  static constexpr int kPanelsPerUse = 8;
  HalfSums(const Rows& x, int row, int rows) {
    const size_t width = static_cast<size_t>(x.width);
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      const uint8_t* q = reinterpret_cast<const uint8_t*>(x.q8 + (static_cast<size_t>(row) + r) * width);
      for (size_t g = 0; g < width / kGroup; ++g) {
        // Absolute differences sum what is made unsigned.
        const __m256i above = _mm256_xor_si256(load_bytes(q + g * kGroup), _mm256_set1_epi8(-128));
        const __m256i eights = _mm256_sad_epu8(above, _mm256_setzero_si256());
        const __m256i halves = _mm256_add_epi32(eights, _mm256_shuffle_epi32(eights, 0x4e));
        pairs[r][g][0] = static_cast<int16_t>(_mm_cvtsi128_si32(_mm256_castsi256_si128(halves)) - 128 * 16);
        pairs[r][g][1] = static_cast<int16_t>(_mm_cvtsi128_si32(_mm256_extracti128_si256(halves, 1)) - 128 * 16);
      }
    }
  }
  const int16_t* pair(size_t row, size_t group) const { return pairs[row][group]; }
  int16_t pairs[kMaxRows][kMaxHalvesK / kGroup + 16][2];  // a line more, or all rows would share one set of the cache
};

// One row's part in one group.
struct Q8Group {
  const int8_t* q;
  float scale;
  int32_t sum;
  const int16_t* pair;  // of HalfSums, where there are any
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

// Exact dot products of signed weights with some rows, as |w| times x with w's sign.  |w| may be 128, x may not be
// -128: two products are at most 2 * 128 * 127 = 32512.  (|x| times w with x's sign would leave -128 negative.)
template <size_t ROWS>
[[gnu::always_inline]] inline void dot_signed(const __m256i (&w)[8], const Q8Group (&x)[ROWS], __m256i (&dots)[ROWS]) {
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (auto& dot : dots) dot = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    const __m256i magnitude = _mm256_abs_epi8(w[j]);
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256i signed_x = _mm256_sign_epi8(broadcast4(x[r].q + j * 4), w[j]);
      dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, signed_x), ones));
    }
  }
}

// s (code - zero point), from what scales half a panel of a group at p; the block is where its header is.
template <Layout LAYOUT>
struct Symmetric {
  using Prepared = NothingPrepared;
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
    if constexpr (has_code_values(LAYOUT)) {
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
  template <size_t ROWS>
  [[gnu::always_inline]] void add_group(const __m256i (&codes)[8], const Q8Group (&x)[ROWS],
                                        __m256 (&sum)[ROWS]) const {
    __m256i dots[ROWS];
    if constexpr (kSigned) {
      dot_signed(codes, x, dots);
    } else {
      constexpr int kMaxCode = LAYOUT == Layout::kW4 ? 15 : 31;
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) {
        dots[r] = dot_unsigned<kMaxCode>(codes, x[r].q, _mm256_set1_epi32(-zero_point(LAYOUT) * x[r].sum));
      }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      sum[r] = _mm256_fmadd_ps(to_floats(dots[r]), _mm256_mul_ps(scale, _mm256_set1_ps(x[r].scale)), sum[r]);
    }
  }
};

// s code - m.
template <Layout LAYOUT>
struct WithMin {
  using Prepared = NothingPrepared;
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
  template <size_t ROWS>
  [[gnu::always_inline]] void add_group(const __m256i (&codes)[8], const Q8Group (&x)[ROWS],
                                        __m256 (&sum)[ROWS]) const {
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256 dot = to_floats(dot_unsigned<kMaxCode>(codes, x[r].q, _mm256_setzero_si256()));
      const __m256 with_scale = _mm256_fmadd_ps(dot, _mm256_mul_ps(scale, _mm256_set1_ps(x[r].scale)), sum[r]);
      sum[r] = _mm256_fnmadd_ps(min, _mm256_set1_ps(static_cast<float>(x[r].sum) * x[r].scale), with_scale);
    }
  }
};

// s (code - zero point) with a scale per 16 k.
template <Layout LAYOUT>
struct TwoScales {
  using Prepared = HalfSums;
  __m256 first;
  __m256 second;
  [[gnu::always_inline]] static __m256 load(const uint8_t* header, const uint8_t* p, size_t half) {
    __m256 d = load_halves(header + half * 16);
    if constexpr (has_table(LAYOUT)) d = _mm256_mul_ps(d, _mm256_set1_ps(kTableUnit));
    return _mm256_mul_ps(d, to_floats(_mm256_cvtepi8_epi32(load_half(p, half))));
  }
  [[gnu::always_inline]] TwoScales(const uint8_t* block, const uint8_t* p, size_t half)
      : first(load(block, p, half)), second(load(block, p + 16, half)) {}
  [[gnu::always_inline]] void prepare(__m256i (&)[8]) const {}
  template <size_t ROWS>
  [[gnu::always_inline]] void add_group(const __m256i (&codes)[8], const Q8Group (&x)[ROWS],
                                        __m256 (&sum)[ROWS]) const {
    constexpr int kMaxCode = has_table(LAYOUT) ? 127 : LAYOUT == Layout::kW6k ? 63 : 7;
    // A pair of sums times these is where the integer sum of a half starts.
    const __m256i of_first = _mm256_set1_epi32(-zero_point(LAYOUT) & 0xffff);
    const __m256i of_second = _mm256_slli_epi32(of_first, 16);
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256i pair = broadcast4(x[r].pair);
      const __m256i low = dot_unsigned<kMaxCode, 0, 4>(codes, x[r].q, _mm256_madd_epi16(pair, of_first));
      const __m256i high = dot_unsigned<kMaxCode, 4, 8>(codes, x[r].q, _mm256_madd_epi16(pair, of_second));
      const __m256 x_scale = _mm256_set1_ps(x[r].scale);
      sum[r] = _mm256_fmadd_ps(to_floats(low), _mm256_mul_ps(first, x_scale), sum[r]);
      sum[r] = _mm256_fmadd_ps(to_floats(high), _mm256_mul_ps(second, x_scale), sum[r]);
    }
  }
};

// The same, of codes that the block's own table has the values of.
template <Layout LAYOUT>
struct TableScales : TwoScales<LAYOUT> {
  __m256i table;
  [[gnu::always_inline]] TableScales(const uint8_t* block, const uint8_t* p, size_t half)
      : TwoScales<LAYOUT>(block, p, half),
        table(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + kTableOffset)))) {}
  [[gnu::always_inline]] void prepare(__m256i (&codes)[8]) const {
#pragma GCC unroll 8
    for (auto& c : codes) c = _mm256_shuffle_epi8(table, c);
  }
};

// d s code - e m with s and m per 16 k.  Codes of two bits times s of four still fit a byte, so that both halves are
// one integer sum, and one step sums both minima.
struct ScaledCodes {
  using Prepared = HalfSums;
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

  template <size_t ROWS>
  [[gnu::always_inline]] void add_group(const __m256i (&codes)[8], const Q8Group (&x)[ROWS],
                                        __m256 (&sum)[ROWS]) const {
    const __m256i m = _mm256_srli_epi16(both, 4);
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256 dot = to_floats(dot_unsigned<45>(codes, x[r].q, _mm256_setzero_si256()));
      const __m256 mins = to_floats(_mm256_madd_epi16(m, broadcast4(x[r].pair)));
      const __m256 part = _mm256_fnmadd_ps(e, mins, _mm256_mul_ps(d, dot));
      sum[r] = _mm256_fmadd_ps(part, _mm256_set1_ps(x[r].scale), sum[r]);
    }
  }
};

}  // namespace
}  // namespace quintet::avx2
