// Attention and KV writes of every table: against double, against the reference, and the same bits however the work
// is cut.
#include <algorithm>
#include <cmath>
#include <limits>
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
using tests::Shape;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr KVType kTypes[] = {KVType::kF32, KVType::kBF16, KVType::kInt8};

const char* name(KVType type) { return type == KVType::kF32 ? "f32" : type == KVType::kBF16 ? "bf16" : "int8"; }

std::vector<float> rows_of(const std::vector<float>& out, size_t width, int begin, int end) {
  return {out.begin() + static_cast<ptrdiff_t>(width) * begin, out.begin() + static_cast<ptrdiff_t>(width) * end};
}

bool all_finite(const std::vector<float>& values) {
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

// Every table leaves the same bytes in the cache, and in no slot but the one named.
void test_write_kv_agrees() {
  for (const KVType type : kTypes) {
    for (const int head_dim : {2, 30, 64, 80, 256}) {
      const Shape shape{type, head_dim, 3, 1, 20};
      std::vector<std::byte> expected;
      for (const KernelTable* table : tests::tables()) {
        PagedSequence sequence(shape, 1);
        sequence.fill_cache(42.0f);
        sequence.write(*table, 0, 1);
        sequence.write(*table, 13, 20);
        std::vector<std::byte> bytes(sequence.k_cache.data(), sequence.k_cache.data() + sequence.cache_bytes());
        bytes.insert(bytes.end(), sequence.v_cache.data(), sequence.v_cache.data() + sequence.cache_bytes());
        if (expected.empty()) expected = bytes;
        CHECK_WITH(same_bits(bytes, expected), "%s write_kv %s, head_dim %d", table->name, name(type), head_dim);
      }
    }
  }
}

// bf16: q, k, v and p are each rounded to 8 bits, 0.17 % on average.  v and p go straight into the result; q and k
// move scores of deviation 1 by 0.24 %, and p with them: 0.34 % in all.  int8: the largest of n normal values is 127
// steps, at 2.7 deviations for n = 128 and 3 for 256, and a step's error 0.29 of it: 0.61 % to 0.68 % of v, as much of
// k and with it of scores and p; 0.96 % in all, q and p adding nothing, and a tenth more for chance.  f32: chains of n
// sums, each 2^-25 on average.
void check_accuracy(const KernelTable& table, PagedSequence& sequence, int token) {
  const auto out = sequence.attend(table, token, token + 1);
  const double error = nrmse(out, sequence.attend_exactly(token));
  const KVType type = sequence.shape.type;
  const double bound = type == KVType::kInt8 ? 1.1e-2 : type == KVType::kBF16 ? 5e-3 : 3e-6;
  CHECK_WITH(error <= bound, "%s %s head_dim %d group %d token %d: NRMSE %g", table.name, name(sequence.shape.type),
             sequence.shape.head_dim, sequence.shape.group, token, error);
}

// Attention is softmax(q k) v to the accuracy of its types, at every edge of blocks, tiles and segments.
void test_attention_is_accurate() {
  for (const KVType type : kTypes) {
    PagedSequence sequence({type, 64, 2, 2, 1100}, 2);
    sequence.write(reference_kernels(), 0, 1100);
    for (const KernelTable* table : tests::tables()) {
      for (const int seq_len : {1, 2, 15, 16, 17, 63, 64, 65, 511, 512, 513, 1024, 1025, 1100}) {
        check_accuracy(*table, sequence, seq_len - 1);
      }
    }
  }
}

// ... for all head widths and group sizes.
void test_attention_shapes() {
  for (const KVType type : kTypes) {
    for (const int head_dim : {2, 6, 16, 34, 64, 80, 96, 100, 128, 160, 256}) {
      PagedSequence sequence({type, head_dim, 1, 3, 150}, 3);
      sequence.write(reference_kernels(), 0, 150);
      for (const KernelTable* table : tests::tables()) check_accuracy(*table, sequence, 149);
    }
    for (const int group : {1, 2, 4, 5, 7, 8, 13, 71}) {
      PagedSequence sequence({type, 32, 2, group, 70}, 4);
      sequence.write(reference_kernels(), 0, 70);
      for (const KernelTable* table : tests::tables()) check_accuracy(*table, sequence, 69);
    }
  }
}

// The float operations are those of the reference, one by one; only VDPBF16PS rounds in its own way, which may also
// move a p to its other bf16 neighbour.
void test_attention_agrees_with_reference() {
  for (const KVType type : kTypes) {
    for (const int head_dim : {30, 64, 128}) {
      for (const int group : {1, 2, 7}) {
        PagedSequence sequence({type, head_dim, 1, group, 600}, 5);
        sequence.write(reference_kernels(), 0, 600);
        const std::vector<std::pair<int, int>> steps = {{0, 20}, {500, 530}, {599, 600}};
        for (const auto& [begin, end] : steps) {
          const auto expected = sequence.attend(reference_kernels(), begin, end);
          for (const KernelTable* table : tests::tables()) {
            const auto out = sequence.attend(*table, begin, end);
            if (type != KVType::kBF16 || !tests::has_bf16_dots(table->name)) {
              CHECK_WITH(same_bits(out, expected), "%s %s head_dim %d group %d tokens %d-%d", table->name, name(type),
                         head_dim, group, begin, end);
            } else {
              const double error = nrmse(out, {expected.begin(), expected.end()});
              CHECK_WITH(error <= 5e-4, "%s %s head_dim %d group %d: NRMSE %g to the reference", table->name,
                         name(type), head_dim, group, error);
            }
          }
        }
      }
    }
  }
}

// A token's result has the same bits alone, in chunks of any size, in any split and from any blocks.
void test_attention_does_not_depend_on_the_batch() {
  for (const KVType type : kTypes) {
    for (const int group : {1, 2, 4, 7, 8}) {
      if (tests::few_shapes() && group != 2 && group != 7) continue;
      for (const KernelTable* table : tests::tables()) {
        const bool slow = table == &reference_kernels();
        const int num_tokens = slow ? 70 : tests::few_shapes() ? kSegmentTokens + 20 : 1100;
        PagedSequence sequence({type, slow ? 16 : 80, 1, group, num_tokens}, 6);
        sequence.order_blocks();
        sequence.write(*table, 0, num_tokens);
        const size_t width = sequence.row_width();
        const auto whole = sequence.attend(*table, 0, num_tokens);
        CHECK_WITH(all_finite(whole), "%s %s group %d", table->name, name(type), group);
        for (const int split : {1, 3, 32, 500}) {
          if (split == 1 && group != 2) continue;
          CHECK_WITH(same_bits(sequence.attend(*table, 0, num_tokens, split), whole), "%s %s group %d split by %d",
                     table->name, name(type), group, split);
        }
        // Now as the engine sees it: blocks elsewhere, and what lies behind a chunk is not yet written.
        for (const int chunk : {1, 7, 64, 513}) {
          if (chunk == 1 && group != 2) continue;
          PagedSequence other({type, sequence.shape.head_dim, 1, group, num_tokens}, 6, 9);
          other.shuffle_blocks(static_cast<uint32_t>(chunk));
          for (int begin = 0; begin < num_tokens; begin += chunk) {
            const int end = std::min(begin + chunk, num_tokens);
            other.write(*table, begin, end);
            CHECK_WITH(same_bits(other.attend(*table, begin, end), rows_of(whole, width, begin, end)),
                       "%s %s group %d chunk %d-%d", table->name, name(type), group, begin, end);
          }
        }
      }
    }
  }
}

// What lies in slots behind the sequence changes no bit, be it huge or NaN.
void test_attention_ignores_stale_slots() {
  for (const KVType type : kTypes) {
    for (const KernelTable* table : tests::tables()) {
      for (const int num_tokens : {1, 8, 15, 17, 33, 64, 79}) {
        std::vector<float> expected;
        for (const float stale : {0.0f, 3e38f, -3e38f, std::numeric_limits<float>::infinity(), kNan}) {
          PagedSequence sequence({type, 20, 2, 3, num_tokens}, 7);
          sequence.fill_cache(stale);
          sequence.write(*table, 0, num_tokens);
          const auto out = sequence.attend(*table, 0, num_tokens);
          if (expected.empty()) expected = out;
          CHECK_WITH(all_finite(out) && same_bits(out, expected), "%s %s %d tokens before %g", table->name, name(type),
                     num_tokens, static_cast<double>(stale));
        }
      }
    }
  }
}

// A query that holds NaN gets NaN; its neighbours keep their bits.
void test_attention_contains_nan() {
  for (const KVType type : kTypes) {
    for (const KernelTable* table : tests::tables()) {
      PagedSequence sequence({type, 32, 1, 2, 40}, 8);
      sequence.write(*table, 0, 40);
      auto expected = sequence.attend(*table, 0, 40);
      const size_t broken = 17 * sequence.row_width();  // first head of token 17
      sequence.q[broken + 5] = kNan;
      auto out = sequence.attend(*table, 0, 40);
      for (size_t d = 0; d < 32; ++d) {
        CHECK_WITH(std::isnan(out[broken + d]), "%s %s: a broken query gives NaN", table->name, name(type));
        out[broken + d] = expected[broken + d] = 0.0f;
      }
      CHECK_WITH(same_bits(out, expected), "%s %s: its neighbours", table->name, name(type));
    }
  }
}

// A token whose k or v cannot be rounded to int8 gives NaN to all that see it, and to no other.
void test_int8_contains_nan() {
  for (const float broken : {kNan, std::numeric_limits<float>::infinity()}) {
    for (const bool in_k : {true, false}) {
      for (const KernelTable* table : tests::tables()) {
        PagedSequence sequence({KVType::kInt8, 32, 1, 2, 40}, 10);
        sequence.write(*table, 0, 40);
        const auto expected = sequence.attend(*table, 0, 40);
        (in_k ? sequence.k : sequence.v)[18 * 32 + 3] = broken;
        sequence.write(*table, 18, 19);
        const auto out = sequence.attend(*table, 0, 40);
        const size_t width = sequence.row_width();
        CHECK_WITH(same_bits(rows_of(out, width, 0, 18), rows_of(expected, width, 0, 18)), "%s %s before %g",
                   table->name, in_k ? "k" : "v", static_cast<double>(broken));
        for (size_t i = 18 * width; i < out.size(); ++i) CHECK(std::isnan(out[i]));
      }
    }
  }
}

// A v that is no number reaches the queries that see it, and no other: not even one beside it in a tile.
void test_a_broken_value_harms_none_before() {
  constexpr size_t kTokens = 100;
  for (const KVType type : {KVType::kF32, KVType::kBF16}) {
    for (const float broken : {kNan, std::numeric_limits<float>::infinity()}) {
      for (const size_t at : {size_t{1}, size_t{31}, size_t{32}, size_t{70}, size_t{99}}) {
        for (const KernelTable* table : tests::tables()) {
          PagedSequence sequence({type, 48, 1, 2, kTokens}, 11);
          sequence.write(*table, 0, kTokens);
          const auto expected = sequence.attend(*table, 0, kTokens);
          sequence.v[at * 48 + 37] = broken;
          sequence.write(*table, static_cast<int>(at), static_cast<int>(at) + 1);
          auto out = sequence.attend(*table, 0, kTokens);
          for (size_t i = at * sequence.row_width(); i < out.size(); ++i) {
            if (i % 48 != 37) continue;
            CHECK(!std::isfinite(out[i]));
            out[i] = expected[i];
          }
          CHECK_WITH(same_bits(out, expected), "%s %s token %zu", table->name, name(type), at);
        }
      }
    }
  }
}

// Scores far apart, down to -infinity, make neither NaN nor a loss: the largest alone decides.
void test_attention_of_extreme_scores() {
  for (const KVType type : kTypes) {
    for (const KernelTable* table : tests::tables()) {
      for (const int winner : {0, 300, 511, 512, 700, 1029}) {
        PagedSequence sequence({type, 16, 1, 1, 1030}, 9);
        for (size_t t = 0; t < 1030; ++t) {
          for (size_t d = 0; d < 16; ++d) {
            sequence.k[t * 16 + d] = t == static_cast<size_t>(winner) ? 0.0f : -3e38f;
            sequence.v[t * 16 + d] = static_cast<float>(t % 256);  // exact in bf16
          }
        }
        std::fill(sequence.q.begin(), sequence.q.end(), 1e5f);
        sequence.write(*table, 0, 1030);
        const auto out = sequence.attend(*table, 1029, 1030);
        // int8 scales are rounded: of v, and of its weight.
        const float bound = type == KVType::kInt8 ? 0x1p-22f * static_cast<float>(winner % 256) : 0.0f;
        for (const float value : out) {
          CHECK_WITH(std::fabs(value - static_cast<float>(winner % 256)) <= bound, "%s %s: %g, not token %d",
                     table->name, name(type), static_cast<double>(value), winner);
        }
      }
    }
  }
}

}  // namespace

int main() {
  test_write_kv_agrees();
  test_attention_is_accurate();
  test_attention_shapes();
  test_attention_agrees_with_reference();
  test_attention_does_not_depend_on_the_batch();
  test_attention_ignores_stale_slots();
  test_attention_contains_nan();
  test_int8_contains_nan();
  test_a_broken_value_harms_none_before();
  test_attention_of_extreme_scores();
  return quintet::tests::finish("test_attention");
}
