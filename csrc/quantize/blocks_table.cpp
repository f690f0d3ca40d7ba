// IQ4_NL, IQ4_XS, MXFP4: four-bit codes that stand for uneven values.
#include <initializer_list>

#include "super.h"

namespace quintet::quantize::QUINTET_LANES {
namespace {

constexpr int kSize = 32;

// The values of IQ4_NL and IQ4_XS (kvalues_iq4nl in ggml-common.h).
struct UnevenLevels {
  static constexpr int kLeast = -127;
  static constexpr float kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

  static constexpr float middle(int i) { return (kValues[i] + kValues[i + 1]) / 2; }

#ifdef __AVX512F__
  // Neighbouring middles are more than 8 apart, so each of the 32 bins of width 8 from -128 on holds at most one: a bin
  // has a value below and above it and the middle between, each looked up in one instruction.
  struct Bins {
    alignas(64) float middle[32], below[32], above[32];
    constexpr Bins() : middle{}, below{}, above{} {
      for (int bin = 0; bin < 32; ++bin) {
        const float start = -128.0f + 8.0f * static_cast<float>(bin);
        int i = 0;
        while (i < 14 && UnevenLevels::middle(i) < start) ++i;
        middle[bin] = UnevenLevels::middle(i);
        below[bin] = kValues[i];
        above[bin] = kValues[i + 1];
      }
    }
  };

  QUINTET_LANE_INLINE V look_up(const float (&table)[32], __m512i bin) {
    return static_cast<V>(_mm512_permutex2var_ps(_mm512_load_ps(table), bin, _mm512_load_ps(table + 16)));
  }

  QUINTET_LANE_INLINE V value(V x) {
    static constexpr Bins kBins;
    const V inside = clamp(x, -128, 127);
    const __m512i bin = _mm512_cvttps_epi32(static_cast<__m512>((inside + 128.0f) * 0.125f));
    return choose(inside >= look_up(kBins.middle, bin), look_up(kBins.above, bin), look_up(kBins.below, bin));
  }
#else
  QUINTET_LANE_INLINE V value(V x) {
    V result = splat(kValues[0]);
    for (int i = 0; i < 15; ++i) result = choose(x >= middle(i), splat(kValues[i + 1]), result);
    return result;
  }
#endif

  QUINTET_LANE_INLINE I index(V value) {
    I result{};
    for (int i = 0; i < 15; ++i) result -= value >= middle(i);
    return result;
  }
};

// Low nibbles are weights 0 .. 15.
void put_nibbles(const uint8_t* codes, uint8_t* to) {
  for (int i = 0; i < 16; ++i) to[i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
}

template <bool kWeighted>
void encode_nl(const Run& run) {
  constexpr size_t kBytes = 18;
  for (size_t first = 0; first < run.num_blocks; first += kLanes) {
    const auto tile = load<kSize, kSize>(run, first);
    SignedSearch<UnevenLevels, kSize, kWeighted> search{tile};
    const V d = through_half(search.run(-24.0f, 4.0f, 10, 2));
    const V inverse_d = inverse(d);
    I codes[kSize];
    for (int i = 0; i < kSize; ++i) codes[i] = UnevenLevels::index(UnevenLevels::value(tile.x[i] * inverse_d));
    for (int lane = 0; lane < kLanes && first + lane < run.num_blocks; ++lane) {
      uint8_t* block = run.blocks + (first + lane) * kBytes;
      uint8_t bytes[kSize];
      read_lane(codes, lane, bytes);
      put_half(block, d[lane]);
      put_nibbles(bytes, block + 2);
    }
  }
}

constexpr int kXSBytes = 136;

void put_xs(const Block<32>& block, uint8_t* to) {
  put_half(to, block.d);
  unsigned high = 0;
  for (int g = 0; g < 8; ++g) high |= static_cast<unsigned>((block.scale[g] + 32) >> 4) << 2 * g;
  const auto high16 = static_cast<uint16_t>(high);
  std::memcpy(to + 2, &high16, sizeof high16);
  for (int i = 0; i < 4; ++i) {
    to[4 + i] = static_cast<uint8_t>(((block.scale[2 * i] + 32) & 15) | ((block.scale[2 * i + 1] + 32) & 15) << 4);
  }
  for (int g = 0; g < 8; ++g) put_nibbles(block.codes + g * 32, to + 8 + g * 16);
}

template <bool kWeighted>
void encode_xs(const Run& run) {
  encode_supers<SignedSuper<UnevenLevels, kSize, 32, kWeighted>, kSize, kXSBytes>(run, -24.0f, 4.0f, 10, 2, put_xs);
}

// The numbers of E2M1, doubled: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
struct Fp4Levels {
  QUINTET_LANE_INLINE V value(V x) {
    const V size = magnitude(x);
    const V step = choose(size < 4.0f, splat(1), choose(size < 8.0f, splat(2), splat(4)));
    const V rounded = smaller(nearest(size / step) * step, splat(12));
    return choose(x < 0.0f, -rounded, rounded);
  }

  QUINTET_LANE_INLINE I index(V value) {
    const V size = magnitude(value);
    I result{};
    for (const float middle : {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f}) result -= size > middle;
    return result + ((value < 0.0f) & 8);
  }
};

template <bool kWeighted>
void encode_mxfp4(const Run& run) {
  constexpr size_t kBytes = 17;
  for (size_t first = 0; first < run.num_blocks; first += kLanes) {
    const auto tile = load<kSize, kSize>(run, first);
    V largest{};
    for (int i = 0; i < kSize; ++i) largest = larger(largest, magnitude(tile.x[i]));
    // floor(log2(largest)) is in the exponent's bits.  With the scale 2^(that - 2) the largest weight is at 8 to 16 of
    // the doubled values, that is within the longest step or up to 4 beyond 12; the scale above is tried as well.
    const I exponent = (reinterpret_cast<I>(largest) >> 23) - 127;
    I best_e{};
    V best_error = splat(3e38f);
    for (int offset = -3; offset <= -1; ++offset) {
      I e = exponent + offset + 128;  // 2^(e - 128) times the doubled values
      e = e < 2 ? I{} + 2 : e > 254 ? I{} + 254 : e;
      const V d = reinterpret_cast<V>((e - 1) << 23);
      const V inverse_d = reinterpret_cast<V>((255 - e) << 23);
      V error{};
      for (int i = 0; i < kSize; ++i) {
        const V off = tile.x[i] - d * Fp4Levels::value(tile.x[i] * inverse_d);
        error += weigh<kWeighted>(tile, i, off * off);
      }
      const I better = error < best_error;
      best_error = choose(better, error, best_error);
      best_e = better ? e : best_e;
    }
    const V inverse_d = reinterpret_cast<V>((255 - best_e) << 23);
    I codes[kSize];
    for (int i = 0; i < kSize; ++i) codes[i] = Fp4Levels::index(Fp4Levels::value(tile.x[i] * inverse_d));
    for (int lane = 0; lane < kLanes && first + lane < run.num_blocks; ++lane) {
      uint8_t* block = run.blocks + (first + lane) * kBytes;
      uint8_t bytes[kSize];
      read_lane(codes, lane, bytes);
      block[0] = largest[lane] == 0 ? 0 : static_cast<uint8_t>(best_e[lane]);
      put_nibbles(bytes, block + 1);
    }
  }
}

}  // namespace

void iq4_nl(const Run& run) { run.importance == nullptr ? encode_nl<false>(run) : encode_nl<true>(run); }
void iq4_xs(const Run& run) { run.importance == nullptr ? encode_xs<false>(run) : encode_xs<true>(run); }
void mxfp4(const Run& run) { run.importance == nullptr ? encode_mxfp4<false>(run) : encode_mxfp4<true>(run); }

}  // namespace quintet::quantize::QUINTET_LANES
