// Matrix kernels: every table against the reference, the reference against float64, and the same bits whatever the
// batch, the row range and the panel range.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "check.h"
#include "half.h"
#include "impl.h"
#include "q8_scale.h"
#include "sources.h"
#include "tables.h"

namespace {

using namespace quintet;
using tests::kLayoutNames;
using tests::LinearTable;

std::mt19937 random_bits(20240607);

float random_float() { return std::uniform_real_distribution<float>(-1.0f, 1.0f)(random_bits); }

bool is_codes(Layout layout) { return activation_form(layout) == ActivationForm::kQ8; }

// Exactly as many bytes as the contract grants, 64-byte aligned, so that AddressSanitizer sees a read past the end.
template <typename T>
class Aligned {
 public:
  explicit Aligned(size_t count) : data_(static_cast<T*>(::operator new(count * sizeof(T), kAlignment))), size_(count) {
    std::memset(data_.get(), 0, count * sizeof(T));
  }
  T* data() { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(T* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<T, Delete> data_;
  size_t size_;
};

struct Matrix {
  Matrix(Layout layout, int n, int k)
      : packed(panel_bytes(layout, k) * static_cast<size_t>(num_panels(n))), view{layout, n, k, packed.data()} {
    const tests::Source& from = tests::source_for(layout);
    const std::vector<uint8_t> source = tests::random_source(from, n, k, random_bits);
    CHECK(pack_panels(from.type, source.data(), n, k, layout, 0, num_panels(n), packed.data()));
  }
  Aligned<uint8_t> packed;
  PackedMatrix view;
};

// Rows in the form the layout reads; only that form is there.
struct Activations {
  // Not of_make_rows: with scales that make_rows does not give, but the contract allows.
  Activations(Layout layout, int num_rows, int k, bool of_make_rows = true)
      : f32(size(num_rows, k)),
        bf16(size(num_rows, (k + 1) / 2 * 2)),
        q8(size(num_rows, k)),
        scale(size(num_rows, k / kGroup)),
        sum(size(num_rows, k / kGroup)),
        rows{num_rows, k, nullptr, nullptr, nullptr, nullptr, nullptr} {
    for (size_t i = 0; i < f32.size(); ++i) f32[i] = random_float();
    switch (activation_form(layout)) {
      case ActivationForm::kF32:
        rows.f32 = f32.data();
        break;
      case ActivationForm::kBF16:
        for (size_t r = 0; r < static_cast<size_t>(num_rows); ++r) {
          for (size_t i = 0; i < static_cast<size_t>(k); ++i) {
            bf16[r * static_cast<size_t>((k + 1) / 2 * 2) + i] = float_to_bf16(f32[r * static_cast<size_t>(k) + i]);
          }
        }
        rows.bf16 = bf16.data();
        break;
      case ActivationForm::kQ8:
        for (size_t g = 0; g < scale.size(); ++g) {
          // Some groups at both ends of the range, where sums of products would overflow 16 bits; some zero.
          const unsigned kind = random_bits() % 8;
          const float any_scale = std::fabs(random_float()) * 0.02f;
          scale[g] = kind == 0 ? 0.0f : of_make_rows ? q8_scale(any_scale * 127) : any_scale;
          sum[g] = 0;
          for (size_t i = 0; i < kGroup; ++i) {
            const int any = static_cast<int>(random_bits() % 255) - 127;
            const int value = kind == 0 ? 0 : kind == 1 ? 127 : kind == 2 ? -127 : any;
            q8[g * kGroup + i] = static_cast<int8_t>(value);
            sum[g] += value;
          }
        }
        rows.q8 = q8.data();
        rows.q8_scale = scale.data();
        rows.q8_sum = sum.data();
        break;
    }
  }
  static size_t size(int num_rows, int width) { return static_cast<size_t>(num_rows) * static_cast<size_t>(width); }

  // Element i of a row, as the number it stands for.
  double value(int row, int i) const {
    const size_t at = size(row, rows.width) + static_cast<size_t>(i);
    if (rows.f32 != nullptr) return static_cast<double>(f32[at]);
    if (rows.bf16 != nullptr) {
      return static_cast<double>(bf16_to_float(bf16[size(row, (rows.width + 1) / 2 * 2) + static_cast<size_t>(i)]));
    }
    return static_cast<double>(q8[at]) * static_cast<double>(scale[at / kGroup]);
  }

  Aligned<float> f32;
  Aligned<uint16_t> bf16;
  Aligned<int8_t> q8;
  Aligned<float> scale;
  Aligned<int32_t> sum;
  Rows rows;
};

// An output with a margin, filled with a pattern no kernel writes.
class Output {
 public:
  Output(int num_rows, int n)
      : ldy(static_cast<size_t>(num_panels(n) * kPanelColumns + 16)), values_(static_cast<size_t>(num_rows) * ldy) {
    clear();
  }
  void clear() {
    for (size_t i = 0; i < values_.size(); ++i) values_[i] = kPoison;
  }
  float* data() { return values_.data(); }
  float at(int row, int column) const { return values_[static_cast<size_t>(row) * ldy + static_cast<size_t>(column)]; }
  // True if exactly rows [row_begin, row_end) x panels [panel_begin, panel_end) were written.
  bool wrote_exactly(int row_begin, int row_end, int panel_begin, int panel_end) const {
    for (size_t i = 0; i < values_.size(); ++i) {
      const int row = static_cast<int>(i / ldy);
      const int panel = static_cast<int>(i % ldy) / kPanelColumns;
      const bool inside = row >= row_begin && row < row_end && panel >= panel_begin && panel < panel_end;
      if ((float_bits(values_[i]) == float_bits(kPoison)) == inside) return false;
    }
    return true;
  }

  const size_t ldy;

 private:
  static constexpr float kPoison = -12345.678f;
  Aligned<float> values_;
};

bool same_bits(float a, float b) { return float_bits(a) == float_bits(b); }

// What a float chain may be off by: each step rounds once, to half a unit of a partial sum that is at most `magnitude`.
// Float layouts take a step per element, code layouts one or two per group, or three of which two round the group's own
// part.  The weights it is compared with are rounded too.
double tolerance(Layout layout, int k, double magnitude) {
  const double unit = std::ldexp(1.0, -24);
  const bool two = has_halves(layout) || has_min(layout);
  const double steps = is_codes(layout) ? (two ? 2 : 1) * k / kGroup + 3 : k;
  return (steps + 1) * unit * magnitude * 1.01 + 1e-30;
}

// What bounds the partial sums, per weight: its magnitude.  Where a weight is s code - m, the two are summed apart, and
// may be larger than what they leave: random codes spread over most of their range, so with w the largest weight that
// shares their scale, s code and m are each at most 4 w.
std::vector<double> part_magnitudes(Layout layout, const std::vector<float>& w) {
  std::vector<double> parts(w.size());
  for (size_t i = 0; i < w.size(); ++i) parts[i] = std::fabs(static_cast<double>(w[i]));
  const size_t span = has_halves(layout) ? kGroup / 2 : kGroup;
  for (size_t begin = 0; has_min(layout) && begin < w.size(); begin += span) {
    double largest = 0;
    for (size_t i = begin; i < begin + span; ++i) largest = std::max(largest, parts[i]);
    for (size_t i = begin; i < begin + span; ++i) parts[i] = 8 * largest;
  }
  return parts;
}

// All columns of a matrix as floats.
std::vector<float> unpack(const Matrix& matrix) {
  const auto k = static_cast<size_t>(matrix.view.k);
  std::vector<float> all(static_cast<size_t>(matrix.view.n) * k);
  for (int row = 0; row < matrix.view.n; ++row) {
    reference::unpack_row(matrix.view, row, all.data() + static_cast<size_t>(row) * k);
  }
  return all;
}

// One shape in one layout: the reference against float64, every table against the reference.
void test_shape(const std::vector<LinearTable>& tables, Layout layout, int n, int k, int num_rows,
                bool of_make_rows = true) {
  const int l = static_cast<int>(layout);
  const Matrix matrix(layout, n, k);
  const Activations x(layout, num_rows, k, of_make_rows);
  const std::vector<float> w = unpack(matrix);
  const std::vector<double> parts = part_magnitudes(layout, w);
  const int panels = num_panels(n);
  Output expected(num_rows, n);
  tables[0].linear[l](matrix.view, x.rows, 0, num_rows, 0, panels, expected.data(), expected.ldy);
  CHECK(expected.wrote_exactly(0, num_rows, 0, panels));
  std::vector<double> magnitudes(static_cast<size_t>(num_rows) * static_cast<size_t>(n));
  for (int row = 0; row < num_rows; ++row) {
    for (int column = 0; column < n; ++column) {
      double exact = 0;
      double magnitude = 0;
      for (int i = 0; i < k; ++i) {
        const size_t at = Activations::size(column, k) + static_cast<size_t>(i);
        exact += x.value(row, i) * static_cast<double>(w[at]);
        magnitude += std::fabs(x.value(row, i)) * parts[at];
      }
      magnitudes[Activations::size(row, n) + static_cast<size_t>(column)] = magnitude;
      const double error = std::fabs(static_cast<double>(expected.at(row, column)) - exact);
      CHECK_WITH(error <= tolerance(layout, k, magnitude), "reference %s n %d k %d row %d column %d: error %g of %g",
                 kLayoutNames[l], n, k, row, column, error, magnitude);
    }
    for (int column = n; column < panels * kPanelColumns; ++column) CHECK(expected.at(row, column) == 0.0f);
  }
  for (size_t t = 1; t < tables.size(); ++t) {
    Output actual(num_rows, n);
    tables[t].linear[l](matrix.view, x.rows, 0, num_rows, 0, panels, actual.data(), actual.ldy);
    CHECK(actual.wrote_exactly(0, num_rows, 0, panels));
    // Only the hardware's bf16 dot product may differ: another rounding order, two roundings per pair.
    const bool bitwise = layout != Layout::kBF16 || !tests::has_bf16_dots(tables[t].name);
    for (int row = 0; row < num_rows; ++row) {
      for (int column = 0; column < n; ++column) {
        const float a = actual.at(row, column);
        const float b = expected.at(row, column);
        const double bound =
            2 * tolerance(layout, k, magnitudes[Activations::size(row, n) + static_cast<size_t>(column)]);
        CHECK_WITH(bitwise ? same_bits(a, b) : std::fabs(static_cast<double>(a) - static_cast<double>(b)) <= bound,
                   "%s %s n %d k %d rows %d row %d column %d: %.9g, reference %.9g", tables[t].name, kLayoutNames[l], n,
                   k, num_rows, row, column, static_cast<double>(a), static_cast<double>(b));
      }
    }
  }
}

// A row alone, in any batch, at any index, over any split of rows and panels: the same bits, and nothing else written.
void test_ranges(const LinearTable& table, Layout layout, int n, int k) {
  const int l = static_cast<int>(layout);
  constexpr int kRows = 37;
  const Matrix matrix(layout, n, k);
  const Activations x(layout, kRows, k);
  const int panels = num_panels(n);
  Output alone(kRows, n);
  for (int row = 0; row < kRows; ++row) {
    for (int panel = 0; panel < panels; ++panel) {
      table.linear[l](matrix.view, x.rows, row, row + 1, panel, panel + 1, alone.data(), alone.ldy);
    }
  }
  CHECK(alone.wrote_exactly(0, kRows, 0, panels));
  for (int row_begin = 0; row_begin < kRows; row_begin += 1 + row_begin / 3) {
    for (int row_end = row_begin; row_end <= kRows; ++row_end) {
      const int panel_begin = (row_begin + row_end) % panels;
      const int panel_end = panel_begin + 1 + row_end % (panels - panel_begin);
      Output part(kRows, n);
      table.linear[l](matrix.view, x.rows, row_begin, row_end, panel_begin, panel_end, part.data(), part.ldy);
      CHECK_WITH(part.wrote_exactly(row_begin, row_end, panel_begin, panel_end), "%s %s rows %d..%d panels %d..%d",
                 table.name, kLayoutNames[l], row_begin, row_end, panel_begin, panel_end);
      bool same = true;
      for (int row = row_begin; row < row_end; ++row) {
        for (int column = panel_begin * 16; column < panel_end * 16; ++column) {
          same = same && same_bits(part.at(row, column), alone.at(row, column));
        }
      }
      CHECK_WITH(same, "%s %s rows %d..%d panels %d..%d differ from rows alone", table.name, kLayoutNames[l], row_begin,
                 row_end, panel_begin, panel_end);
    }
  }
}

void test_layout(const std::vector<LinearTable>& tables, Layout layout) {
  const int unit = k_multiple(layout) == 1 ? kGroup : k_multiple(layout);
  for (const int n : {1, 15, 16, 17, 33, 80}) {
    for (const int k : {unit, 2 * unit, 3 * unit}) {
      if (k > 256 && n > 17) continue;
      for (int num_rows = 1; num_rows <= 19; num_rows += tests::few_shapes() ? 6 : 1) {
        test_shape(tables, layout, n, k, num_rows);
      }
      test_shape(tables, layout, n, k, 33);
    }
  }
  test_shape(tables, layout, 48, 1024, 5);
  if (is_codes(layout)) {
    for (const int num_rows : {1, 7, 16}) test_shape(tables, layout, 33, 2 * unit, num_rows, false);
    test_shape(tables, layout, 33, 12288, 13);  // more groups than some kernels have room for at once
  }
  test_shape(tables, layout, 17, 3072, 2);
  if (!is_codes(layout)) {
    for (const int k : {1, 2, 3, 31, 33, 127}) {
      for (const int num_rows : {1, 2, 5, 12, 13}) test_shape(tables, layout, 33, k, num_rows);
    }
  }
  // More panels than any kernel takes in one pass over the rows.
  for (const LinearTable& table : tables) test_ranges(table, layout, 20 * 16 - 3, is_codes(layout) ? unit : 67);
}

}  // namespace

int main() {
  const std::vector<LinearTable> tables = tests::linear_tables();
  for (const LinearTable& table : tables) std::printf("table %s\n", table.name);
  for (int layout = 0; layout < kNumLayouts; ++layout) test_layout(tables, static_cast<Layout>(layout));
  return tests::finish("test_linear");
}
