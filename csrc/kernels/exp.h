// The constants of our one float32 exponential.  reference/exp.h and lanes/exp.h evaluate the same operations in the
// same order, so that softmax and silu have the same bits under every instruction set.
//
// exp(x) = 2^n * exp(r) with n = round(x * log2(e)) and r = x - n * ln(2), |r| <= 0.347.  ln(2) is split so that
// n * kLn2High is exact.  exp(r) = 1 + r + r^2 * q(r); q is the minimax polynomial of the relative error (Remez
// exchange), 3.1e-9 before rounding.  The result is within 1 ulp of the true value.
#pragma once

namespace quintet::exp_constants {

inline constexpr float kLog2E = 0x1.715476p+0f;
inline constexpr float kLn2High = 0x1.63p-1f;
inline constexpr float kLn2Low = -0x1.bd0106p-13f;

// Added to a small number, leaves it rounded to an integer in the low bits of the sum.
inline constexpr float kRound = 0x1.8p+23f;

inline constexpr float kC2 = 0x1.fffffcp-2f;
inline constexpr float kC3 = 0x1.555492p-3f;
inline constexpr float kC4 = 0x1.5558f2p-5f;
inline constexpr float kC5 = 0x1.123a2p-7f;
inline constexpr float kC6 = 0x1.6a23dp-10f;

inline constexpr float kLowest = -87.3f;           // below: 0, so that no result is subnormal
inline constexpr float kHighest = 0x1.62e42ep+6f;  // above: infinity; the last float under 128 * ln(2)

}  // namespace quintet::exp_constants
