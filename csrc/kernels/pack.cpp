// Weights from their file formats into panels.
//
// GGUF blocks keep their codes and scales, which only move.  Floats are quantised to blocks first.
#include "gguf_blocks.h"
#include "half.h"
#include "kernels.h"
#include "quantize.h"
#include "transpose.h"

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

// A group's codes, all columns side by side: unit j of column c.
using Units = uint32_t[8][kPanelColumns];

// Bits `from` and the next of every code into two bytes' planes.
void put_pairs_of_bits(const Units& units, int from, uint8_t* p) {
  for (int half = 0; half < 2; ++half) {
    uint32_t bits[kPanelColumns] = {};
    for (int j = 0; j < 4; ++j) {
      for (int c = 0; c < kPanelColumns; ++c) bits[c] |= (units[half * 4 + j][c] >> from & 0x03030303u) << j * 2;
    }
    std::memcpy(p + half * 64, bits, sizeof bits);
  }
}

// A group's codes into the planes of a layout.
template <Layout LAYOUT>
void put_codes(const Units& units, uint8_t* p) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  if constexpr (kLayout.code_bytes == 512) {
    std::memcpy(p, units, sizeof units);
  } else if constexpr (kLayout.code_bytes == 256) {
    for (int j = 0; j < 4; ++j) {
      uint32_t nibbles[kPanelColumns];
      for (int c = 0; c < kPanelColumns; ++c) {
        nibbles[c] = (units[j][c] & gguf::kNibbles) | (units[j + 4][c] & gguf::kNibbles) << 4;
      }
      std::memcpy(p + j * 64, nibbles, sizeof nibbles);
    }
  } else {
    put_pairs_of_bits(units, 0, p);
  }
  if constexpr (kLayout.bit_bytes == 64) {
    uint32_t bits[kPanelColumns] = {};
    for (int j = 0; j < 8; ++j) {
      for (int c = 0; c < kPanelColumns; ++c) bits[c] |= (units[j][c] >> kLayout.code_bits() & 0x01010101u) << j;
    }
    std::memcpy(p + kLayout.code_bytes, bits, sizeof bits);
  }
  if constexpr (kLayout.bit_bytes == 128) put_pairs_of_bits(units, kLayout.code_bits(), p + kLayout.code_bytes);
}

// The blocks of all columns into a panel's block.
template <typename Format, Layout LAYOUT>
void put_blocks(const uint8_t* const (&blocks)[kPanelColumns], uint8_t* packed) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  for (int column = 0; column < kPanelColumns; ++column) Format::header(blocks[column], column, packed);
  uint8_t* group = packed + kLayout.header_bytes;
  for (int g = 0; g < kLayout.groups_per_block; ++g, group += kLayout.group_bytes()) {
    Units units;
    for (int column = 0; column < kPanelColumns; ++column) {
      uint32_t of_column[8];
      Format::codes(blocks[column], g, of_column);
      for (int j = 0; j < 8; ++j) units[j][column] = of_column[j];
      Format::scales(blocks[column], g, column, group + kLayout.scale_offset());
    }
    put_codes<LAYOUT>(units, group);
  }
}

template <typename Format, Layout LAYOUT>
void pack_blocks(const Panel& panel) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  uint8_t* packed = panel.packed;
  const uint8_t* blocks[kPanelColumns];
  for (int b = 0; b < panel.k / kLayout.block_k(); ++b, packed += kLayout.block_bytes()) {
    for (int column = 0; column < kPanelColumns; ++column) {
      const uint8_t* row = panel.source + static_cast<size_t>(column) * panel.row_bytes;
      blocks[column] = column < panel.columns ? row + static_cast<size_t>(b) * Format::kBytes : kZeroBlock;
    }
    put_blocks<Format, LAYOUT>(blocks, packed);
  }
}

template <typename Format, Layout LAYOUT, typename Quantize>
void pack_quantized(const Panel& panel, Quantize quantize) {
  uint8_t* packed = panel.packed;
  uint8_t blocks[kPanelColumns][Format::kBytes] = {};
  const uint8_t* pointers[kPanelColumns];
  for (int column = 0; column < kPanelColumns; ++column) pointers[column] = blocks[column];
  for (int g = 0; g < panel.k / kGroup; ++g, packed += code_layout(LAYOUT).block_bytes()) {
    for (int column = 0; column < panel.columns; ++column) {
      float x[kGroup];
      const uint8_t* row = panel.source + static_cast<size_t>(column) * panel.row_bytes;
      std::memcpy(x, row + static_cast<size_t>(g) * sizeof x, sizeof x);
      quantize(x, blocks[column]);
    }
    put_blocks<Format, LAYOUT>(pointers, packed);
  }
}

// Floats by element, `PAIR` elements of k side by side: [k / PAIR][16][PAIR], zero where there is no source.  Those
// below `first` are there already.
template <typename From, typename To, size_t PAIR, typename Convert>
void pack_floats(const Panel& panel, Convert convert, size_t first = 0) {
  const auto k = static_cast<size_t>(panel.k);
  const size_t padded_k = (k + PAIR - 1) / PAIR * PAIR;
  if (panel.columns < kPanelColumns || padded_k != k) {
    const size_t whole = first / PAIR * PAIR * kPanelColumns * sizeof(To);
    std::memset(panel.packed + whole, 0, padded_k * kPanelColumns * sizeof(To) - whole);
  }
  // A few k at a time, so that the panel's lines are still in the cache when the next column comes.
  constexpr size_t kRun = 64;
  for (size_t begin = first; begin < k; begin += kRun) {
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

// Floats that only move, several at a time: `interleave` takes multiples of kVectorBytes of each row.
template <typename Element, size_t PAIR>
void move_floats(const Panel& panel, void (*interleave)(const uint8_t*, size_t, size_t, uint8_t*), size_t unit_bytes) {
  constexpr size_t kVectorBytes = 16;
  size_t moved = 0;
  if (panel.columns == kPanelColumns) {
    const size_t bytes = panel.row_bytes / kVectorBytes * kVectorBytes;
    interleave(panel.source, panel.row_bytes, bytes / unit_bytes, panel.packed);
    moved = bytes / sizeof(Element);
  }
  if (moved < static_cast<size_t>(panel.k)) pack_floats<Element, Element, PAIR>(panel, kSame, moved);
}

void move_f32(const Panel& panel) { move_floats<uint32_t, 1>(panel, interleave_words, 4); }
void move_f16(const Panel& panel) { move_floats<uint16_t, 1>(panel, interleave_halves, 2); }
void move_bf16(const Panel& panel) { move_floats<uint16_t, 2>(panel, interleave_words, 4); }

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
      return move_f32;
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
      return {Layout::kF16, move_f16};
    case SourceType::kBF16:
      return {Layout::kBF16, move_bf16};
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
