// Steps of many rows that need no multiplication of scales.
//
// A scale of a q8 group is m 2^e with m in 1, 9/8 .. 15/8 (make_rows of kernels.h), so fma(dot, s m 2^e, sum) has the
// bits of fma(2^e dot, s m, sum): each product is exact.  There are eight s m for all rows to choose from, and an
// integer sum that starts at the bits of 1.5 * 2^(23 + e) is, as a float, that number + 2^e dot while |dot| < 2^22.
// What is left for the units of the dot product is one FMA: 9 instructions of a row and group rather than 10.
#pragma once

#include "codes.h"

namespace quintet::avx512 {
namespace {

constexpr int kMantissas = 8;

// s m of one panel and group, for each m.
struct alignas(64) ScaleTable {
  float of[kMantissas][kPanelColumns];

  // By additions, which other units do: s has so few bits that they are exact.
  [[gnu::always_inline]] void fill(__m512 s) {
    const __m512 eighth = _mm512_mul_ps(s, _mm512_set1_ps(0.125f));
    const __m512 quarter = _mm512_add_ps(eighth, eighth);
    const __m512 half = _mm512_add_ps(quarter, quarter);
    __m512 m[kMantissas] = {s};
    m[1] = _mm512_add_ps(s, eighth);
    m[2] = _mm512_add_ps(s, quarter);
    m[3] = _mm512_add_ps(m[1], quarter);
#pragma GCC unroll 4
    for (int i = 4; i < kMantissas; ++i) m[i] = _mm512_add_ps(m[i - 4], half);
#pragma GCC unroll 8
    for (int i = 0; i < kMantissas; ++i) _mm512_store_ps(of[i], m[i]);
  }

  [[gnu::always_inline]] __m512 at(int32_t offset) const {
    return _mm512_load_ps(reinterpret_cast<const float*>(reinterpret_cast<const char*>(of) + offset));
  }
};

// Of each row and group of a tile.  SECOND: with a second sum, of the group's other half.
template <int ZERO_POINT, bool SECOND>
struct Steps {
  static constexpr size_t kCapacity = 6144;
  // A line more, or all rows would share one set of the cache.
  static size_t stride_of(size_t groups) { return (groups + 15) / 16 * 16 + 16; }
  static int max_rows(size_t width, int most) {
    const size_t fit = kCapacity / stride_of(width / kGroup) / 2 * 2;
    return fit < 8 || fit > static_cast<size_t>(most) ? most : static_cast<int>(fit);
  }

  bool exact = false;  // where all that stands above holds
  size_t stride = 0;
  alignas(64) int32_t start[kCapacity];  // of the integer sum
  alignas(64) int32_t second_start[SECOND ? kCapacity : 16];
  alignas(64) float base[kCapacity];                          // what to subtract
  alignas(64) int32_t offset[kCapacity];                      // of s m in ScaleTable
  alignas(64) float x_sum[ZERO_POINT == 0 ? kCapacity : 16];  // of the group's activations, for minima

  // first_sums(row, group): sums of the first halves of 16 groups.
  template <typename FirstSums>
  void fill(const Rows& x, int row, int rows, const FirstSums& first_sums) {
    const size_t groups = static_cast<size_t>(x.width) / kGroup;
    stride = stride_of(groups);
    exact = stride * static_cast<size_t>(rows) <= kCapacity;
    const __m512i exponent_bits = _mm512_set1_epi32(0x7f800000);
    const __m512i smallest = _mm512_set1_epi32(0x3f800000 - (80 << 23));  // so that s m 2^e is a normal float
    const __m512i range = _mm512_set1_epi32(180 << 23);
    for (size_t r = 0; exact && r < static_cast<size_t>(rows); ++r) {
      const size_t from = (static_cast<size_t>(row) + r) * groups;
      __mmask16 other = 0;
      for (size_t g = 0; g < groups; g += 16) {
        const auto some = static_cast<__mmask16>(groups - g < 16 ? (1u << (groups - g)) - 1 : 0xffffu);
        const __m512i bits = _mm512_maskz_loadu_epi32(some, x.q8_scale + from + g);
        const __m512i sum = _mm512_maskz_loadu_epi32(some, x.q8_sum + from + g);
        const __m512i exponent = _mm512_and_si512(bits, exponent_bits);
        const __mmask16 not_zero = _mm512_test_epi32_mask(bits, bits);
        other |= _mm512_test_epi32_mask(bits, _mm512_set1_epi32(static_cast<int>(0x800fffffu)));
        other |= _mm512_mask_cmpgt_epu32_mask(not_zero, _mm512_sub_epi32(exponent, smallest), range);
        const __m512i base_bits = _mm512_add_epi32(exponent, _mm512_set1_epi32(0x4b400000 - 0x3f800000));
        const size_t at = r * stride + g;
        if constexpr (SECOND) {
          const __m512i first = first_sums(r, g);
          store(start, at, base_bits, first);
          store(second_start, at, base_bits, _mm512_sub_epi32(sum, first));
        } else {
          store(start, at, base_bits, sum);
        }
        _mm512_store_ps(base + at, _mm512_castsi512_ps(base_bits));
        if constexpr (ZERO_POINT == 0) {
          _mm512_store_ps(x_sum + at, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_castsi512_ps(bits)));
        }
        const __m512i m = _mm512_and_si512(_mm512_srli_epi32(bits, 20), _mm512_set1_epi32(kMantissas - 1));
        _mm512_store_si512(offset + at, _mm512_slli_epi32(m, 6));
      }
      exact = other == 0;
    }
  }

  // 2^e times an integer sum.
  [[gnu::always_inline]] __m512 scaled(__m512i sum, size_t at) const {
    return _mm512_sub_ps(_mm512_castsi512_ps(sum), _mm512_set1_ps(base[at]));
  }

 private:
  static void store(int32_t* starts, size_t at, __m512i base_bits, __m512i sum) {
    const __m512i above = _mm512_mullo_epi32(sum, _mm512_set1_epi32(ZERO_POINT));
    _mm512_store_si512(starts + at, _mm512_sub_epi32(base_bits, above));
  }
};

}  // namespace
}  // namespace quintet::avx512
