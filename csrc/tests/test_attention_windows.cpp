// Attention that sees tokens behind itself, or only some before, with capped scores and with sinks.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "compare.h"
#include "kernels.h"
#include "paged.h"
#include "tables.h"

namespace {

using namespace quintet;
using tests::nrmse;
using tests::PagedSequence;
using tests::same_bits;

constexpr KVType kTypes[] = {KVType::kF32, KVType::kBF16, KVType::kInt8};
constexpr std::pair<int, int> kWindows[] = {{kUnlimited, kUnlimited}, {64, 64}, {8, 8},   {0, 0},
                                            {0, kUnlimited},          {7, 0},   {550, 3}, {kUnlimited, 5}};

const char* name(KVType type) { return type == KVType::kF32 ? "f32" : type == KVType::kBF16 ? "bf16" : "int8"; }

// The result is that of double over the tokens in the window, at the edges of blocks and segments; the bounds are those
// of test_attention.cpp.
void test_windows_are_accurate() {
  for (const KVType type : kTypes) {
    const double bound = type == KVType::kInt8 ? 1.4e-2 : type == KVType::kBF16 ? 6e-3 : 3e-6;
    PagedSequence sequence({type, 16, 1, 2, 600}, 11);
    sequence.write(reference_kernels(), 0, 600);
    for (const auto& [left, right] : kWindows) {
      sequence.left = left;
      sequence.right = right;
      for (const KernelTable* table : tests::tables()) {
        const auto out = sequence.attend(*table, 0, 600);
        for (const int token : {0, 1, 15, 16, 300, 511, 512, 575, 576, 577, 599}) {
          const int begin = token <= left ? 0 : token - left;
          const int end = 599 - token <= right ? 600 : token + right + 1;
          const auto width = static_cast<ptrdiff_t>(sequence.row_width());
          const std::vector<float> row(out.begin() + token * width, out.begin() + (token + 1) * width);
          const double error = nrmse(row, sequence.attend_exactly(token, begin, end));
          CHECK_WITH(error <= bound, "%s %s window %d %d token %d: NRMSE %g", table->name, name(type), left, right,
                     token, error);
        }
      }
    }
  }
}

// The bits are those of the reference, but for VDPBF16PS, and do not depend on how queries are cut into calls.
void test_windows_have_the_same_bits() {
  for (const KVType type : kTypes) {
    PagedSequence sequence({type, 16, 1, 2, 600}, 12);
    sequence.write(reference_kernels(), 0, 600);
    for (const auto& [left, right] : kWindows) {
      sequence.left = left;
      sequence.right = right;
      const auto expected = sequence.attend(reference_kernels(), 0, 600);
      for (const KernelTable* table : tests::tables()) {
        const auto out = sequence.attend(*table, 0, 600);
        if (type != KVType::kBF16 || !tests::has_bf16_dots(table->name)) {
          CHECK_WITH(same_bits(out, expected), "%s %s window %d %d", table->name, name(type), left, right);
        }
        if (table == &reference_kernels()) continue;
        for (const int split : {1, 7, 64, 333}) {
          if (tests::few_shapes() && split == 1) continue;
          CHECK_WITH(same_bits(sequence.attend(*table, 0, 600, split), out), "%s %s window %d %d split by %d",
                     table->name, name(type), left, right, split);
        }
      }
    }
  }
}

// Capped scores and a sink for each head are those of double, in every table, whatever the window.
void test_softcap_and_sinks() {
  for (const KVType type : kTypes) {
    for (const float softcap : {0.0f, 0.7f, 50.0f}) {
      // A cap has the absolute error of its tanh times it.
      const double bound = (type == KVType::kInt8   ? 1.4e-2
                            : type == KVType::kBF16 ? 6e-3
                                                    : 3e-6) +
                           6e-8 * static_cast<double>(softcap);
      for (const bool with_sinks : {false, true}) {
        PagedSequence sequence({type, 16, 1, 3, 600}, 13);
        sequence.write(reference_kernels(), 0, 600);
        sequence.softcap = softcap;
        if (with_sinks) sequence.sinks = {-3.0f, 0.5f, 6.0f};
        for (const int left : {kUnlimited, 20}) {
          sequence.left = left;
          const auto expected = sequence.attend(reference_kernels(), 0, 600);
          for (const KernelTable* table : tests::tables()) {
            const auto out = sequence.attend(*table, 0, 600, 33);
            if (type != KVType::kBF16 || !tests::has_bf16_dots(table->name)) {
              CHECK_WITH(same_bits(out, expected), "%s %s softcap %g, sinks %d", table->name, name(type), softcap,
                         with_sinks);
            }
            for (const int token : {0, 17, 511, 512, 599}) {
              const auto width = static_cast<ptrdiff_t>(sequence.row_width());
              const std::vector<float> row(out.begin() + token * width, out.begin() + (token + 1) * width);
              const int begin = token <= left ? 0 : token - left;
              const double error = nrmse(row, sequence.attend_exactly(token, begin, token + 1));
              CHECK_WITH(error <= bound, "%s %s softcap %g, sinks %d, token %d: NRMSE %g", table->name, name(type),
                         softcap, with_sinks, token, error);
            }
          }
        }
      }
    }
  }
}

// A sink far above all scores leaves nothing of the values, one far below changes no bit.
void test_sinks_at_the_edges() {
  PagedSequence sequence({KVType::kF32, 16, 1, 1, 40}, 14);
  sequence.write(reference_kernels(), 0, 40);
  for (const KernelTable* table : tests::tables()) {
    sequence.sinks.clear();
    const auto without = sequence.attend(*table, 0, 40);
    sequence.sinks = {-1000.0f};
    CHECK_WITH(same_bits(sequence.attend(*table, 0, 40), without), "%s: a sink far below", table->name);
    sequence.sinks = {1000.0f};
    for (const float value : sequence.attend(*table, 0, 40)) {
      CHECK_WITH(value == 0.0f, "%s: %g beside a sink far above", table->name, value);
    }
  }
}

}  // namespace

int main() {
  test_softcap_and_sinks();
  test_sinks_at_the_edges();
  test_windows_are_accurate();
  test_windows_have_the_same_bits();
  return quintet::tests::finish("test_attention_windows");
}
