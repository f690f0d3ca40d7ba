// What int8 adds to attention: a query and the weights of values as 16-bit integers, so that all sums are of integers.
//
// The Dot of int8 (see attention_tiles.h) takes four k per step, and has instead of multiply_add_first:
//   to_float                     its integer sums, which are in float lanes in between, as floats
//   store                        rounds to integers, in the order in which broadcast wants the four of a step
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "../half.h"
#include "../kernels.h"
#include "../kv_block.h"
#include "attention_tiles.h"
#include "exp.h"
#include "sixteen.h"

namespace quintet::lanes {

inline constexpr float kLargestInt16 = 32767.0f;

// Rounds a head of q; returns its scale.
template <class Dot>
float quantize_query(const float* q, int head_dim, int16_t* out) {
  using Lanes = typename Dot::Lanes;
  uint32_t bits = 0;
  for_each_sixteen(head_dim, [&](int d, int n) {
    const uint32_t magnitude = Lanes::largest_magnitude(load<Lanes>(q + d, n), Lanes::zero());
    bits = bits < magnitude ? magnitude : bits;
  });
  const float largest = float_from_bits(bits);
  const bool is_finite = bits < 0x7f800000u;
  const bool is_zero = !is_finite || largest < kSmallestGroup;
  const auto inverse = Lanes::set1(kLargestInt16 / largest);
  for_each_sixteen(head_dim, [&](int d, int n) {
    Dot::store(out + d, is_zero ? Lanes::zero() : Lanes::mul(load<Lanes>(q + d, n), inverse));
  });
  if (!is_finite) return std::numeric_limits<float>::quiet_NaN();
  return is_zero ? 0.0f : largest / kLargestInt16;
}

// Turns the scores of the n tokens a row sees into integers of p times their v's scale, zero up to a multiple of 16.
template <class Dot>
void softmax_row_int8(float* scores, int n, const std::byte* const* v_blocks, int head_dim, float& largest, float& sum,
                      float& weight_scale) {
  using Lanes = typename Dot::Lanes;
  const auto maxima_of = [&](auto maxima, int i, int count) {
    const auto score = Lanes::load(scores + i);
    if (count == 16) return Lanes::max(score, maxima);
    return Lanes::max(Lanes::select(Lanes::first(count), score, Lanes::set1(kMinusInfinity)), maxima);
  };
  auto maxima = Lanes::set1(kMinusInfinity);
  for_each_sixteen(n, [&](int i, int count) { maxima = maxima_of(maxima, i, count); });
  largest = Lanes::largest(maxima);
  const auto base = Lanes::set1(largest == kMinusInfinity ? 0.0f : largest);
  auto sums = Lanes::zero();
  auto weight_sums = Lanes::zero();  // NaN if a weight is
  auto weight_maxima = Lanes::zero();
  for_each_sixteen(n, [&](int i, int count) {
    const auto* scales = reinterpret_cast<const float*>(v_blocks[i / kBlockTokens] + kv_scale_offset(head_dim));
    auto p = exp<Lanes>(Lanes::sub(Lanes::load(scores + i), base));
    auto weight = Lanes::mul(p, Lanes::load(scales));
    if (count < 16) {
      p = Lanes::select(Lanes::first(count), p, Lanes::zero());
      weight = Lanes::select(Lanes::first(count), weight, Lanes::zero());
    }
    sums = Lanes::add(sums, p);
    weight_sums = Lanes::add(weight_sums, weight);
    weight_maxima = Lanes::max(weight, weight_maxima);
    Lanes::store(scores + i, weight);
  });
  sum = Lanes::sum(sums);
  const float largest_weight = Lanes::largest(weight_maxima);
  const bool is_zero = largest_weight < kSmallestGroup;
  const auto inverse = Lanes::set1(is_zero ? 0.0f : kLargestInt16 / largest_weight);
  auto* weights = reinterpret_cast<int16_t*>(scores);
  for_each_sixteen(n, [&](int i, int) { Dot::store(weights + i, Lanes::mul(Lanes::load(scores + i), inverse)); });
  weight_scale = is_zero ? 0.0f : largest_weight / kLargestInt16;
  if (std::isnan(Lanes::sum(weight_sums))) weight_scale = std::numeric_limits<float>::quiet_NaN();
}

}  // namespace quintet::lanes
