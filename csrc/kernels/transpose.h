// Rows of words to columns of words, for packing floats: what lies k by k in a row goes 16 columns apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "layouts.h"

namespace quintet {

// Four words, or the eight halves of them; GCC and Clang make the machine's own vectors of both.
using Words = uint32_t __attribute__((vector_size(16)));
using Halves = uint16_t __attribute__((vector_size(16)));

template <typename Vector>
static inline Vector load_vector(const uint8_t* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Word i of four rows for each of four i: out[i] is one vector of the four.
static inline void transpose_words(const uint8_t* rows, size_t row_bytes, Words (&out)[4]) {
  Words in[4];
  for (size_t r = 0; r < 4; ++r) in[r] = load_vector<Words>(rows + r * row_bytes);
  const Words low_01 = __builtin_shufflevector(in[0], in[1], 0, 4, 1, 5);
  const Words low_23 = __builtin_shufflevector(in[2], in[3], 0, 4, 1, 5);
  const Words high_01 = __builtin_shufflevector(in[0], in[1], 2, 6, 3, 7);
  const Words high_23 = __builtin_shufflevector(in[2], in[3], 2, 6, 3, 7);
  out[0] = __builtin_shufflevector(low_01, low_23, 0, 1, 4, 5);
  out[1] = __builtin_shufflevector(low_01, low_23, 2, 3, 6, 7);
  out[2] = __builtin_shufflevector(high_01, high_23, 0, 1, 4, 5);
  out[3] = __builtin_shufflevector(high_01, high_23, 2, 3, 6, 7);
}

// 16 rows of words into [word][16]; num_words is a multiple of 4.
static inline void interleave_words(const uint8_t* rows, size_t row_bytes, size_t num_words, uint8_t* packed) {
  for (size_t i = 0; i < num_words; i += 4) {
    uint8_t* to = packed + i * kPanelColumns * 4;
    for (size_t column = 0; column < kPanelColumns; column += 4) {
      Words words[4];
      transpose_words(rows + column * row_bytes + i * 4, row_bytes, words);
      for (size_t j = 0; j < 4; ++j) std::memcpy(to + j * kPanelColumns * 4 + column * 4, &words[j], 16);
    }
  }
}

// 16 rows of halves into [half][16]; num_halves is a multiple of 8.
static inline void interleave_halves(const uint8_t* rows, size_t row_bytes, size_t num_halves, uint8_t* packed) {
  for (size_t i = 0; i < num_halves; i += 8) {
    uint8_t* to = packed + i * kPanelColumns * 2;
    for (size_t column = 0; column < kPanelColumns; column += 8) {
      Words left[4], right[4];  // a word is two halves, one for each of two rows of the result
      transpose_words(rows + column * row_bytes + i * 2, row_bytes, left);
      transpose_words(rows + (column + 4) * row_bytes + i * 2, row_bytes, right);
      for (size_t j = 0; j < 4; ++j) {
        const auto a = (Halves)left[j];  // the same bits
        const auto b = (Halves)right[j];
        const Halves even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
        const Halves odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
        uint8_t* row = to + j * 2 * kPanelColumns * 2 + column * 2;
        std::memcpy(row, &even, sizeof even);
        std::memcpy(row + kPanelColumns * 2, &odd, sizeof odd);
      }
    }
  }
}

}  // namespace quintet
