// Walking a row of floats sixteen at a time, the last step with what is left.
#pragma once

namespace quintet::lanes {

// Calls step(i, n) for each run of n <= 16 elements from i on; n = 16 in all but the last.
template <class Step>
[[gnu::always_inline]] inline void for_each_sixteen(int width, const Step& step) {
  int i = 0;
  for (; i + 16 <= width; i += 16) step(i, 16);
  if (i < width) step(i, width - i);
}

template <class Lanes>
[[gnu::always_inline]] inline typename Lanes::F load(const float* p, int n) {
  return n == 16 ? Lanes::load(p) : Lanes::load_first(p, n);
}

template <class Lanes>
[[gnu::always_inline]] inline void store(float* p, typename Lanes::F x, int n) {
  if (n == 16) {
    Lanes::store(p, x);
  } else {
    Lanes::store_first(p, x, n);
  }
}

}  // namespace quintet::lanes
