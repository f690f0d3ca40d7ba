// Weights from their file formats into panels.
//
// GGUF blocks are repacked as they are: a Q8_0 or Q4_0 block's bytes are already the units of kW8 and kW4, only the
// columns interleave.  Floats are quantised to such blocks first, by GGUF's own rounding rules, so that quantising
// here and quantising to a file give the same weights.  Source: ggml/src/ggml-quants.c, quantize_row_q8_0_ref and
// quantize_row_q4_0_ref; ggml/src/ggml-common.h, block_q8_0 and block_q4_0.
#include <cmath>

#include "half.h"
#include "kernels.h"

namespace quintet {
namespace {

constexpr size_t kQ8BlockBytes = 2 + kGroup;      // half scale, int8 q[32]
constexpr size_t kQ4BlockBytes = 2 + kGroup / 2;  // half scale, nibbles: low i, high i + 16; value - 8

// What stands in for the columns between n and the end of the last panel: weights of zero.
constexpr uint8_t kZeroQ8Block[kQ8BlockBytes] = {};
constexpr uint8_t kZeroQ4Block[kQ4BlockBytes] = {0,    0,    0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88,
                                                 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88};

template <typename T>
T load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <typename T>
void store(uint8_t* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

float largest_magnitude(const float (&x)[kGroup]) {
  constexpr int kLanes = 8;  // maxima side by side, which a compiler makes vectors of
  float largest[kLanes] = {};
  for (int i = 0; i < kGroup; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const float magnitude = std::fabs(x[i + j]);
      largest[j] = magnitude > largest[j] ? magnitude : largest[j];
    }
  }
  for (int j = 1; j < kLanes; ++j) largest[0] = largest[j] > largest[0] ? largest[j] : largest[0];
  return largest[0];
}

void quantize_q8(const float (&x)[kGroup], uint8_t* block) {
  const float scale = largest_magnitude(x) / 127.0f;
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  store(block, float_to_half(scale));
  for (int i = 0; i < kGroup; ++i) {
    const float value = x[i] * inverse;
    const float inside = value < 127.0f ? (value > -127.0f ? value : -127.0f) : 127.0f;  // a NaN too
    // As roundf, halves away from zero: the largest float below a half, so that the sum rounds up only from a half on.
    block[2 + i] = static_cast<uint8_t>(static_cast<int>(inside + std::copysign(0x1.fffffep-2f, inside)));
  }
}

void quantize_q4(const float (&x)[kGroup], uint8_t* block) {
  // The first value of the largest magnitude becomes code 0, that is -8.
  const float largest = largest_magnitude(x);
  float extreme = 0;
  for (int i = kGroup - 1; i >= 0 && largest > 0; --i) extreme = std::fabs(x[i]) == largest ? x[i] : extreme;
  const float scale = extreme / -8.0f;
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  store(block, float_to_half(scale));
  uint8_t codes[kGroup];
  for (int i = 0; i < kGroup; ++i) {
    const float value = x[i] * inverse + 8.5f;
    const float inside = value > 0.0f ? (value < 15.0f ? value : 15.0f) : 0.0f;
    codes[i] = static_cast<uint8_t>(static_cast<int>(inside));
  }
  for (int i = 0; i < kGroup / 2; ++i) block[2 + i] = static_cast<uint8_t>(codes[i] | codes[i + kGroup / 2] << 4);
}

// One column's block into a panel's group.
void put_q8(const uint8_t* block, int column, uint8_t* group) {
  for (int j = 0; j < 8; ++j) {
    store(group + (j * kPanelColumns + column) * 4, load<uint32_t>(block + 2 + j * 4) ^ 0x80808080u);
  }
  store(group + 512 + column * 2, load<uint16_t>(block));
}

void put_q4(const uint8_t* block, int column, uint8_t* group) {
  for (int j = 0; j < 4; ++j) store(group + (j * kPanelColumns + column) * 4, load<uint32_t>(block + 2 + j * 4));
  store(group + 256 + column * 2, load<uint16_t>(block));
}

struct Panel {
  const uint8_t* source;  // its first row
  size_t row_bytes;
  int columns;  // rows of the source it holds, at most 16
  int k;
  uint8_t* packed;
};

// Blocks as they are: put(block, column, group).
template <size_t BLOCK_BYTES, size_t GROUP_BYTES, typename Put>
void pack_blocks(const Panel& panel, const uint8_t* zero_block, Put put) {
  uint8_t* group = panel.packed;
  for (int g = 0; g < panel.k / kGroup; ++g, group += GROUP_BYTES) {
    for (int column = 0; column < kPanelColumns; ++column) {
      const uint8_t* row = panel.source + static_cast<size_t>(column) * panel.row_bytes;
      put(column < panel.columns ? row + static_cast<size_t>(g) * BLOCK_BYTES : zero_block, column, group);
    }
  }
}

// Floats through blocks: quantize(x, block), then put.
template <size_t BLOCK_BYTES, size_t GROUP_BYTES, typename Quantize, typename Put>
void pack_quantized(const Panel& panel, const uint8_t* zero_block, Quantize quantize, Put put) {
  uint8_t* group = panel.packed;
  for (int g = 0; g < panel.k / kGroup; ++g, group += GROUP_BYTES) {
    for (int column = 0; column < kPanelColumns; ++column) {
      if (column >= panel.columns) {
        put(zero_block, column, group);
        continue;
      }
      float x[kGroup];
      uint8_t block[BLOCK_BYTES];
      std::memcpy(x, panel.source + static_cast<size_t>(column) * panel.row_bytes + static_cast<size_t>(g) * sizeof x,
                  sizeof x);
      quantize(x, block);
      put(block, column, group);
    }
  }
}

// Floats by element, `PAIR` elements of k side by side: [k / PAIR][16][PAIR], zero where there is no source.
template <typename From, typename To, size_t PAIR, typename Convert>
void pack_floats(const Panel& panel, Convert convert) {
  const auto k = static_cast<size_t>(panel.k);
  const size_t padded_k = (k + PAIR - 1) / PAIR * PAIR;
  if (panel.columns < kPanelColumns || padded_k != k) {
    std::memset(panel.packed, 0, padded_k * kPanelColumns * sizeof(To));
  }
  // A few k at a time, so that the panel's lines are still in the cache when the next column comes.
  constexpr size_t kRun = 64;
  for (size_t begin = 0; begin < k; begin += kRun) {
    const size_t end = begin + kRun < k ? begin + kRun : k;
    for (size_t column = 0; column < static_cast<size_t>(panel.columns); ++column) {
      const uint8_t* row = panel.source + column * panel.row_bytes;
      for (size_t i = begin; i < end; ++i) {
        const size_t at = (i / PAIR * kPanelColumns + column) * PAIR + i % PAIR;
        store(panel.packed + at * sizeof(To), convert(load<From>(row + i * sizeof(From))));
      }
    }
  }
}

constexpr auto kSame = [](auto value) { return value; };

size_t source_row_bytes(SourceType type, int k) {
  const auto width = static_cast<size_t>(k);
  switch (type) {
    case SourceType::kF32:
      return width * 4;
    case SourceType::kF16:
    case SourceType::kBF16:
      return width * 2;
    case SourceType::kQ8_0:
      return width / kGroup * kQ8BlockBytes;
    case SourceType::kQ4_0:
      return width / kGroup * kQ4BlockBytes;
  }
  return 0;
}

using PackPanel = void (*)(const Panel&);

// Null for a combination there is no packing for.
PackPanel pack_function(SourceType type, Layout layout) {
  if (type == SourceType::kF32) {
    switch (layout) {
      case Layout::kF32:
        return [](const Panel& p) { pack_floats<uint32_t, uint32_t, 1>(p, kSame); };
      case Layout::kF16:
        return [](const Panel& p) { pack_floats<float, uint16_t, 1>(p, float_to_half); };
      case Layout::kBF16:
        return [](const Panel& p) { pack_floats<float, uint16_t, 2>(p, float_to_bf16); };
      case Layout::kW8:
        return
            [](const Panel& p) { pack_quantized<kQ8BlockBytes, kW8GroupBytes>(p, kZeroQ8Block, quantize_q8, put_q8); };
      case Layout::kW4:
        return
            [](const Panel& p) { pack_quantized<kQ4BlockBytes, kW4GroupBytes>(p, kZeroQ4Block, quantize_q4, put_q4); };
    }
  }
  if (type == SourceType::kF16 && layout == Layout::kF16) {
    return [](const Panel& p) { pack_floats<uint16_t, uint16_t, 1>(p, kSame); };
  }
  if (type == SourceType::kBF16 && layout == Layout::kBF16) {
    return [](const Panel& p) { pack_floats<uint16_t, uint16_t, 2>(p, kSame); };
  }
  if (type == SourceType::kQ8_0 && layout == Layout::kW8) {
    return [](const Panel& p) { pack_blocks<kQ8BlockBytes, kW8GroupBytes>(p, kZeroQ8Block, put_q8); };
  }
  if (type == SourceType::kQ4_0 && layout == Layout::kW4) {
    return [](const Panel& p) { pack_blocks<kQ4BlockBytes, kW4GroupBytes>(p, kZeroQ4Block, put_q4); };
  }
  return nullptr;
}

}  // namespace

bool pack_panels(SourceType source_type, const uint8_t* source, int n, int k, Layout layout, int panel_begin,
                 int panel_end, uint8_t* packed) {
  const PackPanel pack = pack_function(source_type, layout);
  const bool grouped = layout == Layout::kW8 || layout == Layout::kW4;
  if (pack == nullptr || (grouped && k % kGroup != 0)) return false;
  const size_t row_bytes = source_row_bytes(source_type, k);
  const size_t stride = panel_bytes(layout, k);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    const int first = panel * kPanelColumns;
    pack({source + static_cast<size_t>(first) * row_bytes, row_bytes,
          n - first < kPanelColumns ? n - first : kPanelColumns, k, packed + static_cast<size_t>(panel) * stride});
  }
  return true;
}

}  // namespace quintet
