// The exponential over lanes; see ../exp.h for the method and reference/exp.h for the same operations in scalar form.
#pragma once

#include <limits>

#include "../exp.h"

namespace quintet::lanes {

template <class Lanes>
[[gnu::always_inline]] inline typename Lanes::F exp(typename Lanes::F x) {
  using namespace exp_constants;
  using F = typename Lanes::F;
  const F round = Lanes::set1(kRound);
  const F shifted = Lanes::fma(x, Lanes::set1(kLog2E), round);
  const F n = Lanes::sub(shifted, round);
  const F r = Lanes::fma(n, Lanes::set1(-kLn2Low), Lanes::fma(n, Lanes::set1(-kLn2High), x));
  F y = Lanes::set1(kC6);
  y = Lanes::fma(y, r, Lanes::set1(kC5));
  y = Lanes::fma(y, r, Lanes::set1(kC4));
  y = Lanes::fma(y, r, Lanes::set1(kC3));
  y = Lanes::fma(y, r, Lanes::set1(kC2));
  y = Lanes::fma(y, r, Lanes::set1(1.0f));
  y = Lanes::fma(y, r, Lanes::set1(1.0f));
  y = Lanes::scale_by_power(y, shifted, round);
  y = Lanes::select(Lanes::less(x, Lanes::set1(kLowest)), Lanes::zero(), y);
  const F infinity = Lanes::set1(std::numeric_limits<float>::infinity());
  return Lanes::select(Lanes::less(Lanes::set1(kHighest), x), infinity, y);
}

}  // namespace quintet::lanes
