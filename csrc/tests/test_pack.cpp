// Packing: file blocks keep their values, floats are quantised by GGUF's rules, 16-bit floats round to nearest even,
// and threads that share a matrix write what one would.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "half.h"
#include "impl.h"
#include "tables.h"

namespace {

using namespace quintet;

std::mt19937 random_bits(7);

float random_float() { return std::normal_distribution<float>(0.0f, 1.0f)(random_bits); }

constexpr SourceType kSources[] = {SourceType::kF32, SourceType::kF16, SourceType::kBF16, SourceType::kQ8_0,
                                   SourceType::kQ4_0};

// Bytes of a row of the file format.
size_t row_bytes(SourceType type, int k) {
  const auto width = static_cast<size_t>(k);
  switch (type) {
    case SourceType::kF32:
      return width * 4;
    case SourceType::kF16:
    case SourceType::kBF16:
      return width * 2;
    case SourceType::kQ8_0:
      return width / 32 * 34;
    case SourceType::kQ4_0:
      return width / 32 * 18;
  }
  return 0;
}

// Element i of a file row as a number, straight from the format's definition.
float source_value(SourceType type, const uint8_t* row, int i) {
  uint16_t half;
  switch (type) {
    case SourceType::kF32: {
      float value;
      std::memcpy(&value, row + i * 4, 4);
      return value;
    }
    case SourceType::kF16:
      std::memcpy(&half, row + i * 2, 2);
      return half_to_float(half);
    case SourceType::kBF16:
      std::memcpy(&half, row + i * 2, 2);
      return bf16_to_float(half);
    case SourceType::kQ8_0:
      std::memcpy(&half, row + i / 32 * 34, 2);
      return static_cast<float>(static_cast<int8_t>(row[i / 32 * 34 + 2 + i % 32])) * half_to_float(half);
    case SourceType::kQ4_0: {
      std::memcpy(&half, row + i / 32 * 18, 2);
      const uint8_t byte = row[i / 32 * 18 + 2 + i % 16];
      return static_cast<float>((i % 32 < 16 ? byte & 15 : byte >> 4) - 8) * half_to_float(half);
    }
  }
  return 0;
}

// Random bytes of the format, with finite scales.
std::vector<uint8_t> random_source(SourceType type, int n, int k) {
  std::vector<uint8_t> bytes(row_bytes(type, k) * static_cast<size_t>(n));
  if (type == SourceType::kF32) {
    for (size_t i = 0; i < bytes.size(); i += 4) {
      const float value = random_float();
      std::memcpy(bytes.data() + i, &value, 4);
    }
    return bytes;
  }
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_bits());
  const size_t step = type == SourceType::kQ8_0 ? 34 : type == SourceType::kQ4_0 ? 18 : 2;
  for (size_t i = 0; i < bytes.size(); i += step) {
    const uint16_t half = type == SourceType::kBF16 ? float_to_bf16(random_float()) : float_to_half(random_float());
    std::memcpy(bytes.data() + i, &half, 2);
  }
  return bytes;
}

std::vector<uint8_t> pack(SourceType type, const std::vector<uint8_t>& source, int n, int k, Layout layout) {
  std::vector<uint8_t> packed(panel_bytes(layout, k) * static_cast<size_t>(num_panels(n)), 0xcd);
  CHECK(pack_panels(type, source.data(), n, k, layout, 0, num_panels(n), packed.data()));
  return packed;
}

// All columns of a packed matrix, padding included.
std::vector<float> unpack(const std::vector<uint8_t>& packed, int n, int k, Layout layout) {
  const PackedMatrix matrix{layout, n, k, packed.data()};
  const int columns = num_panels(n) * kPanelColumns;
  std::vector<float> values(static_cast<size_t>(columns) * static_cast<size_t>(k));
  for (int row = 0; row < columns; ++row) {
    reference::unpack_row(matrix, row, values.data() + static_cast<size_t>(row) * static_cast<size_t>(k));
  }
  return values;
}

void test_lossless(SourceType type, Layout layout, int n, int k) {
  const std::vector<uint8_t> source = random_source(type, n, k);
  const std::vector<float> values = unpack(pack(type, source, n, k, layout), n, k, layout);
  for (size_t at = 0; at < values.size(); ++at) {
    const int row = static_cast<int>(at / static_cast<size_t>(k));
    const int i = static_cast<int>(at % static_cast<size_t>(k));
    const uint8_t* from = source.data() + static_cast<size_t>(row) * row_bytes(type, k);
    const float expected = row < n ? source_value(type, from, i) : 0.0f;
    CHECK_WITH(values[at] == expected, "n %d k %d row %d element %d: %g, expected %g", n, k, row, i,
               static_cast<double>(values[at]), static_cast<double>(expected));
  }
}

// The codes and scale ggml's reference quantisers give, written from their definition.
void expect_q8(const float* x, float* values) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  const float scale = largest / 127;
  const float inverse = scale != 0 ? 1 / scale : 0;
  for (int i = 0; i < 32; ++i) values[i] = std::round(x[i] * inverse) * half_to_float(float_to_half(scale));
}

void expect_q4(const float* x, float* values) {
  float extreme = 0;
  for (int i = 0; i < 32; ++i) extreme = std::fabs(x[i]) > std::fabs(extreme) ? x[i] : extreme;
  const float scale = extreme / -8;
  const float inverse = scale != 0 ? 1 / scale : 0;
  for (int i = 0; i < 32; ++i) {
    const float code = std::fmin(15.0f, std::trunc(x[i] * inverse + 8.5f));
    values[i] = (code - 8) * half_to_float(float_to_half(scale));
  }
}

void test_quantized(Layout layout, int n, int k) {
  std::vector<uint8_t> source = random_source(SourceType::kF32, n, k);
  std::vector<float> x(source.size() / 4);
  std::memcpy(x.data(), source.data(), source.size());
  for (size_t i = 0; i < 32; ++i) x[i] = 0;                                       // a zero group
  for (size_t i = 32; i < 64 && k >= 64; ++i) x[i] = i % 2 == 0 ? 127.0f : 0.5f;  // exact halves
  for (size_t i = 64; i < 96 && k >= 96; ++i) x[i] = i % 2 == 0 ? 3.0f : -3.0f;   // two of the largest magnitude
  std::memcpy(source.data(), x.data(), source.size());
  const std::vector<float> values = unpack(pack(SourceType::kF32, source, n, k, layout), n, k, layout);
  for (size_t at = 0; at < x.size(); at += 32) {
    float expected[32];
    (layout == Layout::kW8 ? expect_q8 : expect_q4)(x.data() + at, expected);
    for (size_t i = 0; i < 32; ++i) CHECK(values[at + i] == expected[i]);
  }
  for (size_t at = x.size(); at < values.size(); ++at) CHECK(values[at] == 0.0f);
}

// Weights a file should not hold must still not break packing.
void test_non_finite() {
  const float odd[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e38f, 1e-45f};
  for (const float value : odd) {
    std::vector<uint8_t> source(32 * 4);
    for (size_t i = 0; i < 32; ++i) std::memcpy(source.data() + i * 4, &value, 4);
    pack(SourceType::kF32, source, 1, 32, Layout::kW8);
    pack(SourceType::kF32, source, 1, 32, Layout::kW4);
  }
}

// Panels packed in pieces, in any order, and nothing outside a piece touched.
void test_pieces(SourceType type, Layout layout) {
  constexpr int kN = 16 * 5 - 7;
  constexpr int kK = 64;
  const std::vector<uint8_t> source = random_source(type, kN, kK);
  const std::vector<uint8_t> whole = pack(type, source, kN, kK, layout);
  std::vector<uint8_t> pieces(whole.size(), 0xcd);
  const size_t stride = panel_bytes(layout, kK);
  CHECK(pack_panels(type, source.data(), kN, kK, layout, 2, 4, pieces.data()));
  for (size_t i = 0; i < pieces.size(); ++i) {
    CHECK(pieces[i] == (i >= 2 * stride && i < 4 * stride ? whole[i] : 0xcd));
  }
  CHECK(pack_panels(type, source.data(), kN, kK, layout, 4, 5, pieces.data()));
  CHECK(pack_panels(type, source.data(), kN, kK, layout, 0, 2, pieces.data()));
  CHECK(pieces == whole);
}

// Every half there is, and floats around every rounding boundary between two of them.
void test_half() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = half_to_float(half);
    if ((bits & 0x7fff) > 0x7c00) {
      CHECK(std::isnan(value) && std::isnan(half_to_float(float_to_half(value))));
      continue;
    }
    CHECK(float_to_half(value) == half);
    if ((bits & 0x7fff) >= 0x7bff) continue;
    const float next = half_to_float(static_cast<uint16_t>(bits + 1));
    const float middle = value + (next - value) / 2;  // exact
    CHECK(float_to_half(middle) == bits + (bits & 1));
    CHECK(float_to_half(std::nextafter(middle, value)) == bits);
    CHECK(float_to_half(std::nextafter(middle, next)) == bits + 1);
  }
  CHECK(float_to_half(65519.0f) == 0x7bff);
  CHECK(float_to_half(65520.0f) == 0x7c00);
  CHECK(float_to_half(-1e38f) == 0xfc00);
  CHECK(float_to_half(1e-30f) == 0);
  CHECK(float_to_bf16(1.0f + 1.0f / 256) == 0x3f80);
  CHECK(float_to_bf16(1.0f + 3.0f / 256) == 0x3f82);
  CHECK(float_to_bf16(3.4e38f) == 0x7f80);
  CHECK(std::isnan(bf16_to_float(float_to_bf16(float_from_bits(0x7f800001)))));
}

bool supported(SourceType type, Layout layout) {
  switch (type) {
    case SourceType::kF32:
      return true;
    case SourceType::kF16:
      return layout == Layout::kF16;
    case SourceType::kBF16:
      return layout == Layout::kBF16;
    case SourceType::kQ8_0:
      return layout == Layout::kW8;
    case SourceType::kQ4_0:
      return layout == Layout::kW4;
  }
  return false;
}

void test_combinations() {
  for (const SourceType type : kSources) {
    for (int l = 0; l < kNumLayouts; ++l) {
      const auto layout = static_cast<Layout>(l);
      if (supported(type, layout)) {
        test_pieces(type, layout);
      } else {
        const std::vector<uint8_t> source(32 * 4);
        std::vector<uint8_t> packed(panel_bytes(layout, 32));
        CHECK(!pack_panels(type, source.data(), 1, 32, layout, 0, 1, packed.data()));
      }
    }
  }
  std::vector<uint8_t> source(33 * 4);
  std::vector<uint8_t> packed(4096);
  CHECK(!pack_panels(SourceType::kF32, source.data(), 1, 33, Layout::kW8, 0, 1, packed.data()));
}

}  // namespace

int main() {
  test_half();
  test_combinations();
  for (const int n : {1, 15, 16, 17, 40}) {
    for (const int k : {1, 2, 31, 64, 65, 130}) {
      test_lossless(SourceType::kF32, Layout::kF32, n, k);
      test_lossless(SourceType::kF16, Layout::kF16, n, k);
      test_lossless(SourceType::kBF16, Layout::kBF16, n, k);
    }
    for (const int k : {32, 96, 1024}) {
      test_lossless(SourceType::kQ8_0, Layout::kW8, n, k);
      test_lossless(SourceType::kQ4_0, Layout::kW4, n, k);
      test_quantized(Layout::kW8, n, k);
      test_quantized(Layout::kW4, n, k);
    }
  }
  test_non_finite();
  return tests::finish("test_pack");
}
