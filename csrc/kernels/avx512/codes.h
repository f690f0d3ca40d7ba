// Codes of a group: unpacking, looking up, dot products.
#pragma once

#include "tiles.h"

namespace quintet::avx512 {
namespace {

// sum[lane] += dot(codes[4 * lane ..], x[0 .. 3]), exact.  gcc 12 would load x into a register of its own first: half
// as many instructions again.  Sanitizers cannot see into the assembly, so they get the intrinsic.
[[gnu::always_inline]] inline __m512i dot4(__m512i sum, __m512i codes, const int8_t* x) {
#ifdef __SANITIZE_ADDRESS__
  return _mm512_dpbusd_epi32(sum, codes, broadcast4(x));
#else
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(*reinterpret_cast<const char (*)[4]>(x)));
  return sum;
#endif
}

// A load of its own: loads are scarce, and the compiler would repeat one as the operand of each shift.
[[gnu::always_inline]] inline __m512i load_once(const uint8_t* p) {
  __m512i value = _mm512_loadu_si512(p);
  __asm__("" : "+v"(value));
  return value;
}

// Codes of a group, unpacked to eight registers of unsigned bytes: unit j for k = 4j .. 4j+3.
template <Layout LAYOUT>
[[gnu::always_inline]] inline void unpack(const uint8_t* group, __m512i (&codes)[8]) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  if constexpr (kLayout.code_bytes == 512) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm512_loadu_si512(group + j * 64);
  } else if constexpr (kLayout.code_bytes == 256) {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i both = load_once(group + j * 64);
      codes[j] = _mm512_and_si512(both, low);
      codes[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
  } else {
    const __m512i fours[2] = {load_once(group), load_once(group + 64)};
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      codes[j] = _mm512_and_si512(_mm512_srli_epi16(fours[j / 4], j % 4 * 2), _mm512_set1_epi8(3));
    }
  }
  // Shifts move whole 16-bit lanes; the mask drops what came from the neighbouring byte.  0xf8: a | (b & c).
  if constexpr (kLayout.bit_bytes == 64) {
    constexpr unsigned kTo = kLayout.code_bits();
    const __m512i mask = _mm512_set1_epi8(1 << kTo);
    const __m512i bits = load_once(group + kLayout.code_bytes);
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      const __m512i moved = j < kTo ? _mm512_slli_epi16(bits, kTo - j) : _mm512_srli_epi16(bits, j - kTo);
      codes[j] = _mm512_ternarylogic_epi32(codes[j], moved, mask, 0xf8);
    }
  }
  if constexpr (kLayout.bit_bytes == 128) {
    const __m512i mask = _mm512_set1_epi8(48);
    const __m512i both[2] = {load_once(group + kLayout.code_bytes), load_once(group + kLayout.code_bytes + 64)};
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      const __m512i bits = both[j / 4];
      const unsigned from = j % 4 * 2;
      const __m512i moved = from < 4 ? _mm512_slli_epi16(bits, 4 - from) : _mm512_srli_epi16(bits, from - 4);
      codes[j] = _mm512_ternarylogic_epi32(codes[j], moved, mask, 0xf8);
    }
  }
}

// Codes that are looked up become what they stand for, above the zero point.
template <Layout LAYOUT>
[[gnu::always_inline]] inline void look_up(__m512i (&codes)[8]) {
  constexpr const int8_t* kValues = code_values(LAYOUT);
  if constexpr (has_code_values(LAYOUT)) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kValues));
    const __m128i above = _mm_add_epi8(values, _mm_set1_epi8(static_cast<char>(zero_point(LAYOUT))));
    const __m512i table = _mm512_broadcast_i32x4(above);
#pragma GCC unroll 8
    for (auto& c : codes) c = _mm512_shuffle_epi8(table, c);
  }
}

}  // namespace
}  // namespace quintet::avx512
