// Row operations over 16 float lanes (<isa>/lanes.h).  The order of operations is that of reference/rowwise.cpp, so
// every table gives the same bits.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "../gelu.h"
#include "../half.h"
#include "../kernels.h"
#include "../q8_scale.h"
#include "exp.h"
#include "sixteen.h"

namespace quintet::lanes {

template <class Lanes>
[[gnu::always_inline]] inline void quantize_group(const float* x, int8_t* q8, float* scale, int32_t* sum) {
  const auto a = Lanes::load(x);
  const auto b = Lanes::load(x + 16);
  const uint32_t bits = Lanes::largest_magnitude(a, b);
  const float largest = float_from_bits(bits);
  if (bits >= 0x7f800000u || largest < kSmallestGroup) {
    std::memset(q8, 0, kGroup);
    *scale = bits >= 0x7f800000u ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
    *sum = 0;
    return;
  }
  *scale = q8_scale(largest);
  const auto inverse = Lanes::set1(1.0f / *scale);
  *sum = Lanes::store_int8(q8, Lanes::mul(a, inverse), Lanes::mul(b, inverse));
}

template <class Lanes>
void make_rows(const float* x, size_t ldx, int num_rows, int width, const RowsOut& out) {
  const auto columns = static_cast<size_t>(width);
  const size_t even_width = columns + columns % 2;
  for (size_t r = 0; r < static_cast<size_t>(num_rows); ++r) {
    const float* row = x + r * ldx;
    if (out.f32 != nullptr) std::memcpy(out.f32 + r * columns, row, columns * sizeof(float));
    if (out.bf16 != nullptr) {
      uint16_t* bf16 = out.bf16 + r * even_width;
      if (even_width > columns) bf16[columns] = 0;
      for_each_sixteen(width, [&](int i, int n) { Lanes::store_bf16(bf16 + i, load<Lanes>(row + i, n), n); });
    }
    if (out.q8 != nullptr) {
      for (size_t k = 0; k < columns; k += kGroup) {
        const size_t group = (r * columns + k) / kGroup;
        quantize_group<Lanes>(row + k, out.q8 + r * columns + k, out.q8_scale + group, out.q8_sum + group);
      }
    }
  }
}

template <class Lanes>
void rms_norm(const float* x, const float* weight, int width, float eps, float* y) {
  auto sum = Lanes::zero();
  for_each_sixteen(width, [&](int i, int n) {
    const auto value = load<Lanes>(x + i, n);
    sum = Lanes::fma(value, value, sum);
  });
  const float mean = Lanes::sum(sum) / static_cast<float>(width);
  const auto inverse = Lanes::set1(1.0f / std::sqrt(mean + eps));
  for_each_sixteen(width, [&](int i, int n) {
    const auto value = Lanes::mul(load<Lanes>(x + i, n), inverse);
    store<Lanes>(y + i, Lanes::mul(value, load<Lanes>(weight + i, n)), n);
  });
}

template <class Lanes>
void add(const float* x, int width, float* y) {
  for_each_sixteen(
      width, [&](int i, int n) { store<Lanes>(y + i, Lanes::add(load<Lanes>(y + i, n), load<Lanes>(x + i, n)), n); });
}

template <class Lanes>
void silu_mul(const float* gate, const float* up, int width, float* y) {
  for_each_sixteen(width, [&](int i, int n) {
    const auto g = load<Lanes>(gate + i, n);
    const auto negated = Lanes::sub(Lanes::set1(-0.0f), g);
    const auto silu = Lanes::div(g, Lanes::add(Lanes::set1(1.0f), exp<Lanes>(negated)));
    store<Lanes>(y + i, Lanes::mul(silu, load<Lanes>(up + i, n)), n);
  });
}

template <class Lanes>
void layer_norm(const float* x, const float* weight, const float* bias, int width, float eps, float* y) {
  auto sum = Lanes::zero();
  for_each_sixteen(width, [&](int i, int n) { sum = Lanes::add(sum, load<Lanes>(x + i, n)); });
  const auto mean = Lanes::set1(Lanes::sum(sum) / static_cast<float>(width));
  auto squares = Lanes::zero();
  for_each_sixteen(width, [&](int i, int n) {
    auto centred = Lanes::sub(load<Lanes>(x + i, n), mean);
    if (n < 16) centred = Lanes::select(Lanes::first(n), centred, Lanes::zero());
    squares = Lanes::fma(centred, centred, squares);
  });
  const float variance = Lanes::sum(squares) / static_cast<float>(width);
  const auto inverse = Lanes::set1(1.0f / std::sqrt(variance + eps));
  for_each_sixteen(width, [&](int i, int n) {
    const auto value = Lanes::mul(Lanes::sub(load<Lanes>(x + i, n), mean), inverse);
    auto scaled = Lanes::mul(value, load<Lanes>(weight + i, n));
    if (bias != nullptr) scaled = Lanes::add(scaled, load<Lanes>(bias + i, n));
    store<Lanes>(y + i, scaled, n);
  });
}

template <class Lanes>
void gelu(const float* x, const float* up, int width, float* y) {
  using namespace gelu_constants;
  const auto zero = Lanes::zero();
  const auto one = Lanes::set1(1.0f);
  for_each_sixteen(width, [&](int i, int n) {
    const auto value = load<Lanes>(x + i, n);
    const auto magnitude = Lanes::max(Lanes::sub(zero, value), value);
    const auto z = Lanes::mul(magnitude, Lanes::set1(kHalfRoot));
    const auto t = Lanes::div(one, Lanes::fma(Lanes::set1(kP), z, one));
    auto poly = Lanes::set1(kA5);
    poly = Lanes::fma(poly, t, Lanes::set1(kA4));
    poly = Lanes::fma(poly, t, Lanes::set1(kA3));
    poly = Lanes::fma(poly, t, Lanes::set1(kA2));
    poly = Lanes::fma(poly, t, Lanes::set1(kA1));
    const auto tail = exp<Lanes>(Lanes::mul(Lanes::sub(zero, z), z));
    const auto half_erfc = Lanes::mul(Lanes::mul(Lanes::mul(poly, t), tail), Lanes::set1(0.5f));
    auto result = Lanes::sub(Lanes::max(zero, value), Lanes::mul(magnitude, half_erfc));
    if (up != nullptr) result = Lanes::mul(result, load<Lanes>(up + i, n));
    store<Lanes>(y + i, result, n);
  });
}

template <class Lanes>
void tanh(const float* x, int width, float* y) {
  const auto one = Lanes::set1(1.0f);
  for_each_sixteen(width, [&](int i, int n) {
    const auto value = load<Lanes>(x + i, n);
    const auto grown = exp<Lanes>(Lanes::add(value, value));
    store<Lanes>(y + i, Lanes::sub(one, Lanes::div(Lanes::set1(2.0f), Lanes::add(grown, one))), n);
  });
}

template <class Lanes>
void gelu_tanh(const float* x, const float* up, int width, float* y) {
  using namespace gelu_constants;
  for_each_sixteen(width, [&](int i, int n) {
    const auto value = load<Lanes>(x + i, n);
    const auto slope = Lanes::fma(Lanes::mul(value, value), Lanes::set1(-kCubic), Lanes::set1(-kLinear));
    auto result = Lanes::div(value, Lanes::add(Lanes::set1(1.0f), exp<Lanes>(Lanes::mul(value, slope))));
    if (up != nullptr) result = Lanes::mul(result, load<Lanes>(up + i, n));
    store<Lanes>(y + i, result, n);
  });
}

template <class Lanes>
void swiglu_clamped(const float* gate, const float* up, float limit, int width, float* y) {
  const auto one = Lanes::set1(1.0f);
  const auto high = Lanes::set1(limit);
  const auto low = Lanes::set1(-limit);
  for_each_sixteen(width, [&](int i, int n) {
    auto g = load<Lanes>(gate + i, n);
    auto u = load<Lanes>(up + i, n);
    g = Lanes::select(Lanes::less(high, g), high, g);
    u = Lanes::select(Lanes::less(high, u), high, u);
    u = Lanes::select(Lanes::less(u, low), low, u);
    const auto swish = Lanes::div(g, Lanes::add(one, exp<Lanes>(Lanes::mul(g, Lanes::set1(-1.702f)))));
    store<Lanes>(y + i, Lanes::mul(swish, Lanes::add(u, one)), n);
  });
}

template <class Lanes>
void scale(const float* x, float factor, int width, float* y) {
  const auto times = Lanes::set1(factor);
  for_each_sixteen(width, [&](int i, int n) { store<Lanes>(y + i, Lanes::mul(load<Lanes>(x + i, n), times), n); });
}

template <class Lanes>
void add_scaled(const float* x, float factor, int width, float* y) {
  const auto times = Lanes::set1(factor);
  for_each_sixteen(width, [&](int i, int n) {
    store<Lanes>(y + i, Lanes::fma(load<Lanes>(x + i, n), times, load<Lanes>(y + i, n)), n);
  });
}

template <class Lanes>
[[gnu::always_inline]] inline typename Lanes::F softcap(typename Lanes::F x, typename Lanes::F cap) {
  const auto one = Lanes::set1(1.0f);
  const auto ratio = Lanes::div(x, cap);
  const auto grown = exp<Lanes>(Lanes::add(ratio, ratio));
  return Lanes::mul(Lanes::sub(one, Lanes::div(Lanes::set1(2.0f), Lanes::add(grown, one))), cap);
}

template <class Lanes>
void softcap(const float* x, float cap, int width, float* y) {
  for_each_sixteen(
      width, [&](int i, int n) { store<Lanes>(y + i, softcap<Lanes>(load<Lanes>(x + i, n), Lanes::set1(cap)), n); });
}

template <class Lanes>
void rotate_halves(float* head, const RopeArgs& args) {
  const int half = args.rotary_dim / 2;
  for_each_sixteen(half, [&](int i, int n) {
    const auto cos = load<Lanes>(args.cos + i, n);
    const auto sin = load<Lanes>(args.sin + i, n);
    const auto a = load<Lanes>(head + i, n);
    const auto b = load<Lanes>(head + half + i, n);
    store<Lanes>(head + i, Lanes::sub(Lanes::mul(a, cos), Lanes::mul(b, sin)), n);
    store<Lanes>(head + half + i, Lanes::add(Lanes::mul(b, cos), Lanes::mul(a, sin)), n);
  });
}

template <class Lanes>
void rotate_pairs(float* head, const RopeArgs& args) {
  const int half = args.rotary_dim / 2;
  int i = 0;
  for (; i + 8 <= half; i += 8) Lanes::rotate_pairs(head + 2 * i, args.cos + i, args.sin + i);
  for (; i < half; ++i) {
    const float a = head[2 * i];
    const float b = head[2 * i + 1];
    head[2 * i] = a * args.cos[i] - b * args.sin[i];
    head[2 * i + 1] = b * args.cos[i] + a * args.sin[i];
  }
}

template <class Lanes>
void rope(float* x, int num_heads, const RopeArgs& args) {
  for (int h = 0; h < num_heads; ++h, x += args.head_dim) {
    if (args.interleaved) {
      rotate_pairs<Lanes>(x, args);
    } else {
      rotate_halves<Lanes>(x, args);
    }
  }
}

}  // namespace quintet::lanes
