// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: blocks of 32 weights with a half of scale, or two of scale and minimum.
#include "encoders.h"
#include "search.h"

namespace quintet::quantize::QUINTET_LANES {
namespace {

constexpr int kSize = 32;

// Low nibbles are weights 0 .. 15; bit i of the word before them is the fifth bit of weight i.
template <int kBits>
uint8_t* put_codes(const uint8_t (&codes)[kSize], uint8_t* to) {
  if constexpr (kBits == 5) {
    uint32_t fifth = 0;
    for (int i = 0; i < kSize; ++i) fifth |= static_cast<uint32_t>(codes[i] >> 4) << i;
    std::memcpy(to, &fifth, sizeof fifth);
    to += 4;
  }
  for (int i = 0; i < 16; ++i) to[i] = static_cast<uint8_t>((codes[i] & 15) | codes[i + 16] << 4);
  return to + 16;
}

template <int kBits, bool kWeighted>
void symmetric(const Run& run) {
  constexpr int kMax = 1 << (kBits - 1);
  constexpr size_t kBytes = 2 + (kBits == 5 ? 4 : 0) + 16;
  for (size_t first = 0; first < run.num_blocks; first += kLanes) {
    const auto tile = load<kSize, kSize>(run, first);
    SignedSearch<WholeLevels<kMax>, kSize, kWeighted> search{tile};
    const V d = through_half(search.run(-1.6f, 0.2f, 14, 2));
    const V inverse_d = inverse(d);
    I codes[kSize];
    for (int i = 0; i < kSize; ++i) {
      codes[i] = WholeLevels<kMax>::index(WholeLevels<kMax>::value(tile.x[i] * inverse_d));
    }
    for (int lane = 0; lane < kLanes && first + lane < run.num_blocks; ++lane) {
      uint8_t* block = run.blocks + (first + lane) * kBytes;
      uint8_t bytes[kSize];
      read_lane(codes, lane, bytes);
      put_half(block, d[lane]);
      put_codes<kBits>(bytes, block + 2);
    }
  }
}

template <int kBits, bool kWeighted>
void affine(const Run& run) {
  constexpr int kMax = (1 << kBits) - 1;
  constexpr size_t kBytes = 4 + (kBits == 5 ? 4 : 0) + 16;
  for (size_t first = 0; first < run.num_blocks; first += kLanes) {
    const auto tile = load<kSize, kSize>(run, first);
    AffineSearch<kSize, kMax, kWeighted, false> search{tile};
    const ScaleAndMin found = search.run(-0.6f, 0.2f, 9, 2);
    const V d = through_half(found.d), m = through_half(found.m);
    const V inverse_d = inverse(d);
    I codes[kSize];
    for (int i = 0; i < kSize; ++i) codes[i] = whole(search.code(tile.x[i], m, inverse_d));
    for (int lane = 0; lane < kLanes && first + lane < run.num_blocks; ++lane) {
      uint8_t* block = run.blocks + (first + lane) * kBytes;
      uint8_t bytes[kSize];
      read_lane(codes, lane, bytes);
      put_half(block, d[lane]);
      put_half(block + 2, m[lane]);
      put_codes<kBits>(bytes, block + 4);
    }
  }
}

}  // namespace

void q4_0(const Run& run) { run.importance == nullptr ? symmetric<4, false>(run) : symmetric<4, true>(run); }
void q5_0(const Run& run) { run.importance == nullptr ? symmetric<5, false>(run) : symmetric<5, true>(run); }
void q4_1(const Run& run) { run.importance == nullptr ? affine<4, false>(run) : affine<4, true>(run); }
void q5_1(const Run& run) { run.importance == nullptr ? affine<5, false>(run) : affine<5, true>(run); }

// No search: with 255 steps to the range it would gain less than the rounding of d to a half costs.  Rounds half away
// from zero and so gives the bits of ggml's quantize_row_q8_0_ref.
void q8_0(const Run& run) {
  constexpr size_t kBytes = 34;
  for (size_t b = 0; b < run.num_blocks; ++b) {
    const float* x = run.values + b * kSize;
    uint8_t* block = run.blocks + b * kBytes;
    // By their bits, which are ordered as the numbers are: a maximum of integers is one the compiler can vectorise.
    int32_t largest = 0;
    for (int i = 0; i < kSize; ++i) {
      const auto size = static_cast<int32_t>(float_bits(x[i]) & 0x7fffffffu);
      largest = size > largest ? size : largest;
    }
    const float d = float_from_bits(static_cast<uint32_t>(largest)) / 127;
    const float inverse_d = d > 0x1p-126f ? 1 / d : 0;
    put_half(block, d);
    int8_t codes[kSize];
    for (int i = 0; i < kSize; ++i) {
      const float scaled = x[i] * inverse_d;
      // Not trunc(scaled + 0.5): that addition rounds up what is just below a half.
      const float size = scaled < 0 ? -scaled : scaled;
      const int lower = static_cast<int>(size);
      const int rounded = lower + (size - static_cast<float>(lower) >= 0.5f ? 1 : 0);
      codes[i] = static_cast<int8_t>(scaled < 0 ? -rounded : rounded);  // at most 127 by the choice of d
    }
    std::memcpy(block + 2, codes, kSize);
  }
}

}  // namespace quintet::quantize::QUINTET_LANES
