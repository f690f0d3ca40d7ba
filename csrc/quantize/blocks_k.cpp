// Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.  How their bits lie: csrc/kernels/gguf_blocks.h reads what is written here.
#include "super.h"

namespace quintet::quantize::QUINTET_LANES {
namespace {

constexpr int kQ2Bytes = 84, kQ3Bytes = 110, kQ4Bytes = 144, kQ5Bytes = 176, kQ6Bytes = 210;

// Codes of 2 bits: in each half of 128, bits 2r and 2r + 1 of byte i are of weight 32 r + i.
void put_two_bits(const uint8_t (&codes)[kSuper], uint8_t* to) {
  for (int half = 0; half < 2; ++half) {
    const uint8_t* from = codes + half * 128;
    for (int i = 0; i < 32; ++i) {
      to[half * 32 + i] = static_cast<uint8_t>((from[i] & 3) | (from[i + 32] & 3) << 2 | (from[i + 64] & 3) << 4 |
                                               (from[i + 96] & 3) << 6);
    }
  }
}

// The halves and twelve bytes of scales and minima that Q4_K and Q5_K begin with.
void put_scales_and_minima(const Block<32>& block, uint8_t* to) {
  put_half(to, block.d);
  put_half(to + 2, block.dmin);
  uint8_t* bytes = to + 4;
  for (int g = 0; g < 4; ++g) {
    const int scale = block.scale[g + 4], min = block.min[g + 4];
    bytes[g] = static_cast<uint8_t>(block.scale[g] | scale >> 4 << 6);
    bytes[g + 4] = static_cast<uint8_t>(block.min[g] | min >> 4 << 6);
    bytes[g + 8] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
  }
}

// Low nibbles of 32 bytes for an even group, high nibbles for the odd group after it.
void put_nibbles(const uint8_t (&codes)[kSuper], uint8_t* to) {
  for (int pair = 0; pair < 4; ++pair) {
    const uint8_t* from = codes + pair * 64;
    for (int i = 0; i < 32; ++i) to[pair * 32 + i] = static_cast<uint8_t>((from[i] & 15) | from[i + 32] << 4);
  }
}

void put_q2(const Block<16>& block, uint8_t* to) {
  for (int g = 0; g < 16; ++g) to[g] = static_cast<uint8_t>(block.scale[g] | block.min[g] << 4);
  put_two_bits(block.codes, to + 16);
  put_half(to + 80, block.d);
  put_half(to + 82, block.dmin);
}

void put_q3(const Block<16>& block, uint8_t* to) {
  for (int i = 0; i < 32; ++i) {
    int third = 0;
    for (int g = 0; g < 8; ++g) third |= block.codes[g * 32 + i] >> 2 << g;
    to[i] = static_cast<uint8_t>(third);
  }
  put_two_bits(block.codes, to + 32);
  uint8_t* scales = to + 96;
  std::memset(scales, 0, 12);
  for (int j = 0; j < 16; ++j) {
    const int scale = block.scale[j] + 32;
    scales[j % 8] = static_cast<uint8_t>(scales[j % 8] | (scale & 15) << j / 8 * 4);
    scales[8 + j % 4] = static_cast<uint8_t>(scales[8 + j % 4] | scale >> 4 << j / 4 * 2);
  }
  put_half(to + 108, block.d);
}

void put_q4(const Block<32>& block, uint8_t* to) {
  put_scales_and_minima(block, to);
  put_nibbles(block.codes, to + 16);
}

void put_q5(const Block<32>& block, uint8_t* to) {
  put_scales_and_minima(block, to);
  for (int i = 0; i < 32; ++i) {
    int fifth = 0;
    for (int g = 0; g < 8; ++g) fifth |= block.codes[g * 32 + i] >> 4 << g;
    to[16 + i] = static_cast<uint8_t>(fifth);
  }
  put_nibbles(block.codes, to + 48);
}

void put_q6(const Block<16>& block, uint8_t* to) {
  for (int half = 0; half < 2; ++half) {
    const uint8_t* from = block.codes + half * 128;
    for (int i = 0; i < 32; ++i) {
      to[half * 64 + i] = static_cast<uint8_t>((from[i] & 15) | from[i + 64] << 4);
      to[half * 64 + 32 + i] = static_cast<uint8_t>((from[i + 32] & 15) | from[i + 96] << 4);
      to[128 + half * 32 + i] =
          static_cast<uint8_t>(from[i] >> 4 | from[i + 32] >> 4 << 2 | from[i + 64] >> 4 << 4 | from[i + 96] >> 4 << 6);
    }
  }
  for (int g = 0; g < 16; ++g) to[192 + g] = static_cast<uint8_t>(block.scale[g]);
  put_half(to + 208, block.d);
}

template <bool kWeighted>
void encode_q4(const Run& run) {
  encode_supers<AffineSuper<32, 15, 63, kWeighted>, 32, kQ4Bytes>(run, -0.8f, 0.2f, 9, 2, put_q4);
}

template <bool kWeighted>
void encode_q5(const Run& run) {
  encode_supers<AffineSuper<32, 31, 63, kWeighted>, 32, kQ5Bytes>(run, -0.6f, 0.2f, 7, 2, put_q5);
}

template <bool kWeighted>
void encode_q6(const Run& run) {
  encode_supers<SignedSuper<WholeLevels<32>, 16, 128, kWeighted>, 16, kQ6Bytes>(run, -0.9f, 0.3f, 8, 1, put_q6);
}

}  // namespace

void q2_k(const Run& run) {
  encode_supers<AffineSuper<16, 3, 15, true>, 16, kQ2Bytes, true>(run, -0.6f, 0.15f, 9, 3, put_q2);
}
void q3_k(const Run& run) {
  encode_supers<SignedSuper<WholeLevels<4>, 16, 32, true>, 16, kQ3Bytes, true>(run, -0.9f, 0.15f, 12, 2, put_q3);
}
void q4_k(const Run& run) { run.importance == nullptr ? encode_q4<false>(run) : encode_q4<true>(run); }
void q5_k(const Run& run) { run.importance == nullptr ? encode_q5<false>(run) : encode_q5<true>(run); }
void q6_k(const Run& run) { run.importance == nullptr ? encode_q6<false>(run) : encode_q6<true>(run); }

}  // namespace quintet::quantize::QUINTET_LANES
