// The constants of gelu(x) = x * Phi(x), for reference/rowwise.cpp and lanes/rowwise.h.
//
// With z = |x| / sqrt(2), Phi(-|x|) = erfc(z) / 2 and erfc(z) = t * (a1 + t * (a2 + ... )) * exp(-z^2),
// t = 1 / (1 + p * z), within 1.5e-7.  gelu(x) = max(x, 0) - |x| * Phi(-|x|), so that negative values lose nothing to
// cancellation.  Source: Abramowitz and Stegun 1964, Handbook of Mathematical Functions, 7.1.26.
#pragma once

namespace quintet::gelu_constants {

// Of gelu_tanh, x / (1 + exp(-x * (kLinear + kCubic * x^2))): 2 sqrt(2 / pi), and that times 0.044715.
inline constexpr float kLinear = 1.5957691f;
inline constexpr float kCubic = 0.071354814f;

inline constexpr float kHalfRoot = 0.70710678f;  // 1 / sqrt(2)
inline constexpr float kP = 0.3275911f;
inline constexpr float kA1 = 0.254829592f;
inline constexpr float kA2 = -0.284496736f;
inline constexpr float kA3 = 1.421413741f;
inline constexpr float kA4 = -1.453152027f;
inline constexpr float kA5 = 1.061405429f;

}  // namespace quintet::gelu_constants
