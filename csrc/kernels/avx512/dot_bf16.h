// Attention's dot products of bf16.
#pragma once

#include <cstring>

#include "lanes.h"

namespace quintet::avx512 {
namespace {

// 6 x 4 accumulators, 4 operands and a scalar are 29 of 32 registers; with one or two rows (decode) more vectors
// give as many independent chains as there is latency to hide.
constexpr int kRegisterRows = 6;
constexpr int vectors_for(int rows) { return rows <= 2 ? 8 : 4; }

struct DotBF16 {
  using Lanes = avx512::Lanes;
  using Element = uint16_t;
  using Operand = __m512i;
  using Scalar = __m512i;
  static constexpr int kStep = 2;
  static constexpr bool kQuantized = false;
  static constexpr int kMaxRows = kRegisterRows;
  static constexpr int max_vectors(int rows) { return vectors_for(rows); }

  QUINTET_INLINE Operand load(const std::byte* p) { return _mm512_loadu_si512(p); }
  QUINTET_INLINE Operand load_first(const std::byte* p, int n) { return _mm512_maskz_loadu_epi32(Lanes::first(n), p); }
  QUINTET_INLINE Scalar broadcast(const uint16_t* p) {
    int pair;
    std::memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
  }
  QUINTET_INLINE Lanes::F multiply_add(Scalar a, Operand b, Lanes::F acc) {
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
  }
  QUINTET_INLINE Lanes::F multiply_add_first(Scalar a, Operand b, Lanes::F acc) {
    return multiply_add(a, _mm512_and_si512(b, _mm512_set1_epi32(0xffff)), acc);
  }
  QUINTET_INLINE Lanes::F store(uint16_t* p, Lanes::F x) {
    const __m256i rounded = Lanes::to_bf16(x);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
  }
};

}  // namespace
}  // namespace quintet::avx512
