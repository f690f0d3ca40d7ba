// The exponential of the definition; see ../exp.h for the method.
#pragma once

#include <cmath>
#include <limits>

#include "../exp.h"
#include "../half.h"

namespace quintet::reference {

static inline float exp(float x) {
  using namespace exp_constants;
  if (x != x) return x;
  if (x < kLowest) return 0.0f;
  if (x > kHighest) return std::numeric_limits<float>::infinity();
  const float shifted = std::fma(x, kLog2E, kRound);
  const float n = shifted - kRound;
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float y = kC6;
  for (const float coefficient : {kC5, kC4, kC3, kC2, 1.0f, 1.0f}) y = std::fma(y, r, coefficient);
  return float_from_bits(float_bits(y) + (float_bits(shifted) << 23));  // y * 2^n
}

}  // namespace quintet::reference
