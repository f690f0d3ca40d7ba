// Codes of a group: unpacking and dot products for AVX2, which has no dot product: VPMADDUBSW takes unsigned times
// signed bytes and saturates the sum of two products at 16 bits, VPMADDWD adds those in pairs to 32.  Nothing here
// saturates.
#pragma once

#include "tiles.h"

namespace quintet::avx2 {
namespace {

// Half a panel's codes of a group, unpacked to eight registers of bytes: unit j for k = 4j .. 4j+3.
template <Layout LAYOUT>
[[gnu::always_inline]] inline void unpack(const uint8_t* group, size_t half, __m256i (&codes)[8]) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  const uint8_t* p = group + half * 32;
  if constexpr (kLayout.code_bytes == 512) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = load_bytes(p + j * 64);
  } else if constexpr (kLayout.code_bytes == 256) {
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i both = load_bytes(p + j * 64);
      codes[j] = _mm256_and_si256(both, low);
      codes[j + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    }
  } else {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      codes[j] = _mm256_and_si256(_mm256_srli_epi16(load_bytes(p + j / 4 * 64), j % 4 * 2), _mm256_set1_epi8(3));
    }
  }
  // Shifts move whole 16-bit lanes; the mask drops what came from the neighbouring byte.
  if constexpr (kLayout.bit_bytes == 64) {
    constexpr int kTo = kLayout.code_bits();
    const __m256i bits = load_bytes(p + kLayout.code_bytes);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m256i moved = j < kTo ? _mm256_slli_epi16(bits, kTo - j) : _mm256_srli_epi16(bits, j - kTo);
      codes[j] = _mm256_or_si256(codes[j], _mm256_and_si256(moved, _mm256_set1_epi8(1 << kTo)));
    }
  }
  if constexpr (kLayout.bit_bytes == 128) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m256i bits = load_bytes(p + kLayout.code_bytes + j / 4 * 64);
      const int from = j % 4 * 2;
      const __m256i moved = from < 4 ? _mm256_slli_epi16(bits, 4 - from) : _mm256_srli_epi16(bits, from - 4);
      codes[j] = _mm256_or_si256(codes[j], _mm256_and_si256(moved, _mm256_set1_epi8(48)));
    }
  }
}

// sum + exact dot products of units BEGIN .. END - 1 of unsigned codes with one row.  Two products of a code c and 127
// are 254 c: eight such sums of 15 are 30480, four of 31 are 31496, two of 63 are 32004.
template <int MAX_CODE, int BEGIN = 0, int END = 8>
[[gnu::always_inline]] inline __m256i dot_unsigned(const __m256i (&codes)[8], const int8_t* q, __m256i sum) {
  constexpr int kAtMost = MAX_CODE <= 15 ? 8 : MAX_CODE <= 31 ? 4 : MAX_CODE <= 63 ? 2 : 1;
  constexpr int kTerms = kAtMost < END - BEGIN ? kAtMost : END - BEGIN;
  static_assert(2 * MAX_CODE * 127 * kTerms <= 32767);
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (int begin = BEGIN; begin < END; begin += kTerms) {
    __m256i sum16 = _mm256_maddubs_epi16(codes[begin], broadcast4(q + begin * 4));
#pragma GCC unroll 8
    for (int j = begin + 1; j < begin + kTerms; ++j) {
      sum16 = _mm256_add_epi16(sum16, _mm256_maddubs_epi16(codes[j], broadcast4(q + j * 4)));
    }
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(sum16, ones));
  }
  return sum;
}

}  // namespace
}  // namespace quintet::avx2
