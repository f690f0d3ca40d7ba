// The search for scales and minima, sixteen groups at a time; encode.h has the method.
#pragma once

#include "lanes.h"

namespace quintet::quantize::QUINTET_LANES {

struct ScaleAndMin {
  V d, m;
};

// The importance of weight i: 1 unless the search is weighted.
template <bool kWeighted, int kSize>
QUINTET_LANE_INLINE V weigh(const Tile<kSize>& tile, int i, V value) {
  if constexpr (kWeighted) return tile.w[i] * value;
  return value;
}

// x ~ d q + m with q in 0 .. kMax.  With kMinBelow, m <= 0 and so is the smallest value that codes stand for.
template <int kSize, int kMax, bool kWeighted, bool kMinBelow>
struct AffineSearch {
  const Tile<kSize>& tile;
  V sum_w{}, sum_wx{};
  V best_error{};
  ScaleAndMin best{};

  QUINTET_LANE_INLINE V code(V x, V m, V inverse_d) { return clamp(nearest((x - m) * inverse_d), 0, kMax); }

  // The least-squares d and m of the codes that (m, inverse_d) give; kept where better than the best so far.
  inline __attribute__((always_inline)) void attempt(V m, V inverse_d) {
    V wq{}, wqq{}, wqx{};
    for (int i = 0; i < kSize; ++i) {
      const V x = tile.x[i];
      const V q = code(x, m, inverse_d);
      const V weighed = weigh<kWeighted>(tile, i, q);
      wq += weighed;
      wqq += weighed * q;
      wqx += weighed * x;
    }
    const V determinant = sum_w * wqq - wq * wq;
    const V over = inverse(determinant);
    V d = (sum_w * wqx - sum_wx * wq) * over;
    V low = (wqq * sum_wx - wq * wqx) * over;
    // Not if all codes are the same, which leaves nothing but rounding errors of the determinant.
    I solved = determinant > 2e-6f * sum_w * wqq;
    if constexpr (kMinBelow) {
      const I without_min = (low > 0.0f) | ~solved;
      d = choose(without_min, wqx * inverse(wqq), d);
      low = choose(without_min, V{}, low);
      solved |= wqq > 0.0f;
    }
    // Less the constant sum w x^2.
    const V error = d * (d * wqq - 2.0f * wqx + 2.0f * low * wq) + low * (low * sum_w - 2.0f * sum_wx);
    const I better = solved & (d > 0.0f) & (error < best_error);
    best_error = choose(better, error, best_error);
    best.d = choose(better, d, best.d);
    best.m = choose(better, low, best.m);
  }

  // `count` starting scales, kMax + first + i * step steps to the range, then `rounds` of Lloyd's algorithm.
  inline __attribute__((always_inline)) ScaleAndMin run(float first, float step, int count, int rounds) {
    V low = tile.x[0], high = tile.x[0];
    for (int i = 0; i < kSize; ++i) {
      low = smaller(low, tile.x[i]);
      high = larger(high, tile.x[i]);
      sum_w += weigh<kWeighted>(tile, i, splat(1));
      sum_wx += weigh<kWeighted>(tile, i, tile.x[i]);
    }
    if constexpr (kMinBelow) low = smaller(low, V{});
    const V range = high - low;
    const V inverse_range = inverse(range);
    best = {V{}, low};
    best_error = splat(3e38f);
    for (int i = 0; i < count; ++i) {
      attempt(low, (static_cast<float>(kMax) + first + static_cast<float>(i) * step) * inverse_range);
    }
    for (int i = 0; i < rounds; ++i) attempt(best.m, inverse(best.d));
    return best;
  }
};

// Codes of whole numbers -kMax .. kMax - 1.
template <int kMax>
struct WholeLevels {
  static constexpr int kLeast = -kMax;
  QUINTET_LANE_INLINE V value(V x) { return clamp(nearest(x), -kMax, kMax - 1); }
  QUINTET_LANE_INLINE I index(V value) { return whole(value) + kMax; }
};

// x ~ d value, the values those of `Levels`, zero among them or near.  d may have either sign: the longer side of the
// levels is for the weight of largest magnitude.
template <class Levels, int kSize, bool kWeighted>
struct SignedSearch {
  const Tile<kSize>& tile;
  V best_gain{};
  V best{};

  inline __attribute__((always_inline)) void attempt(V inverse_d) {
    V wqq{}, wqx{};
    for (int i = 0; i < kSize; ++i) {
      const V q = Levels::value(tile.x[i] * inverse_d);
      const V weighed = weigh<kWeighted>(tile, i, q);
      wqq += weighed * q;
      wqx += weighed * tile.x[i];
    }
    const V d = wqx * inverse(wqq);
    const V gain = wqx * d;  // by how much this d lowers sum w x^2
    const I better = gain > best_gain;
    best_gain = choose(better, gain, best_gain);
    best = choose(better, d, best);
  }

  // `count` starting scales, which put the largest weight at Levels::kLeast - first - i * step; then Lloyd's algorithm.
  inline __attribute__((always_inline)) V run(float first, float step, int count, int rounds) {
    V extreme = tile.x[0];
    for (int i = 1; i < kSize; ++i) {
      extreme = choose(magnitude(tile.x[i]) > magnitude(extreme), tile.x[i], extreme);
    }
    const V inverse_extreme = inverse(extreme);
    for (int i = 0; i < count; ++i) {
      attempt((static_cast<float>(Levels::kLeast) - first - static_cast<float>(i) * step) * inverse_extreme);
    }
    for (int i = 0; i < rounds; ++i) attempt(inverse(best));
    return best;
  }
};

}  // namespace quintet::quantize::QUINTET_LANES
