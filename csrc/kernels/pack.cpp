// Weights from their file formats into panels.
//
// GGUF blocks keep their codes and scales, which only move.  Floats are quantised to blocks first, by GGUF's own
// rounding rules, so that quantising here and quantising to a file give the same weights.  Source:
// ggml/src/ggml-quants.c, quantize_row_q8_0_ref and quantize_row_q4_0_ref.
#include <cmath>

#include "gguf_blocks.h"
#include "half.h"
#include "kernels.h"

namespace quintet {
namespace {

using gguf::load;
using gguf::store;

struct Panel {
  const uint8_t* source;  // its first row
  size_t row_bytes;
  int columns;  // rows of the source it holds, at most 16
  int k;
  uint8_t* packed;
};

// What stands in for the columns between n and the end of the last panel: scales of zero.
constexpr uint8_t kZeroBlock[gguf::kLargestBlock] = {};

// Bits `from` and the next of every code into two bytes' planes.
void put_pairs_of_bits(const uint32_t (&units)[8], int from, uint8_t* p) {
  for (int half = 0; half < 2; ++half) {
    uint32_t bits = 0;
    for (int j = 0; j < 4; ++j) bits |= (units[half * 4 + j] >> from & 0x03030303u) << j * 2;
    store(p + half * 64, bits);
  }
}

// One column's codes of a group into the planes of a layout.
template <Layout LAYOUT>
void put_codes(const uint32_t (&units)[8], int column, uint8_t* group) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  uint8_t* p = group + column * 4;
  if constexpr (kLayout.code_bytes == 512) {
    for (int j = 0; j < 8; ++j) store(p + j * 64, units[j]);
  } else if constexpr (kLayout.code_bytes == 256) {
    for (int j = 0; j < 4; ++j) {
      store(p + j * 64, (units[j] & gguf::kNibbles) | (units[j + 4] & gguf::kNibbles) << 4);
    }
  } else {
    put_pairs_of_bits(units, 0, p);
  }
  if constexpr (kLayout.bit_bytes == 64) {
    uint32_t bits = 0;
    for (int j = 0; j < 8; ++j) bits |= (units[j] >> kLayout.code_bits() & 0x01010101u) << j;
    store(p + kLayout.code_bytes, bits);
  }
  if constexpr (kLayout.bit_bytes == 128) put_pairs_of_bits(units, kLayout.code_bits(), p + kLayout.code_bytes);
}

// One column's block into a panel's block.
template <typename Format, Layout LAYOUT>
void put_block(const uint8_t* block, int column, uint8_t* packed) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  Format::header(block, column, packed);
  uint8_t* group = packed + kLayout.header_bytes;
  for (int g = 0; g < kLayout.groups_per_block; ++g, group += kLayout.group_bytes()) {
    uint32_t units[8];
    Format::codes(block, g, units);
    put_codes<LAYOUT>(units, column, group);
    Format::scales(block, g, column, group + kLayout.scale_offset());
  }
}

template <typename Format, Layout LAYOUT>
void pack_blocks(const Panel& panel) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  uint8_t* packed = panel.packed;
  for (int b = 0; b < panel.k / kLayout.block_k(); ++b, packed += kLayout.block_bytes()) {
    for (int column = 0; column < kPanelColumns; ++column) {
      const uint8_t* row = panel.source + static_cast<size_t>(column) * panel.row_bytes;
      const uint8_t* block = column < panel.columns ? row + static_cast<size_t>(b) * Format::kBytes : kZeroBlock;
      put_block<Format, LAYOUT>(block, column, packed);
    }
  }
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

void quantize_q8_0(const float (&x)[kGroup], uint8_t* block) {
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

void quantize_q4_0(const float (&x)[kGroup], uint8_t* block) {
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

template <typename Format, Layout LAYOUT, typename Quantize>
void pack_quantized(const Panel& panel, Quantize quantize) {
  uint8_t* packed = panel.packed;
  for (int g = 0; g < panel.k / kGroup; ++g, packed += code_layout(LAYOUT).block_bytes()) {
    for (int column = 0; column < kPanelColumns; ++column) {
      uint8_t block[Format::kBytes] = {};
      if (column < panel.columns) {
        float x[kGroup];
        const uint8_t* row = panel.source + static_cast<size_t>(column) * panel.row_bytes;
        std::memcpy(x, row + static_cast<size_t>(g) * sizeof x, sizeof x);
        quantize(x, block);
      }
      put_block<Format, LAYOUT>(block, column, packed);
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

// Bytes and elements of a block of a source format.
struct SourceBlock {
  size_t bytes;
  int k;
};

SourceBlock source_block(SourceType type) {
  switch (type) {
    case SourceType::kF32:
      return {4, 1};
    case SourceType::kF16:
    case SourceType::kBF16:
      return {2, 1};
    case SourceType::kQ8_0:
      return {gguf::Q8_0::kBytes, kGroup};
    case SourceType::kQ4_0:
      return {gguf::Q4_0::kBytes, kGroup};
    case SourceType::kQ5_0:
      return {gguf::Q5_0::kBytes, kGroup};
    case SourceType::kQ4_1:
      return {gguf::Q4_1::kBytes, kGroup};
    case SourceType::kQ5_1:
      return {gguf::Q5_1::kBytes, kGroup};
    case SourceType::kQ4_K:
      return {gguf::Q4_K::kBytes, kSuperBlock};
    case SourceType::kQ5_K:
      return {gguf::Q5_K::kBytes, kSuperBlock};
    case SourceType::kQ6_K:
      return {gguf::Q6_K::kBytes, kSuperBlock};
    case SourceType::kQ3_K:
      return {gguf::Q3_K::kBytes, kSuperBlock};
    case SourceType::kQ2_K:
      return {gguf::Q2_K::kBytes, kSuperBlock};
    case SourceType::kIQ4_NL:
      return {gguf::IQ4_NL::kBytes, kGroup};
    case SourceType::kIQ4_XS:
      return {gguf::IQ4_XS::kBytes, kSuperBlock};
    case SourceType::kMXFP4:
      return {gguf::MXFP4::kBytes, kGroup};
    case SourceType::kTable4:
    case SourceType::kTable3:
      return {gguf::Table::kBytes, kSuperBlock};
  }
  return {0, 1};
}

using PackPanel = void (*)(const Panel&);

PackPanel pack_f32(Layout layout) {
  switch (layout) {
    case Layout::kF32:
      return [](const Panel& p) { pack_floats<uint32_t, uint32_t, 1>(p, kSame); };
    case Layout::kF16:
      return [](const Panel& p) { pack_floats<float, uint16_t, 1>(p, float_to_half); };
    case Layout::kBF16:
      return [](const Panel& p) { pack_floats<float, uint16_t, 2>(p, float_to_bf16); };
    case Layout::kW8:
      return [](const Panel& p) { pack_quantized<gguf::Q8_0, Layout::kW8>(p, quantize_q8_0); };
    case Layout::kW4:
      return [](const Panel& p) { pack_quantized<gguf::Q4_0, Layout::kW4>(p, quantize_q4_0); };
    default:
      return nullptr;
  }
}

// How a type becomes the one layout that holds it exactly.
struct Exact {
  Layout layout;
  PackPanel pack;
};

Exact exact_pack(SourceType type) {
  switch (type) {
    case SourceType::kF32:
      return {Layout::kF32, pack_f32(Layout::kF32)};
    case SourceType::kF16:
      return {Layout::kF16, [](const Panel& p) { pack_floats<uint16_t, uint16_t, 1>(p, kSame); }};
    case SourceType::kBF16:
      return {Layout::kBF16, [](const Panel& p) { pack_floats<uint16_t, uint16_t, 2>(p, kSame); }};
    case SourceType::kQ8_0:
      return {Layout::kW8, pack_blocks<gguf::Q8_0, Layout::kW8>};
    case SourceType::kQ4_0:
      return {Layout::kW4, pack_blocks<gguf::Q4_0, Layout::kW4>};
    case SourceType::kQ5_0:
      return {Layout::kW5, pack_blocks<gguf::Q5_0, Layout::kW5>};
    case SourceType::kQ4_1:
      return {Layout::kW4m, pack_blocks<gguf::Q4_1, Layout::kW4m>};
    case SourceType::kQ5_1:
      return {Layout::kW5m, pack_blocks<gguf::Q5_1, Layout::kW5m>};
    case SourceType::kQ4_K:
      return {Layout::kW4k, pack_blocks<gguf::Q4_K, Layout::kW4k>};
    case SourceType::kQ5_K:
      return {Layout::kW5k, pack_blocks<gguf::Q5_K, Layout::kW5k>};
    case SourceType::kQ6_K:
      return {Layout::kW6k, pack_blocks<gguf::Q6_K, Layout::kW6k>};
    case SourceType::kQ3_K:
      return {Layout::kW3k, pack_blocks<gguf::Q3_K, Layout::kW3k>};
    case SourceType::kQ2_K:
      return {Layout::kW2k, pack_blocks<gguf::Q2_K, Layout::kW2k>};
    case SourceType::kIQ4_NL:
      return {Layout::kW4n, pack_blocks<gguf::IQ4_NL, Layout::kW4n>};
    case SourceType::kIQ4_XS:
      return {Layout::kW4x, pack_blocks<gguf::IQ4_XS, Layout::kW4x>};
    case SourceType::kMXFP4:
      return {Layout::kW4e, pack_blocks<gguf::MXFP4, Layout::kW4e>};
    case SourceType::kTable4:
      return {Layout::kW4t, pack_blocks<gguf::Table, Layout::kW4t>};
    case SourceType::kTable3:
      return {Layout::kW3t, pack_blocks<gguf::Table, Layout::kW3t>};
  }
  return {};
}

// Null for a combination there is no packing for.
PackPanel pack_function(SourceType type, Layout layout) {
  if (type == SourceType::kF32) return pack_f32(layout);
  const Exact exact = exact_pack(type);
  return exact.layout == layout ? exact.pack : nullptr;
}

}  // namespace

size_t source_row_bytes(SourceType type, int k) {
  const SourceBlock block = source_block(type);
  return k > 0 && k % block.k == 0 ? static_cast<size_t>(k / block.k) * block.bytes : 0;
}

bool pack_panels(SourceType source_type, const uint8_t* source, int n, int k, Layout layout, int panel_begin,
                 int panel_end, uint8_t* packed) {
  const PackPanel pack = pack_function(source_type, layout);
  const size_t row_bytes = source_row_bytes(source_type, k);
  if (pack == nullptr || row_bytes == 0 || k % k_multiple(layout) != 0) return false;
  if (has_halves(layout) && k > kMaxHalvesK) return false;
  const size_t stride = panel_bytes(layout, k);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    const int first = panel * kPanelColumns;
    pack({source + static_cast<size_t>(first) * row_bytes, row_bytes,
          n - first < kPanelColumns ? n - first : kPanelColumns, k, packed + static_cast<size_t>(panel) * stride});
  }
  return true;
}

}  // namespace quintet
