// Super-blocks of 256 weights: groups whose scales (and minima) are small integers times a half of the super-block.
#pragma once

#include "search.h"

namespace quintet::quantize::QUINTET_LANES {

inline constexpr int kSuper = 256;

// What one tile becomes: codes, integer scales and minima by group, halves by block (the same in all its lanes).
template <int kSize>
struct Encoded {
  static constexpr int kGroups = kSuper / kSize;    // of a block
  static constexpr int kBlocks = kLanes / kGroups;  // of a tile
  I codes[kSize];
  V scale{}, min{};  // whole numbers
  V d{}, dmin{};
};

// The sum over each block's lanes, in all of them, lane after lane.
template <int kGroups>
static V sum_block(V a) {
  V result;
  for (int first = 0; first < kLanes; first += kGroups) {
    float sum = 0;
    for (int lane = first; lane < first + kGroups; ++lane) sum += a[lane];
    for (int lane = first; lane < first + kGroups; ++lane) result[lane] = sum;
  }
  return result;
}

// The value of largest magnitude in each block.
template <int kGroups>
static V extreme_of_block(V a) {
  V result;
  for (int first = 0; first < kLanes; first += kGroups) {
    float extreme = a[first];
    for (int lane = first; lane < first + kGroups; ++lane) {
      const bool larger_yet = (a[lane] < 0 ? -a[lane] : a[lane]) > (extreme < 0 ? -extreme : extreme);
      extreme = larger_yet ? a[lane] : extreme;
    }
    for (int lane = first; lane < first + kGroups; ++lane) result[lane] = extreme;
  }
  return result;
}

// x ~ d scale q - dmin min with scale and min in 0 .. kScaleMax and q in 0 .. kMax.
template <int kSize, int kMax, int kScaleMax, bool kWeighted>
struct AffineSuper {
  using Search = AffineSearch<kSize, kMax, kWeighted, true>;
  static constexpr int kGroups = kSuper / kSize;

  struct Rounded {
    V scale{}, min{}, error{};
  };

  // The integer scale and min of each group, for given halves: the neighbours of the unrounded scale are tried, each
  // with the min that is best for its codes.
  static Rounded round_scales(const Tile<kSize>& tile, const ScaleAndMin& wanted, V sum_w, V sum_wx, V d, V dmin) {
    const V inverse_d = inverse(d), inverse_dmin = inverse(dmin);
    const V middle = nearest(wanted.d * inverse_d);
    const V over_w = inverse(sum_w);
    Rounded best;
    best.error = splat(3e38f);
    for (int offset = -1; offset <= 1; ++offset) {
      const V scale = clamp(middle + static_cast<float>(offset), 0, kScaleMax);
      const V step = d * scale;
      const V inverse_step = inverse(step);
      V wq{};
      for (int i = 0; i < kSize; ++i) wq += weigh<kWeighted>(tile, i, Search::code(tile.x[i], wanted.m, inverse_step));
      const V best_min = (step * wq - sum_wx) * over_w;
      const V min = clamp(nearest(best_min * inverse_dmin), 0, kScaleMax);
      const V low = -dmin * min;
      V error{};
      for (int i = 0; i < kSize; ++i) {
        const V off = tile.x[i] - low - step * Search::code(tile.x[i], low, inverse_step);
        error += weigh<kWeighted>(tile, i, off * off);
      }
      const I better = error < best.error;
      best.error = choose(better, error, best.error);
      best.scale = choose(better, scale, best.scale);
      best.min = choose(better, min, best.min);
    }
    return best;
  }

  // The halves that fit given integers best: least squares over the whole block.
  static void fit_halves(const Tile<kSize>& tile, const Rounded& rounded, V& d, V& dmin) {
    const V step = d * rounded.scale, low = -dmin * rounded.min;
    const V inverse_step = inverse(step);
    V wq{}, wqq{}, wqx{}, sum_w{}, sum_wx{};
    for (int i = 0; i < kSize; ++i) {
      const V q = Search::code(tile.x[i], low, inverse_step);
      const V weighed = weigh<kWeighted>(tile, i, q);
      wq += weighed;
      wqq += weighed * q;
      wqx += weighed * tile.x[i];
      sum_w += weigh<kWeighted>(tile, i, splat(1));
      sum_wx += weigh<kWeighted>(tile, i, tile.x[i]);
    }
    const V s = rounded.scale, n = rounded.min;
    const V aa = sum_block<kGroups>(s * s * wqq), ab = sum_block<kGroups>(s * n * wq);
    const V bb = sum_block<kGroups>(n * n * sum_w);
    const V ax = sum_block<kGroups>(s * wqx), bx = sum_block<kGroups>(n * sum_wx);
    // Minimises |x - d a + dmin b|^2.
    const V determinant = aa * bb - ab * ab;
    const V over = inverse(determinant);
    const V new_d = (ax * bb - bx * ab) * over;
    const V new_dmin = (ax * ab - bx * aa) * over;
    const I valid = (determinant > 1e-6f * aa * bb) & (new_d > 0.0f) & (new_dmin >= 0.0f);
    const V only_d = ax * inverse(aa);  // where all minima are 0
    d = choose(valid, new_d, choose((bb == 0.0f) & (only_d > 0.0f), only_d, d));
    dmin = choose(valid, new_dmin, dmin);
  }

  static void encode(const Tile<kSize>& tile, float first, float step, int count, int rounds, Encoded<kSize>& to) {
    Search search{tile};
    const ScaleAndMin wanted = search.run(first, step, count, rounds);
    const V sum_w = search.sum_w, sum_wx = search.sum_wx;
    to.d = through_half(extreme_of_block<kGroups>(wanted.d) * (1.0f / kScaleMax));
    to.dmin = through_half(-extreme_of_block<kGroups>(wanted.m) * (1.0f / kScaleMax));
    Rounded best = round_scales(tile, wanted, sum_w, sum_wx, to.d, to.dmin);
    V best_error = sum_block<kGroups>(best.error);
    for (int round = 0; round < 2; ++round) {
      V d = to.d, dmin = to.dmin;
      fit_halves(tile, best, d, dmin);
      d = through_half(d);
      dmin = through_half(dmin);
      const Rounded again = round_scales(tile, wanted, sum_w, sum_wx, d, dmin);
      const V error = sum_block<kGroups>(again.error);
      const I better = error < best_error;
      best_error = choose(better, error, best_error);
      best.scale = choose(better, again.scale, best.scale);
      best.min = choose(better, again.min, best.min);
      to.d = choose(better, d, to.d);
      to.dmin = choose(better, dmin, to.dmin);
    }
    to.scale = best.scale;
    to.min = best.min;
    const V low = -to.dmin * to.min, inverse_step = inverse(to.d * to.scale);
    for (int i = 0; i < kSize; ++i) to.codes[i] = whole(Search::code(tile.x[i], low, inverse_step));
  }
};

// x ~ d scale value(q) with scale in -kScaleMax .. kScaleMax - 1.
template <class Levels, int kSize, int kScaleMax, bool kWeighted>
struct SignedSuper {
  static constexpr int kGroups = kSuper / kSize;

  struct Rounded {
    V scale{}, error{}, wqq{}, wqx{};
  };

  static Rounded round_scales(const Tile<kSize>& tile, V wanted, V d) {
    const V middle = nearest(wanted * inverse(d));
    Rounded best;
    best.error = splat(3e38f);
    for (int offset = -1; offset <= 1; ++offset) {
      const V scale = clamp(middle + static_cast<float>(offset), -kScaleMax, kScaleMax - 1);
      const V step = d * scale;
      const V inverse_step = inverse(step);
      V error{}, wqq{}, wqx{};
      for (int i = 0; i < kSize; ++i) {
        const V q = Levels::value(tile.x[i] * inverse_step);
        const V off = tile.x[i] - step * q;
        error += weigh<kWeighted>(tile, i, off * off);
        wqq += weigh<kWeighted>(tile, i, q * q);
        wqx += weigh<kWeighted>(tile, i, q * tile.x[i]);
      }
      const I better = error < best.error;
      best.error = choose(better, error, best.error);
      best.scale = choose(better, scale, best.scale);
      best.wqq = choose(better, wqq, best.wqq);
      best.wqx = choose(better, wqx, best.wqx);
    }
    return best;
  }

  static void encode(const Tile<kSize>& tile, float first, float step, int count, int rounds, Encoded<kSize>& to) {
    SignedSearch<Levels, kSize, kWeighted> search{tile};
    const V wanted = search.run(first, step, count, rounds);
    to.d = through_half(extreme_of_block<kGroups>(wanted) * (-1.0f / kScaleMax));
    Rounded best = round_scales(tile, wanted, to.d);
    V best_error = sum_block<kGroups>(best.error);
    for (int round = 0; round < 2; ++round) {
      // The half that fits the integers and codes best.
      const V fitted =
          sum_block<kGroups>(best.scale * best.wqx) * inverse(sum_block<kGroups>(best.scale * best.scale * best.wqq));
      const V d = through_half(choose(fitted == 0.0f, to.d, fitted));
      const Rounded again = round_scales(tile, wanted, d);
      const V error = sum_block<kGroups>(again.error);
      const I better = error < best_error;
      best_error = choose(better, error, best_error);
      best.scale = choose(better, again.scale, best.scale);
      best.wqq = choose(better, again.wqq, best.wqq);
      best.wqx = choose(better, again.wqx, best.wqx);
      to.d = choose(better, d, to.d);
    }
    to.scale = best.scale;
    const V inverse_step = inverse(to.d * to.scale);
    for (int i = 0; i < kSize; ++i) to.codes[i] = Levels::index(Levels::value(tile.x[i] * inverse_step));
  }
};

// In place of an importance: each square counts by its weight's size, w_i = sqrt(1 + (x_i / r)^2), where r is the root
// mean square of the super-block.
//
// Least squares give the projection of x on the codes, whose norm is smaller than x's by half the relative square
// error: 1 % in Q3_K, 3 % in Q2_K, in all of a model's matrices at once.  Counting large weights more moves the scales
// out until the norm is kept to 0.2 and 0.9 %, and costs 1 to 3 % of the error's root mean square.  docs/quantize.md
// has what it does to a model.
template <int kSize>
static void count_by_size(Tile<kSize>& tile) {
  V squares{};
  for (int i = 0; i < kSize; ++i) squares += tile.x[i] * tile.x[i];
  const V over_r = inverse(root(sum_block<kSuper / kSize>(squares) * (1.0f / kSuper)));
  for (int i = 0; i < kSize; ++i) {
    const V relative = tile.x[i] * over_r;
    tile.w[i] = root(1.0f + relative * relative);
  }
}

// One block of an encoded tile, in plain bytes.
template <int kSize>
struct Block {
  static constexpr int kGroups = kSuper / kSize;
  uint8_t codes[kSuper];
  int scale[kGroups], min[kGroups];
  float d, dmin;

  Block(const Encoded<kSize>& from, int block) {
    for (int g = 0; g < kGroups; ++g) {
      const int lane = block * kGroups + g;
      read_lane(from.codes, lane, codes + g * kSize);
      scale[g] = static_cast<int>(from.scale[lane]);
      min[g] = static_cast<int>(from.min[lane]);
    }
    d = from.d[block * kGroups];
    dmin = from.dmin[block * kGroups];
  }
};

// Encodes a run tile by tile; `Search` fills an Encoded, `put` writes one block.  kBySize: without importance
// squares count by size, so the search is weighted either way.
template <class Search, int kSize, size_t kBytes, bool kBySize = false, class Put>
static void encode_supers(const Run& run, float first, float step, int count, int rounds, Put put) {
  constexpr size_t kBlocks = Encoded<kSize>::kBlocks;
  for (size_t start = 0; start < run.num_blocks; start += kBlocks) {
    Tile<kSize> tile = load<kSize, kSuper>(run, start);
    if (kBySize && run.importance == nullptr) count_by_size(tile);
    Encoded<kSize> encoded;
    Search::encode(tile, first, step, count, rounds, encoded);
    for (size_t b = 0; b < kBlocks && start + b < run.num_blocks; ++b) {
      put(Block<kSize>(encoded, static_cast<int>(b)), run.blocks + (start + b) * kBytes);
    }
  }
}

}  // namespace quintet::quantize::QUINTET_LANES
