// The row operations of every table: same bits as the reference, and the reference against double.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "compare.h"
#include "half.h"
#include "kernels.h"
#include "reference/exp.h"

namespace {

using namespace quintet;
using tests::Random;
using tests::same_bits;
using tests::ulps;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Forms {
  std::vector<float> f32;
  std::vector<uint16_t> bf16;
  std::vector<int8_t> q8;
  std::vector<float> q8_scale;
  std::vector<int32_t> q8_sum;
};

Forms make_forms(const KernelTable& table, const std::vector<float>& x, size_t ldx, int num_rows, int width) {
  const auto rows = static_cast<size_t>(num_rows);
  const auto columns = static_cast<size_t>(width);
  Forms forms{std::vector<float>(rows * columns), std::vector<uint16_t>(rows * (columns + columns % 2), 0xffff),
              std::vector<int8_t>(), std::vector<float>(), std::vector<int32_t>()};
  RowsOut out{forms.f32.data(), forms.bf16.data(), nullptr, nullptr, nullptr};
  if (width % kGroup == 0) {
    forms.q8.resize(rows * columns);
    forms.q8_scale.resize(rows * columns / kGroup);
    forms.q8_sum.resize(rows * columns / kGroup);
    out.q8 = forms.q8.data();
    out.q8_scale = forms.q8_scale.data();
    out.q8_sum = forms.q8_sum.data();
  }
  table.make_rows(x.data(), ldx, num_rows, width, out);
  return forms;
}

// Every table makes the reference's activations, at every width, with rows apart.
void test_make_rows_agree() {
  Random random(1);
  for (const int width : {1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 127, 160, 1024}) {
    const size_t ldx = static_cast<size_t>(width) + 3;
    const auto x = random.normal(3 * ldx, 5.0f);
    const Forms expected = make_forms(reference_kernels(), x, ldx, 3, width);
    for (const KernelTable* table : tests::tables()) {
      const Forms forms = make_forms(*table, x, ldx, 3, width);
      CHECK_WITH(same_bits(forms.f32, expected.f32), "%s f32, width %d", table->name, width);
      CHECK_WITH(same_bits(forms.bf16, expected.bf16), "%s bf16, width %d", table->name, width);
      CHECK_WITH(same_bits(forms.q8, expected.q8), "%s q8, width %d", table->name, width);
      CHECK_WITH(same_bits(forms.q8_scale, expected.q8_scale), "%s q8 scale, width %d", table->name, width);
      CHECK_WITH(same_bits(forms.q8_sum, expected.q8_sum), "%s q8 sum, width %d", table->name, width);
    }
  }
}

// Rounding to bf16 is to nearest even; NaN stays NaN; an odd row is padded with a zero.
void test_make_rows_rounds_to_bf16() {
  const std::vector<std::pair<uint32_t, uint16_t>> cases = {
      {0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80},   // tie to even, down
      {0x3f818000, 0x3f82},                                                                     // tie to even, up
      {0x3f807fff, 0x3f80}, {0x3f808001, 0x3f81}, {0x7f7fffff, 0x7f80},                         // overflows
      {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x7f800001, 0x7fc0}, {0xffffffff, 0xffff},   // NaN
      {0x00000001, 0x0000}, {0x00008001, 0x0001}, {0x007fffff, 0x0080}, {0x80018000, 0x8002}};  // subnormal
  std::vector<float> x;
  for (const auto& [bits, rounded] : cases) x.push_back(float_from_bits(bits));
  x.push_back(1.0f);
  for (const KernelTable* table : tests::tables()) {
    const Forms forms = make_forms(*table, x, x.size(), 1, static_cast<int>(x.size()));
    for (size_t i = 0; i < cases.size(); ++i) {
      CHECK_WITH(forms.bf16[i] == cases[i].second, "%s bf16 of %08x is %04x, not %04x", table->name, cases[i].first,
                 forms.bf16[i], cases[i].second);
    }
    CHECK_WITH(forms.bf16.back() == 0, "%s pads an odd row with zero", table->name);
  }
}

// A quantised group comes back within half a step, its sum is exact, no code is -128, and its scale has four bits.
void test_make_rows_quantises() {
  Random random(2);
  for (const KernelTable* table : tests::tables()) {
    for (const float size : {1e-35f, 1e-20f, 1.0f, 1e30f}) {
      auto x = random.normal(kGroup * 8, size);
      for (size_t i = 0; i < kGroup; ++i) x[i] = 0.0f;
      x[kGroup] = -1000.0f * size;
      const Forms forms = make_forms(*table, x, x.size(), 1, static_cast<int>(x.size()));
      for (size_t g = 0; g < 8; ++g) {
        int32_t sum = 0;
        const float scale = forms.q8_scale[g];
        for (size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) {
          sum += forms.q8[i];
          CHECK_WITH(forms.q8[i] != -128, "%s makes -128", table->name);
          if (size < 1e-32f) {
            CHECK_WITH(scale == 0.0f && forms.q8[i] == 0, "%s: tiny groups are zero", table->name);
          } else {
            CHECK_WITH(std::fabs(static_cast<double>(forms.q8[i]) * scale - x[i]) <= 0.500001 * scale,
                       "%s: %g is %d times %g", table->name, x[i], forms.q8[i], scale);
          }
        }
        if (scale > 0.0f) {
          double largest = 0;
          for (size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) largest = std::max(largest, std::fabs(double{x[i]}));
          CHECK_WITH((float_bits(scale) & 0xfffff) == 0, "%s: scale %a has more than four bits", table->name, scale);
          CHECK_WITH(scale >= largest / 127 * 0.999999 && scale <= largest / 127 * 1.125001, "%s: scale %g of %g",
                     table->name, scale, largest);
        }
        CHECK_WITH(sum == forms.q8_sum[g], "%s: group sum %d, not %d", table->name, forms.q8_sum[g], sum);
      }
      CHECK_WITH(forms.q8_scale[0] == 0.0f, "%s: a zero group has scale 0", table->name);
    }
  }
}

// A group with a NaN or an infinity has scale NaN and zero codes; its neighbours are untouched.
void test_make_rows_contains_nan() {
  for (const KernelTable* table : tests::tables()) {
    for (const float bad : {kNan, -kNan, kInfinity, -kInfinity}) {
      std::vector<float> x(3 * kGroup, 127.0f);
      x[kGroup + 20] = bad;
      const Forms forms = make_forms(*table, x, x.size(), 1, static_cast<int>(x.size()));
      CHECK_WITH(std::isnan(forms.q8_scale[1]), "%s: scale of a broken group is %g", table->name, forms.q8_scale[1]);
      for (size_t i = kGroup; i < 2 * kGroup; ++i)
        CHECK_WITH(forms.q8[i] == 0, "%s: code in a broken group", table->name);
      CHECK_WITH(forms.q8_sum[0] == 127 * kGroup && forms.q8_sum[2] == 127 * kGroup, "%s: neighbours", table->name);
    }
  }
}

// RMS norm has the same bits in every table, also in place, and is within a few ulp of double.
void test_rms_norm() {
  Random random(3);
  for (int width = 1; width <= 200; ++width) {
    const auto columns = static_cast<size_t>(width);
    const auto x = random.normal(columns, 3.0f);
    const auto weight = random.normal(columns);
    double mean = 0.0;
    for (const float value : x) mean += static_cast<double>(value) * value / width;
    std::vector<float> expected(columns);
    reference_kernels().rms_norm(x.data(), weight.data(), width, 1e-6f, expected.data());
    for (size_t i = 0; i < columns; ++i) {
      const double exact = x[i] / std::sqrt(mean + static_cast<double>(1e-6f)) * weight[i];
      CHECK_WITH(ulps(expected[i], exact) <= 6.0, "rms_norm, width %d: %g, not %g", width, expected[i], exact);
    }
    for (const KernelTable* table : tests::tables()) {
      std::vector<float> y = x;
      table->rms_norm(y.data(), weight.data(), width, 1e-6f, y.data());
      CHECK_WITH(same_bits(y, expected), "%s rms_norm in place, width %d", table->name, width);
    }
  }
}

void test_add_agrees() {
  Random random(4);
  for (const int width : {1, 7, 16, 31, 100, 1024}) {
    const auto x = random.normal(static_cast<size_t>(width));
    const auto y = random.normal(static_cast<size_t>(width));
    for (const KernelTable* table : tests::tables()) {
      auto sum = y;
      table->add(x.data(), width, sum.data());
      for (size_t i = 0; i < sum.size(); ++i) CHECK_WITH(sum[i] == x[i] + y[i], "%s add, width %d", table->name, width);
    }
  }
}

// exp is within 1 ulp over all floats whose result is normal; below it is 0, above infinity, and NaN stays NaN.
void test_exp() {
  double worst = 0.0;
  for (double at = -87.3; at <= 88.722831; at += 1e-4) {
    const auto x = static_cast<float>(at);
    if (x < exp_constants::kLowest) continue;
    worst = std::max(worst, ulps(reference::exp(x), std::exp(static_cast<double>(x))));
  }
  for (float size = 1e-40f; size < 1.0f; size *= 1.01f) {
    worst = std::max(worst, ulps(reference::exp(size), std::exp(static_cast<double>(size))));
    worst = std::max(worst, ulps(reference::exp(-size), std::exp(-static_cast<double>(size))));
  }
  CHECK_WITH(worst <= 1.0, "exp: %g ulp", worst);
  CHECK_WITH(reference::exp(0.0f) == 1.0f && reference::exp(-0.0f) == 1.0f, "exp(0)");
  CHECK_WITH(reference::exp(std::nextafter(exp_constants::kLowest, -100.0f)) == 0.0f, "exp below the normal range");
  CHECK_WITH(reference::exp(-kInfinity) == 0.0f, "exp(-inf)");
  CHECK_WITH(std::isfinite(reference::exp(exp_constants::kHighest)), "exp of the largest argument");
  CHECK_WITH(reference::exp(std::nextafter(exp_constants::kHighest, 100.0f)) == kInfinity, "exp beyond it");
  CHECK_WITH(reference::exp(kInfinity) == kInfinity && std::isnan(reference::exp(kNan)), "exp(inf), exp(NaN)");
}

// silu is within 3 ulp of double from -87 to 100 (ours of exp, a sum and a quotient), and tends to 0 and to x beyond.
void test_silu_mul() {
  std::vector<float> gate;
  for (int i = -87000; i <= 100000; ++i) gate.push_back(static_cast<float>(i) * 1e-3f);
  for (float size = 1e-38f; size < 1e3f; size *= 1.7f) gate.insert(gate.end(), {size / 10, -size / 10 * 0.8f});
  const int width = static_cast<int>(gate.size());
  const std::vector<float> up(gate.size(), 1.0f);
  std::vector<float> expected(gate.size());
  reference_kernels().silu_mul(gate.data(), up.data(), width, expected.data());
  double worst = 0.0;
  for (size_t i = 0; i < gate.size(); ++i) {
    const double exact = gate[i] / (1.0 + std::exp(-static_cast<double>(gate[i])));
    if (gate[i] > -87.0f) worst = std::max(worst, ulps(expected[i], exact));
  }
  CHECK_WITH(worst <= 3.0, "silu: %g ulp", worst);
  for (const KernelTable* table : tests::tables()) {
    std::vector<float> y = gate;
    table->silu_mul(y.data(), up.data(), width, y.data());
    CHECK_WITH(same_bits(y, expected), "%s silu_mul in place", table->name);

    const std::vector<float> edges = {-1e9f, 1e9f, kNan, 0.0f, -100.0f};
    const std::vector<float> twos(edges.size(), 2.0f);
    std::vector<float> z(edges.size());
    table->silu_mul(edges.data(), twos.data(), static_cast<int>(edges.size()), z.data());
    CHECK_WITH(z[0] == 0.0f && z[1] == 2e9f && std::isnan(z[2]) && z[3] == 0.0f && std::fabs(z[4]) < 1e-36f,
               "%s silu of the edges: %g %g %g %g %g", table->name, z[0], z[1], z[2], z[3], z[4]);
  }
}

// Layer norm has the same bits in every table, also in place, with a bias and without, and is that of double.
void test_layer_norm() {
  Random random(6);
  for (int width = 1; width <= 200; ++width) {
    const auto columns = static_cast<size_t>(width);
    auto x = random.normal(columns, 3.0f);
    for (float& value : x) value += 10.0f;
    const auto weight = random.normal(columns);
    const auto bias = random.normal(columns);
    double mean = 0.0, variance = 0.0;
    for (const float value : x) mean += static_cast<double>(value) / width;
    for (const float value : x) variance += (value - mean) * (value - mean) / width;
    for (const float* b : {bias.data(), static_cast<const float*>(nullptr)}) {
      std::vector<float> expected(columns);
      reference_kernels().layer_norm(x.data(), weight.data(), b, width, 1e-5f, expected.data());
      for (size_t i = 0; i < columns; ++i) {
        const double exact =
            (x[i] - mean) / std::sqrt(variance + static_cast<double>(1e-5f)) * weight[i] + (b == nullptr ? 0.0 : b[i]);
        // One column has no variance: what is left is the rounding of its mean, times 316.
        CHECK_WITH(std::fabs(expected[i] - exact) <= 1e-4, "layer_norm, width %d: %g, not %g", width, expected[i],
                   exact);
      }
      for (const KernelTable* table : tests::tables()) {
        std::vector<float> y = x;
        table->layer_norm(y.data(), weight.data(), b, width, 1e-5f, y.data());
        CHECK_WITH(same_bits(y, expected), "%s layer_norm in place, width %d", table->name, width);
      }
    }
  }
}

// gelu is x * Phi(x) to the error of its erfc, with the same bits in every table, alone and times another row.
void test_gelu() {
  std::vector<float> x;
  for (int i = -20000; i <= 20000; ++i) x.push_back(static_cast<float>(i) * 1e-3f);
  for (float size = 1e-38f; size < 1e3f; size *= 1.7f) x.insert(x.end(), {size, -size});
  const int width = static_cast<int>(x.size());
  std::vector<float> expected(x.size());
  reference_kernels().gelu(x.data(), nullptr, width, expected.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = x[i] * 0.5 * std::erfc(-static_cast<double>(x[i]) / std::sqrt(2.0));
    CHECK_WITH(std::fabs(expected[i] - exact) <= 5e-7 * std::max(1.0, std::fabs(static_cast<double>(x[i]))),
               "gelu(%g) is %g, not %g", x[i], expected[i], exact);
  }
  std::vector<float> doubled(x.size());
  for (size_t i = 0; i < x.size(); ++i) doubled[i] = expected[i] * 2.0f;
  const std::vector<float> twos(x.size(), 2.0f);
  for (const KernelTable* table : tests::tables()) {
    std::vector<float> y = x;
    table->gelu(y.data(), nullptr, width, y.data());
    CHECK_WITH(same_bits(y, expected), "%s gelu in place", table->name);
    y = x;
    table->gelu(y.data(), twos.data(), width, y.data());
    CHECK_WITH(same_bits(y, doubled), "%s gelu times two", table->name);
    float broken = kNan;
    table->gelu(&broken, nullptr, 1, &broken);
    CHECK_WITH(std::isnan(broken), "%s gelu of NaN", table->name);
  }
}

// tanh is that of double, with the same bits in every table, and 1 and -1 far out.
void test_tanh() {
  std::vector<float> x = {-1e9f, 1e9f, 0.0f};
  for (int i = -10000; i <= 10000; ++i) x.push_back(static_cast<float>(i) * 1e-3f);
  const int width = static_cast<int>(x.size());
  std::vector<float> expected(x.size());
  reference_kernels().tanh(x.data(), width, expected.data());
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK_WITH(std::fabs(expected[i] - std::tanh(static_cast<double>(x[i]))) <= 3e-7, "tanh(%g) is %g", x[i],
               expected[i]);
  }
  for (const KernelTable* table : tests::tables()) {
    std::vector<float> y = x;
    table->tanh(y.data(), width, y.data());
    CHECK_WITH(same_bits(y, expected), "%s tanh in place", table->name);
  }
}

// Runs f of each table on x, in place, and compares with `exact` of double and with the bits of the reference.
template <typename Function, typename Exact>
void check_elementwise(const char* name, const std::vector<float>& x, double bound, Function&& f, Exact&& exact) {
  std::vector<float> expected = x;
  f(reference_kernels(), expected);
  for (size_t i = 0; i < x.size(); ++i) {
    const double wanted = exact(static_cast<double>(x[i]));
    CHECK_WITH(std::fabs(expected[i] - wanted) <= bound * std::max(1.0, std::fabs(wanted)), "%s(%g) is %g, not %g",
               name, x[i], expected[i], wanted);
  }
  for (const KernelTable* table : tests::tables()) {
    std::vector<float> y = x;
    f(*table, y);
    CHECK_WITH(same_bits(y, expected), "%s %s", table->name, name);
  }
}

// What decoders add to the row operations is that of double, with the same bits in every table.
void test_elementwise() {
  std::vector<float> x = {0.0f, -0.0f};
  for (int i = -12000; i <= 12001; ++i) x.push_back(static_cast<float>(i) * 1e-3f);
  const int width = static_cast<int>(x.size());
  const auto at = [](std::vector<float>& y) { return y.data(); };
  const std::vector<float> twos(x.size(), 2.0f);
  check_elementwise(
      "gelu_tanh", x, 5e-7, [&](const KernelTable& t, auto& y) { t.gelu_tanh(at(y), nullptr, width, at(y)); },
      [](double v) { return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))); });
  check_elementwise(
      "gelu_tanh times two", x, 5e-7,
      [&](const KernelTable& t, auto& y) { t.gelu_tanh(at(y), twos.data(), width, at(y)); },
      [](double v) { return v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))); });
  const auto swish = [](double v) { return v / (1 + std::exp(-1.702 * v)); };
  check_elementwise(
      "swiglu_clamped of gate", x, 1e-6,
      [&](const KernelTable& t, auto& y) { t.swiglu_clamped(at(y), twos.data(), 7.0f, width, at(y)); },
      [&](double v) { return 3 * swish(std::min(v, 7.0)); });
  check_elementwise(
      "swiglu_clamped of up", x, 1e-6,
      [&](const KernelTable& t, auto& y) { t.swiglu_clamped(twos.data(), at(y), 7.0f, width, at(y)); },
      [&](double v) { return swish(2.0) * (std::clamp(v, -7.0, 7.0) + 1); });
  check_elementwise(
      "scale", x, 1e-7, [&](const KernelTable& t, auto& y) { t.scale(at(y), 0.3f, width, at(y)); },
      [](double v) { return v * static_cast<double>(0.3f); });
  check_elementwise(
      "add_scaled", x, 1e-7, [&](const KernelTable& t, auto& y) { t.add_scaled(twos.data(), 0.3f, width, at(y)); },
      [](double v) { return v + 2 * static_cast<double>(0.3f); });
  check_elementwise(
      "softcap", x, 1e-6, [&](const KernelTable& t, auto& y) { t.softcap(at(y), 5.0f, width, at(y)); },
      [](double v) { return 5 * std::tanh(v / 5); });
  for (const KernelTable* table : tests::tables()) {
    std::vector<float> broken(3, kNan);
    table->swiglu_clamped(broken.data(), twos.data(), 7.0f, 1, broken.data());
    table->softcap(broken.data() + 1, 5.0f, 1, broken.data() + 1);
    table->gelu_tanh(broken.data() + 2, nullptr, 1, broken.data() + 2);
    for (const float value : broken) CHECK_WITH(std::isnan(value), "%s hides a NaN", table->name);
  }
}

// Rotation has the same bits in every table and is that of double, for both pairings and for partial rotation.
void test_rope() {
  Random random(5);
  for (const int head_dim : {2, 16, 34, 64, 80, 128, 256}) {
    for (const int rotary_dim : {head_dim, head_dim / 4 * 2}) {
      for (const bool interleaved : {false, true}) {
        const int half = rotary_dim / 2;
        std::vector<float> cos, sin;
        for (int i = 0; i < half; ++i) {
          const double angle = 1234.0 * std::pow(10000.0, -2.0 * i / rotary_dim);
          cos.push_back(static_cast<float>(std::cos(angle)));
          sin.push_back(static_cast<float>(std::sin(angle)));
        }
        const RopeArgs args{head_dim, rotary_dim, interleaved, cos.data(), sin.data()};
        const auto x = random.normal(static_cast<size_t>(head_dim) * 3);
        auto expected = x;
        reference_kernels().rope(expected.data(), 3, args);
        for (int h = 0; h < 3; ++h) {
          for (int i = 0; i < head_dim; ++i) {
            const auto at = static_cast<size_t>(h * head_dim + i);
            double exact = x[at];
            if (i < rotary_dim) {
              const int pair = interleaved ? i / 2 : i % half;
              const bool first = interleaved ? i % 2 == 0 : i < half;
              const auto partner = static_cast<size_t>(h * head_dim + (interleaved ? i ^ 1
                                                                       : first     ? i + half
                                                                                   : i - half));
              const auto index = static_cast<size_t>(pair);
              exact = static_cast<double>(x[at]) * cos[index] +
                      (first ? -1.0 : 1.0) * static_cast<double>(x[partner]) * sin[index];
            }
            CHECK_WITH(std::fabs(expected[at] - exact) <= 1e-6, "rope %d of %d: %g, not %g", rotary_dim, head_dim,
                       expected[at], exact);
          }
        }
        for (const KernelTable* table : tests::tables()) {
          auto y = x;
          table->rope(y.data(), 3, args);
          CHECK_WITH(same_bits(y, expected), "%s rope, %d of %d, interleaved %d", table->name, rotary_dim, head_dim,
                     interleaved);
        }
      }
    }
  }
}

}  // namespace

int main() {
  test_make_rows_agree();
  test_make_rows_rounds_to_bf16();
  test_make_rows_quantises();
  test_make_rows_contains_nan();
  test_rms_norm();
  test_add_agrees();
  test_exp();
  test_silu_mul();
  test_layer_norm();
  test_gelu();
  test_tanh();
  test_elementwise();
  test_rope();
  return quintet::tests::finish("test_rowwise");
}
