// Row operations, as defined.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "../gelu.h"
#include "../half.h"
#include "../impl.h"
#include "../q8_scale.h"
#include "exp.h"

namespace quintet::reference {
namespace {

// Sums 16 lanes as a vector unit does: halves onto halves.
float tree_sum(float (&lanes)[16]) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

void quantize_group(const float* x, int8_t* q8, float* scale, int32_t* sum) {
  uint32_t bits = 0;  // of max|x|: non-negative floats order as integers, NaN above infinity
  for (int i = 0; i < kGroup; ++i) bits = std::max(bits, float_bits(x[i]) & 0x7fffffffu);
  const float largest = float_from_bits(bits);
  const bool broken = !std::isfinite(largest);
  *scale = broken ? std::numeric_limits<float>::quiet_NaN() : largest < kSmallestGroup ? 0.0f : q8_scale(largest);
  *sum = 0;
  const float inverse = 1.0f / *scale;
  for (int i = 0; i < kGroup; ++i) {
    q8[i] = *scale > 0.0f ? static_cast<int8_t>(std::nearbyint(x[i] * inverse)) : int8_t{0};
    *sum += q8[i];
  }
}

void rotate(float& a, float& b, float cos, float sin) {
  const float first = a * cos - b * sin;
  b = b * cos + a * sin;
  a = first;
}

}  // namespace

void make_rows(const float* x, size_t ldx, int num_rows, int width, const RowsOut& out) {
  const auto even_width = static_cast<size_t>(width + width % 2);
  const auto columns = static_cast<size_t>(width);
  for (size_t r = 0; r < static_cast<size_t>(num_rows); ++r) {
    const float* row = x + r * ldx;
    if (out.f32 != nullptr) std::copy_n(row, columns, out.f32 + r * columns);
    if (out.bf16 != nullptr) {
      uint16_t* bf16 = out.bf16 + r * even_width;
      if (even_width > columns) bf16[columns] = 0;
      std::transform(row, row + columns, bf16, float_to_bf16);
    }
    if (out.q8 != nullptr) {
      for (size_t k = 0; k < columns; k += kGroup) {
        const size_t group = (r * columns + k) / kGroup;
        quantize_group(row + k, out.q8 + r * columns + k, out.q8_scale + group, out.q8_sum + group);
      }
    }
  }
}

void rms_norm(const float* x, const float* weight, int width, float eps, float* y) {
  float lanes[16] = {};
  for (int i = 0; i < width; ++i) lanes[i % 16] = std::fma(x[i], x[i], lanes[i % 16]);
  const float inverse = 1.0f / std::sqrt(tree_sum(lanes) / static_cast<float>(width) + eps);
  for (int i = 0; i < width; ++i) y[i] = x[i] * inverse * weight[i];
}

void add(const float* x, int width, float* y) {
  for (int i = 0; i < width; ++i) y[i] += x[i];
}

void silu_mul(const float* gate, const float* up, int width, float* y) {
  for (int i = 0; i < width; ++i) y[i] = gate[i] / (1.0f + exp(-gate[i])) * up[i];
}

void layer_norm(const float* x, const float* weight, const float* bias, int width, float eps, float* y) {
  float lanes[16] = {};
  for (int i = 0; i < width; ++i) lanes[i % 16] += x[i];
  const float mean = tree_sum(lanes) / static_cast<float>(width);
  float squares[16] = {};
  for (int i = 0; i < width; ++i) squares[i % 16] = std::fma(x[i] - mean, x[i] - mean, squares[i % 16]);
  const float inverse = 1.0f / std::sqrt(tree_sum(squares) / static_cast<float>(width) + eps);
  for (int i = 0; i < width; ++i) {
    const float scaled = (x[i] - mean) * inverse * weight[i];
    y[i] = bias == nullptr ? scaled : scaled + bias[i];
  }
}

void gelu(const float* x, const float* up, int width, float* y) {
  using namespace gelu_constants;
  for (int i = 0; i < width; ++i) {
    const float magnitude = std::fabs(x[i]);
    const float z = magnitude * kHalfRoot;
    const float t = 1.0f / std::fma(kP, z, 1.0f);
    float poly = kA5;
    for (const float a : {kA4, kA3, kA2, kA1}) poly = std::fma(poly, t, a);
    const float half_erfc = poly * t * exp(-z * z) * 0.5f;
    const float result = (x[i] < 0.0f ? 0.0f : x[i]) - magnitude * half_erfc;
    y[i] = up == nullptr ? result : result * up[i];
  }
}

void tanh(const float* x, int width, float* y) {
  for (int i = 0; i < width; ++i) y[i] = 1.0f - 2.0f / (exp(x[i] + x[i]) + 1.0f);
}

void gelu_tanh(const float* x, const float* up, int width, float* y) {
  using namespace gelu_constants;
  for (int i = 0; i < width; ++i) {
    const float exponent = x[i] * std::fma(x[i] * x[i], -kCubic, -kLinear);
    const float result = x[i] / (1.0f + exp(exponent));
    y[i] = up == nullptr ? result : result * up[i];
  }
}

void swiglu_clamped(const float* gate, const float* up, float limit, int width, float* y) {
  for (int i = 0; i < width; ++i) {
    const float g = limit < gate[i] ? limit : gate[i];
    const float below = limit < up[i] ? limit : up[i];
    const float u = below < -limit ? -limit : below;
    y[i] = g / (1.0f + exp(g * -1.702f)) * (u + 1.0f);
  }
}

void scale(const float* x, float factor, int width, float* y) {
  for (int i = 0; i < width; ++i) y[i] = x[i] * factor;
}

void add_scaled(const float* x, float factor, int width, float* y) {
  for (int i = 0; i < width; ++i) y[i] = std::fma(x[i], factor, y[i]);
}

void softcap(const float* x, float cap, int width, float* y) {
  for (int i = 0; i < width; ++i) {
    const float ratio = x[i] / cap;
    y[i] = (1.0f - 2.0f / (exp(ratio + ratio) + 1.0f)) * cap;
  }
}

void rope(float* x, int num_heads, const RopeArgs& args) {
  const int half = args.rotary_dim / 2;
  for (int h = 0; h < num_heads; ++h) {
    float* head = x + static_cast<ptrdiff_t>(h) * args.head_dim;
    for (int i = 0; i < half; ++i) {
      float& a = args.interleaved ? head[2 * i] : head[i];
      float& b = args.interleaved ? head[2 * i + 1] : head[i + half];
      rotate(a, b, args.cos[i], args.sin[i]);
    }
  }
}

}  // namespace quintet::reference
