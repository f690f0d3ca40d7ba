// Matrix kernels, the definition: one output at a time, k ascending, every product fused into the sum (std::fma).
#include <cmath>

#include "half.h"
#include "impl.h"

namespace quintet::reference {
namespace {

const uint8_t* panel_data(const PackedMatrix& w, int panel) {
  return w.data + static_cast<size_t>(panel) * panel_bytes(w.layout, w.k);
}

// Calls output(row, panel, column) for the range and stores what it returns.
template <typename Output>
void for_each_output(int row_begin, int row_end, int panel_begin, int panel_end, float* y, size_t ldy, Output output) {
  for (int row = row_begin; row < row_end; ++row) {
    for (int panel = panel_begin; panel < panel_end; ++panel) {
      for (int column = 0; column < kPanelColumns; ++column) {
        y[static_cast<size_t>(row) * ldy + static_cast<size_t>(panel * kPanelColumns + column)] =
            output(row, panel, column);
      }
    }
  }
}

uint16_t load_u16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Element i of one column of a panel of float weights.
float f32_at(const uint8_t* panel, int column, int i) {
  float value;
  std::memcpy(&value, panel + static_cast<size_t>(i * kPanelColumns + column) * 4, sizeof value);
  return value;
}

float f16_at(const uint8_t* panel, int column, int i) {
  return half_to_float(load_u16(panel + static_cast<size_t>(i * kPanelColumns + column) * 2));
}

float bf16_at(const uint8_t* panel, int column, int i) {
  return bf16_to_float(load_u16(panel + static_cast<size_t>((i / 2 * kPanelColumns + column) * 2 + i % 2) * 2));
}

float half_at(const uint8_t* p, int index) { return half_to_float(load_u16(p + index * 2)); }

// Element i of one column of a group of codes, as layouts.h defines the planes.
template <Layout LAYOUT>
int code_at(const uint8_t* group, int column, int i) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  const int unit = i / 4;
  const int byte = column * 4 + i % 4;
  const auto two_bits = [&](const uint8_t* p) { return p[unit / 4 * 64 + byte] >> (unit % 4 * 2) & 3; };
  if (kLayout.code_bytes == 512) return group[unit * 64 + byte];
  const int nibble = unit < 4 ? group[unit * 64 + byte] & 15 : group[(unit - 4) * 64 + byte] >> 4;
  const int code = kLayout.code_bytes == 256 ? nibble : two_bits(group);
  const uint8_t* bits = group + kLayout.code_bytes;
  if (kLayout.bit_bytes == 64) return code | (bits[byte] >> unit & 1) << kLayout.code_bits();
  if (kLayout.bit_bytes == 128) return code | two_bits(bits) << kLayout.code_bits();
  return code;
}

// The number a code stands for, before scales and minimum.
template <Layout LAYOUT>
int number_at(const uint8_t* block, const uint8_t* group, int column, int i) {
  const int code = code_at<LAYOUT>(group, column, i);
  if constexpr (has_table(LAYOUT)) return block[kTableOffset + static_cast<size_t>(code)] - zero_point(LAYOUT);
  constexpr const int8_t* kValues = code_values(LAYOUT);
  if constexpr (has_code_values(LAYOUT)) return kValues[code];
  return code - zero_point(LAYOUT);
}

// A weight is scale[i / 16] * number - min[i / 16].
struct Scales {
  float scale[2];  // of the group's first and second half
  float min[2];
};

// 2^(e - 128) of MXFP4, which has no code for NaN here; the smallest two are denormals.  Source: ggml_e8m0_to_fp32_half
// of ggml/src/ggml-impl.h.
float exponent_scale(uint8_t e) { return std::ldexp(1.0f, e - 128); }

template <Layout LAYOUT>
Scales scales_at(const uint8_t* block, const uint8_t* group, int column) {
  const uint8_t* p = group + code_layout(LAYOUT).scale_offset();
  const auto both = [](float scale, float min) { return Scales{{scale, scale}, {min, min}}; };
  switch (LAYOUT) {
    case Layout::kW8:
    case Layout::kW4:
    case Layout::kW5:
    case Layout::kW4n:
      return both(half_at(p, column), 0);
    case Layout::kW4e:
      return both(exponent_scale(p[column]), 0);
    case Layout::kW4x:  // 11 bits times 6
      return both(half_at(block, column) * static_cast<float>(static_cast<int8_t>(p[column])), 0);
    case Layout::kW4m:
    case Layout::kW5m:
      return both(half_at(p, column), half_at(p + 32, column));
    case Layout::kW4k:
    case Layout::kW5k:  // 11 bits times 6: both products are exact
      return both(half_at(block, column) * static_cast<float>(p[column]),
                  half_at(block + 32, column) * static_cast<float>(p[16 + column]));
    case Layout::kW2k: {  // 11 bits times 4
      const float d = half_at(block, column);
      const float e = half_at(block + 32, column);
      const uint8_t* t = p + column * 2;
      return {{d * static_cast<float>(t[0] & 15), d * static_cast<float>(t[1] & 15)},
              {e * static_cast<float>(t[0] >> 4), e * static_cast<float>(t[1] >> 4)}};
    }
    default: {  // kW6k, kW3k, kW4t, kW3t: 11 bits times 8
      const float d = half_at(block, column) * (has_table(LAYOUT) ? kTableUnit : 1.0f);
      return {{d * static_cast<float>(static_cast<int8_t>(p[column])),
               d * static_cast<float>(static_cast<int8_t>(p[16 + column]))},
              {0, 0}};
    }
  }
}

// Calls visit(block, group of 32 k, its index) for one column, in order.
template <Layout LAYOUT, typename Visit>
void for_each_group(const PackedMatrix& w, int panel, Visit visit) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  const uint8_t* block = panel_data(w, panel);
  for (int g = 0; g < w.k / kGroup; block += kLayout.block_bytes()) {
    const uint8_t* group = block + kLayout.header_bytes;
    for (int i = 0; i < kLayout.groups_per_block; ++i, ++g, group += kLayout.group_bytes()) {
      visit(block, group, g);
    }
  }
}

// Per group: exact integer sums, then fused steps.
template <Layout LAYOUT>
void linear_codes(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                  float* y, size_t ldy) {
  for_each_output(row_begin, row_end, panel_begin, panel_end, y, ldy, [&](int row, int panel, int column) {
    const int8_t* q = x.q8 + static_cast<size_t>(row) * static_cast<size_t>(x.width);
    const float* q_scale = x.q8_scale + static_cast<size_t>(row) * static_cast<size_t>(x.width / kGroup);
    float sum = 0;
    for_each_group<LAYOUT>(w, panel, [&](const uint8_t* block, const uint8_t* group, int g) {
      int32_t dot[2] = {0, 0};  // of the two halves
      int32_t q_sum[2] = {0, 0};
      for (int i = 0; i < kGroup; ++i) {
        dot[i / 16] += number_at<LAYOUT>(block, group, column, i) * q[g * kGroup + i];
        q_sum[i / 16] += q[g * kGroup + i];
      }
      if (LAYOUT == Layout::kW2k) {
        const uint8_t* t = group + code_layout(LAYOUT).scale_offset() + column * 2;
        const auto scaled = static_cast<float>((t[0] & 15) * dot[0] + (t[1] & 15) * dot[1]);
        const auto mins = static_cast<float>((t[0] >> 4) * q_sum[0] + (t[1] >> 4) * q_sum[1]);
        const float part = std::fma(-half_at(block + 32, column), mins, half_at(block, column) * scaled);
        sum = std::fma(part, q_scale[g], sum);
        return;
      }
      const Scales scales = scales_at<LAYOUT>(block, group, column);
      if (has_halves(LAYOUT)) {
        for (int half = 0; half < 2; ++half)
          sum = std::fma(static_cast<float>(dot[half]), scales.scale[half] * q_scale[g], sum);
      } else {
        sum = std::fma(static_cast<float>(dot[0] + dot[1]), scales.scale[0] * q_scale[g], sum);
      }
      if (has_min(LAYOUT)) sum = std::fma(-scales.min[0], static_cast<float>(q_sum[0] + q_sum[1]) * q_scale[g], sum);
    });
    return sum;
  });
}

template <Layout LAYOUT>
void unpack_codes(const PackedMatrix& w, int row, float* out) {
  const int column = row % kPanelColumns;
  for_each_group<LAYOUT>(w, row / kPanelColumns, [&](const uint8_t* block, const uint8_t* group, int g) {
    const Scales scales = scales_at<LAYOUT>(block, group, column);
    for (int i = 0; i < kGroup; ++i) {
      const auto number = static_cast<float>(number_at<LAYOUT>(block, group, column, i));
      out[g * kGroup + i] = std::fma(scales.scale[i / 16], number, -scales.min[i / 16]);
    }
  });
}

}  // namespace

void linear_f32(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  for_each_output(row_begin, row_end, panel_begin, panel_end, y, ldy, [&](int row, int panel, int column) {
    const float* in = x.f32 + static_cast<size_t>(row) * static_cast<size_t>(x.width);
    float sum = 0;
    for (int i = 0; i < w.k; ++i) sum = std::fma(in[i], f32_at(panel_data(w, panel), column, i), sum);
    return sum;
  });
}

void linear_f16(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  for_each_output(row_begin, row_end, panel_begin, panel_end, y, ldy, [&](int row, int panel, int column) {
    const float* in = x.f32 + static_cast<size_t>(row) * static_cast<size_t>(x.width);
    float sum = 0;
    for (int i = 0; i < w.k; ++i) sum = std::fma(in[i], f16_at(panel_data(w, panel), column, i), sum);
    return sum;
  });
}

// The product of two bf16 is exact in float, so this rounds once per element.
void linear_bf16(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                 float* y, size_t ldy) {
  for_each_output(row_begin, row_end, panel_begin, panel_end, y, ldy, [&](int row, int panel, int column) {
    const uint16_t* in = x.bf16 + static_cast<size_t>(row) * static_cast<size_t>((x.width + 1) / 2 * 2);
    float sum = 0;
    for (int i = 0; i < w.k; ++i) {
      sum = std::fma(bf16_to_float(in[i]), bf16_at(panel_data(w, panel), column, i), sum);
    }
    return sum;
  });
}

void linear_w8(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear_codes<Layout::kW8>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear_codes<Layout::kW4>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear_codes<Layout::kW5>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4m(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW4m>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5m(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW5m>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW4k>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW5k>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w6k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW6k>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w3k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW3k>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w2k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW2k>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4n(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW4n>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4x(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW4x>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4e(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW4e>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4t(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW4t>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w3t(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear_codes<Layout::kW3t>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void unpack_row(const PackedMatrix& w, int row, float* out) {
  const int column = row % kPanelColumns;
  const uint8_t* panel = panel_data(w, row / kPanelColumns);
  switch (w.layout) {
    case Layout::kF32:
      for (int i = 0; i < w.k; ++i) out[i] = f32_at(panel, column, i);
      break;
    case Layout::kF16:
      for (int i = 0; i < w.k; ++i) out[i] = f16_at(panel, column, i);
      break;
    case Layout::kBF16:
      for (int i = 0; i < w.k; ++i) out[i] = bf16_at(panel, column, i);
      break;
    case Layout::kW8:
      unpack_codes<Layout::kW8>(w, row, out);
      break;
    case Layout::kW4:
      unpack_codes<Layout::kW4>(w, row, out);
      break;
    case Layout::kW5:
      unpack_codes<Layout::kW5>(w, row, out);
      break;
    case Layout::kW4m:
      unpack_codes<Layout::kW4m>(w, row, out);
      break;
    case Layout::kW5m:
      unpack_codes<Layout::kW5m>(w, row, out);
      break;
    case Layout::kW4k:
      unpack_codes<Layout::kW4k>(w, row, out);
      break;
    case Layout::kW5k:
      unpack_codes<Layout::kW5k>(w, row, out);
      break;
    case Layout::kW6k:
      unpack_codes<Layout::kW6k>(w, row, out);
      break;
    case Layout::kW3k:
      unpack_codes<Layout::kW3k>(w, row, out);
      break;
    case Layout::kW2k:
      unpack_codes<Layout::kW2k>(w, row, out);
      break;
    case Layout::kW4n:
      unpack_codes<Layout::kW4n>(w, row, out);
      break;
    case Layout::kW4x:
      unpack_codes<Layout::kW4x>(w, row, out);
      break;
    case Layout::kW4e:
      unpack_codes<Layout::kW4e>(w, row, out);
      break;
    case Layout::kW4t:
      unpack_codes<Layout::kW4t>(w, row, out);
      break;
    case Layout::kW3t:
      unpack_codes<Layout::kW3t>(w, row, out);
      break;
  }
}

}  // namespace quintet::reference
