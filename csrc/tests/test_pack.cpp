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
#include "sources.h"

namespace {

using namespace quintet;
using tests::Source;

std::mt19937 random_bits(7);

float random_float() { return std::normal_distribution<float>(0.0f, 1.0f)(random_bits); }

float half_at(const uint8_t* p) {
  uint16_t half;
  std::memcpy(&half, p, 2);
  return half_to_float(half);
}

// The six bits of scale (or min) j of a Q4_K or Q5_K block; p is at its twelve bytes.
int six_bits(const uint8_t* p, int j, bool min) {
  if (j < 4) return p[min ? j + 4 : j] & 63;
  const int low = min ? p[j + 4] >> 4 : p[j + 4] & 15;
  return low + (p[min ? j : j - 4] >> 6) * 16;
}

// What 4-bit codes stand for in IQ4_NL and IQ4_XS, and the magnitudes of E2M1.
constexpr float kIQ4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr float kE2M1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

// Element i of a file row as a number, straight from the format's definition.
float source_value(const Source& source, const uint8_t* row, int i) {
  const uint8_t* p = row + static_cast<size_t>(i / source.block_k) * source.block_bytes;
  i %= source.block_k;
  const int sub = i / 32;
  // Of formats of 32: nibble and fifth bit of element i, where they are at these places.
  const auto nibble = [&](int at) { return i < 16 ? p[at + i] & 15 : p[at + i - 16] >> 4; };
  const auto fifth = [&](int at) { return (p[at + i / 8] >> i % 8 & 1) * 16; };
  // Of formats of 256: 64 elements share 32 bytes of nibbles.
  const auto nibble_of_64 = [&](int at) { return p[at + i / 64 * 32 + i % 32] >> (sub % 2 * 4) & 15; };
  switch (source.type) {
    case SourceType::kF32: {
      float value;
      std::memcpy(&value, p, 4);
      return value;
    }
    case SourceType::kF16:
      return half_at(p);
    case SourceType::kBF16: {
      uint16_t bits;
      std::memcpy(&bits, p, 2);
      return bf16_to_float(bits);
    }
    case SourceType::kQ8_0:
      return static_cast<float>(static_cast<int8_t>(p[2 + i])) * half_at(p);
    case SourceType::kQ4_0:
      return static_cast<float>(nibble(2) - 8) * half_at(p);
    case SourceType::kQ5_0:
      return static_cast<float>(nibble(6) + fifth(2) - 16) * half_at(p);
    case SourceType::kQ4_1:
      return static_cast<float>(nibble(4)) * half_at(p) + half_at(p + 2);
    case SourceType::kQ5_1:
      return static_cast<float>(nibble(8) + fifth(4)) * half_at(p) + half_at(p + 2);
    case SourceType::kQ4_K:
    case SourceType::kQ5_K: {
      const float scale = half_at(p) * static_cast<float>(six_bits(p + 4, sub, false));
      const float min = half_at(p + 2) * static_cast<float>(six_bits(p + 4, sub, true));
      const bool five = source.type == SourceType::kQ5_K;
      const int code = five ? nibble_of_64(48) + (p[16 + i % 32] >> sub & 1) * 16 : nibble_of_64(16);
      return static_cast<float>(code) * scale - min;
    }
    case SourceType::kQ6_K: {
      const int half = i / 128;
      const int quarter = i % 128 / 32;
      const int low = p[half * 64 + quarter % 2 * 32 + i % 32] >> (quarter / 2 * 4) & 15;
      const int high = p[128 + half * 32 + i % 32] >> (quarter * 2) & 3;
      const auto scale = static_cast<float>(static_cast<int8_t>(p[192 + i / 16]));
      return half_at(p + 208) * scale * static_cast<float>(low + high * 16 - 32);
    }
    case SourceType::kQ3_K: {
      const int j = i / 16;
      const int low = p[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
      const int code = low + (p[i % 32] >> sub & 1) * 4;
      const int scale_low = j < 8 ? p[96 + j] & 15 : p[96 + j - 8] >> 4;
      const int scale = scale_low + (p[104 + j % 4] >> (j / 4 * 2) & 3) * 16 - 32;
      return half_at(p + 108) * static_cast<float>(scale) * static_cast<float>(code - 4);
    }
    case SourceType::kQ2_K: {
      const int code = p[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
      const float scale = half_at(p + 80) * static_cast<float>(p[i / 16] & 15);
      return scale * static_cast<float>(code) - half_at(p + 82) * static_cast<float>(p[i / 16] >> 4);
    }
    case SourceType::kIQ4_NL:
      return half_at(p) * kIQ4[nibble(2)];
    case SourceType::kIQ4_XS: {
      const int code = p[8 + sub * 16 + i % 16] >> (i % 32 / 16 * 4) & 15;
      const int low = p[4 + sub / 2] >> (sub % 2 * 4) & 15;
      const int high = (p[2 + sub / 4] >> (sub % 4 * 2)) & 3;
      return half_at(p) * static_cast<float>(low + high * 16 - 32) * kIQ4[code];
    }
    case SourceType::kMXFP4:
      return std::ldexp(kE2M1[nibble(1) % 8], p[0] - 127) * (nibble(1) < 8 ? 1.0f : -1.0f);
    case SourceType::kTable4:
    case SourceType::kTable3: {
      const int code = p[34 + sub * 16 + i % 16] >> (i % 32 / 16 * 4) & (source.type == SourceType::kTable4 ? 15 : 7);
      const auto scale = static_cast<float>(static_cast<int8_t>(p[18 + i / 16]));
      return half_at(p) * scale * static_cast<float>(tests::kTableValues[code] - 64) / 8;
    }
  }
  return 0;
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

void test_lossless(const Source& source, int n, int k) {
  const std::vector<uint8_t> bytes = tests::random_source(source, n, k, random_bits);
  const std::vector<float> values = unpack(pack(source.type, bytes, n, k, source.layout), n, k, source.layout);
  for (size_t at = 0; at < values.size(); ++at) {
    const int row = static_cast<int>(at / static_cast<size_t>(k));
    const int i = static_cast<int>(at % static_cast<size_t>(k));
    const uint8_t* from = bytes.data() + static_cast<size_t>(row) * source_row_bytes(source.type, k);
    const float expected = row < n ? source_value(source, from, i) : 0.0f;
    CHECK_WITH(values[at] == expected, "type %d n %d k %d row %d element %d: %.9g, expected %.9g",
               static_cast<int>(source.type), n, k, row, i, static_cast<double>(values[at]),
               static_cast<double>(expected));
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
  std::vector<float> x(static_cast<size_t>(n) * static_cast<size_t>(k));
  for (float& value : x) value = random_float();
  for (size_t i = 0; i < 32; ++i) x[i] = 0;                                       // a zero group
  for (size_t i = 32; i < 64 && k >= 64; ++i) x[i] = i % 2 == 0 ? 127.0f : 0.5f;  // exact halves
  for (size_t i = 64; i < 96 && k >= 96; ++i) x[i] = i % 2 == 0 ? 3.0f : -3.0f;   // two of the largest magnitude
  std::vector<uint8_t> source(x.size() * 4);
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
void test_pieces(const Source& source, Layout layout) {
  constexpr int kN = 16 * 5 - 7;
  constexpr int kK = 256;
  const std::vector<uint8_t> bytes = tests::random_source(source, kN, kK, random_bits);
  const std::vector<uint8_t> whole = pack(source.type, bytes, kN, kK, layout);
  std::vector<uint8_t> pieces(whole.size(), 0xcd);
  const size_t stride = panel_bytes(layout, kK);
  CHECK(pack_panels(source.type, bytes.data(), kN, kK, layout, 2, 4, pieces.data()));
  for (size_t i = 0; i < pieces.size(); ++i) {
    CHECK(pieces[i] == (i >= 2 * stride && i < 4 * stride ? whole[i] : 0xcd));
  }
  CHECK(pack_panels(source.type, bytes.data(), kN, kK, layout, 4, 5, pieces.data()));
  CHECK(pack_panels(source.type, bytes.data(), kN, kK, layout, 0, 2, pieces.data()));
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

bool supported(const Source& source, Layout layout) {
  if (layout == source.layout) return true;
  return source.type == SourceType::kF32 &&
         (layout == Layout::kF16 || layout == Layout::kBF16 || layout == Layout::kW8 || layout == Layout::kW4);
}

void test_combinations() {
  for (const Source& source : tests::sources()) {
    CHECK(source_row_bytes(source.type, source.block_k) == source.block_bytes);
    CHECK(source_row_bytes(source.type, 0) == 0);
    if (source.block_k > 1) CHECK(source_row_bytes(source.type, source.block_k + 1) == 0);
    for (int l = 0; l < kNumLayouts; ++l) {
      const auto layout = static_cast<Layout>(l);
      if (supported(source, layout)) {
        test_pieces(source, layout);
        if (k_multiple(layout) == 1) continue;
      }
      // An unsupported layout, or a supported one with a k it cannot hold.
      const int k = supported(source, layout) ? k_multiple(layout) + 1 : 256;
      const std::vector<uint8_t> bytes(static_cast<size_t>(k) * 4);
      std::vector<uint8_t> packed(panel_bytes(layout, 512), 0xcd);
      CHECK(!pack_panels(source.type, bytes.data(), 1, k, layout, 0, 1, packed.data()));
      for (const uint8_t byte : packed) CHECK(byte == 0xcd);
    }
  }
  for (const Layout layout : {Layout::kW6k, Layout::kW3k, Layout::kW2k, Layout::kW4t, Layout::kW3t}) {
    const SourceType type = tests::source_for(layout).type;
    constexpr int kTooWide = kMaxHalvesK + kSuperBlock;
    const std::vector<uint8_t> wide(source_row_bytes(type, kTooWide));
    std::vector<uint8_t> packed(panel_bytes(layout, kTooWide));
    CHECK(pack_panels(type, wide.data(), 1, kMaxHalvesK, layout, 0, 1, packed.data()));
    CHECK(!pack_panels(type, wide.data(), 1, kTooWide, layout, 0, 1, packed.data()));
  }
}

// Every exponent MXFP4 has, denormal scales included, with a code of each magnitude and sign.
void test_exponents() {
  const Source& source = tests::source_for(Layout::kW4e);
  std::vector<uint8_t> bytes(256 * 17);
  for (size_t e = 0; e < 256; ++e) {
    bytes[e * 17] = static_cast<uint8_t>(e);
    for (size_t i = 0; i < 16; ++i) bytes[e * 17 + 1 + i] = static_cast<uint8_t>(i * 17);
  }
  const std::vector<float> values = unpack(pack(source.type, bytes, 256, 32, source.layout), 256, 32, source.layout);
  for (size_t at = 0; at < values.size(); ++at) {
    CHECK(values[at] == source_value(source, bytes.data() + at / 32 * 17, static_cast<int>(at % 32)));
  }
}

}  // namespace

int main() {
  test_half();
  test_combinations();
  for (const int n : {1, 15, 16, 17, 40}) {
    for (const Source& source : tests::sources()) {
      for (const int blocks : {1, 2, 3, 5}) test_lossless(source, n, blocks * source.block_k);
      if (source.block_k == 1) {
        for (const int k : {31, 64, 65, 130}) test_lossless(source, n, k);
      }
    }
    for (const int k : {32, 96, 1024}) {
      test_quantized(Layout::kW8, n, k);
      test_quantized(Layout::kW4, n, k);
    }
  }
  test_non_finite();
  test_exponents();
  return tests::finish("test_pack");
}
