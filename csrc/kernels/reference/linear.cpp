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

// Layouts of integer codes: element i of one column of a group, without its scale; then that column's scale.
struct W8 {
  static constexpr size_t kBytes = kW8GroupBytes;
  static int value(const uint8_t* group, int column, int i) {
    return group[(i / 4 * kPanelColumns + column) * 4 + i % 4] - 128;
  }
  static float scale(const uint8_t* group, int column) { return half_to_float(load_u16(group + 512 + column * 2)); }
};

struct W4 {
  static constexpr size_t kBytes = kW4GroupBytes;
  static int value(const uint8_t* group, int column, int i) {
    const uint8_t byte = group[(i % 16 / 4 * kPanelColumns + column) * 4 + i % 4];
    return (i < 16 ? byte & 15 : byte >> 4) - 8;
  }
  static float scale(const uint8_t* group, int column) { return half_to_float(load_u16(group + 256 + column * 2)); }
};

// Per group: an exact integer sum, then one fused step with the product of both scales.
template <typename Codes>
void linear_codes(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                  float* y, size_t ldy) {
  for_each_output(row_begin, row_end, panel_begin, panel_end, y, ldy, [&](int row, int panel, int column) {
    const int8_t* q = x.q8 + static_cast<size_t>(row) * static_cast<size_t>(x.width);
    const float* q_scale = x.q8_scale + static_cast<size_t>(row) * static_cast<size_t>(x.width / kGroup);
    const uint8_t* group = panel_data(w, panel);
    float sum = 0;
    for (int g = 0; g < w.k / kGroup; ++g, q += kGroup, group += Codes::kBytes) {
      int32_t dot = 0;
      for (int i = 0; i < kGroup; ++i) dot += Codes::value(group, column, i) * q[i];
      sum = std::fma(static_cast<float>(dot), Codes::scale(group, column) * q_scale[g], sum);
    }
    return sum;
  });
}

template <typename Codes>
void unpack_codes(const PackedMatrix& w, int row, float* out) {
  const int column = row % kPanelColumns;
  const uint8_t* group = panel_data(w, row / kPanelColumns);
  for (int g = 0; g < w.k / kGroup; ++g, out += kGroup, group += Codes::kBytes) {
    const float scale = Codes::scale(group, column);
    for (int i = 0; i < kGroup; ++i) out[i] = static_cast<float>(Codes::value(group, column, i)) * scale;
  }
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
  linear_codes<W8>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear_codes<W4>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
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
      unpack_codes<W8>(w, row, out);
      break;
    case Layout::kW4:
      unpack_codes<W4>(w, row, out);
      break;
  }
}

}  // namespace quintet::reference
