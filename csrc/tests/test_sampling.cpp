// The sampler without Python: known answers, the row loops against plain arithmetic and against themselves compiled
// for the baseline instruction set, the stages against sorting.  Returns the number of failed checks.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "candidates.h"
#include "dry.h"
#include "philox.h"
#include "row_sampler.h"
#include "truncation.h"
#include "vector_math.h"

// The same loops once more, in a namespace of their own and for the baseline instruction set only.
namespace baseline {
namespace quintet {
using ::quintet::kVocabBlock;
using ::quintet::RowScan;
}  // namespace quintet
#define QUINTET_BASELINE_ONLY
#include "vector_math.cpp"
}  // namespace baseline

using namespace quintet;

namespace {

int num_failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  ++num_failures;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
}

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const int kSizes[] = {1, 2, 7, 15, 16, 17, 127, 128, 129, 255, 256, 257, 1000, 151936};

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Logits with ties and some -inf; exactly n floats on the heap, so that a sanitizer sees a read past the end.
std::vector<float> random_row(std::mt19937& random, int n, float scale) {
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> row(static_cast<size_t>(n));
  for (float& x : row) {
    x = scale * normal(random);
    if (random() % 4 == 0) x = std::round(x);
    if (random() % 16 == 0) x = -kInf;
  }
  row[random() % row.size()] = 1.0f;
  return row;
}

// Random123's kat_vectors, lines "philox4x32 10".
void test_philox_known_answers() {
  const uint32_t ones = 0xffffffff;
  check(philox4x32_10({0, 0, 0, 0}, {0, 0}) == PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, "zeros");
  check(philox4x32_10({ones, ones, ones, ones}, {ones, ones}) ==
            PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        "ones");
  check(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
            PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
        "pi");
}

void test_scan_row() {
  std::mt19937 random(1);
  for (const int n : kSizes) {
    std::vector<float> row = random_row(random, n, 5);
    std::vector<float> block_max(static_cast<size_t>(num_vocab_blocks(n)));
    const RowScan scan = scan_row(row.data(), n, block_max.data());
    const std::string size = std::to_string(n);
    check(!scan.has_nan && scan.max == *std::max_element(row.begin(), row.end()), "row maximum of " + size);
    for (int b = 0; b < num_vocab_blocks(n); ++b) {
      const auto begin = row.begin() + b * kVocabBlock, end = row.begin() + std::min(n, (b + 1) * kVocabBlock);
      check(block_max[b] == *std::max_element(begin, end), "block maximum of " + size);
    }
    for (const float nan : {kNan, -kNan}) {
      for (const int i : {0, n / 2, n - 1}) {
        const float old = std::exchange(row[i], nan);
        check(scan_row(row.data(), n, block_max.data()).has_nan, "NaN seen in " + size);
        row[i] = old;
      }
    }
    row[n - 1] = kInf;
    const RowScan infinite = scan_row(row.data(), n, block_max.data());
    check(!infinite.has_nan && infinite.max == kInf, "infinity seen in " + size);
  }
}

// One float operation rounds by half a unit in the last place (2^-24); the polynomial, its argument and its last terms
// add up to less than four of them.
void test_exp_row_is_accurate() {
  std::vector<float> x;
  for (float v = 0; v > -82; v -= 0.000731f) x.push_back(v);
  const int n = static_cast<int>(x.size());
  std::vector<float> weights(x.size());
  std::vector<double> sums(static_cast<size_t>(num_vocab_blocks(n)));
  const double total = exp_row(x.data(), n, 0, 1, weights.data(), sums.data());
  double wanted_total = 0, worst = 0;
  for (int i = 0; i < n; ++i) {
    const double wanted = std::exp(static_cast<double>(x[i]));
    wanted_total += wanted;
    if (x[i] > -80) worst = std::max(worst, std::abs(weights[i] - wanted) / wanted);
    if (x[i] < -80) check(weights[i] == 0, "exp below the range is 0");
  }
  check(worst < 4 * 0x1p-24,
        "exp within two units in the last place, found " + std::to_string(worst * 0x1p24) + " halves");
  check(weights[0] == 1.0f, "exp(0) is 1");
  check(std::abs(total - wanted_total) < 1e-6 * wanted_total, "sum of exponentials");
}

void test_every_instruction_set_gives_the_same_bits() {
  std::mt19937 random(2);
  for (const int n : kSizes) {
    const std::vector<float> row = random_row(random, n, 20);
    const size_t num_blocks = static_cast<size_t>(num_vocab_blocks(n));
    std::vector<float> max_a(num_blocks), max_b(num_blocks), weights_a(row.size()), weights_b(row.size());
    std::vector<double> sums_a(num_blocks), sums_b(num_blocks);
    const std::string size = std::to_string(n);

    const RowScan a = scan_row(row.data(), n, max_a.data());
    const auto b = baseline::quintet::scan_row(row.data(), n, max_b.data());
    check(a.max == b.max && same_bits(max_a, max_b), "scan_row of " + size);

    double total_a = exp_row(row.data(), n, a.max, 0.7f, weights_a.data(), sums_a.data());
    double total_b = baseline::quintet::exp_row(row.data(), n, a.max, 0.7f, weights_b.data(), sums_b.data());
    check(total_a == total_b && same_bits(weights_a, weights_b) && same_bits(sums_a, sums_b), "exp_row of " + size);

    const float cut = weights_a[static_cast<size_t>(n) / 2];
    total_a = mask_row(weights_a.data(), n, cut, n / 2, sums_a.data());
    total_b = baseline::quintet::mask_row(weights_b.data(), n, cut, n / 2, sums_b.data());
    check(total_a == total_b && same_bits(weights_a, weights_b) && same_bits(sums_a, sums_b), "mask_row of " + size);
  }
}

void test_exclude_unmasked() {
  std::mt19937 random(6);
  for (const int n : kSizes) {
    std::vector<uint32_t> mask(static_cast<size_t>(num_mask_words(n)));
    for (uint32_t& word : mask) word = static_cast<uint32_t>(random());
    std::vector<float> expected = random_row(random, n, 20), row = expected, baseline_row = expected;
    for (size_t i = 0; i < row.size(); ++i) {
      if ((mask[i / 32] >> i % 32 & 1) == 0) expected[i] = -kInf;
    }
    exclude_unmasked(row.data(), n, mask.data());
    baseline::quintet::exclude_unmasked(baseline_row.data(), n, mask.data());
    check(same_bits(row, expected) && same_bits(baseline_row, expected), "exclude_unmasked of " + std::to_string(n));
  }
}

CandidateRow scanned(SamplingScratch& scratch, const std::vector<float>& row) {
  const int n = static_cast<int>(row.size());
  scratch.block_max.assign(static_cast<size_t>(num_vocab_blocks(n)), 0);
  return whole_row(scratch, row.data(), n, scan_row(row.data(), n, scratch.block_max.data()).max);
}

std::vector<int> kept_ids(const CandidateRow& row) {
  std::vector<int> ids;
  for (int i = 0; i < row.size; ++i) {
    if (row.weights == nullptr || row.weights[i] > 0) ids.push_back(row.id(i));
  }
  return ids;
}

// Indices by falling value, of equal ones the lower first.
std::vector<int> falling(const std::vector<float>& values) {
  std::vector<int> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
  return order;
}

void test_top_k_against_sorting() {
  std::mt19937 random(3);
  SamplingScratch scratch;
  for (const int n : kSizes) {
    const std::vector<float> logits = random_row(random, n, 3);
    const std::vector<int> order = falling(logits);
    for (const int k : {1, 2, 40, 1500, n - 1, n, n + 1}) {
      if (k < 1) continue;
      CandidateRow row = scanned(scratch, logits);
      keep_top_k(row, k);
      std::vector<int> wanted(order.begin(), order.begin() + std::min(k, n));
      std::sort(wanted.begin(), wanted.end());
      check(kept_ids(row) == wanted, "top " + std::to_string(k) + " of " + std::to_string(n));
      keep_top_k(row, std::max(1, k / 2));  // of a row that is a list already
      wanted.assign(order.begin(), order.begin() + std::min(n, std::max(1, k / 2)));
      std::sort(wanted.begin(), wanted.end());
      check(kept_ids(row) == wanted, "top half of top " + std::to_string(k) + " of " + std::to_string(n));
    }
  }
}

void test_top_p_against_sorting() {
  std::mt19937 random(4);
  SamplingScratch scratch;
  for (const int n : kSizes) {
    for (const float scale : {0.0f, 0.1f, 2.0f, 20.0f}) {
      const std::vector<float> logits = random_row(random, n, scale);
      for (const double p : {0.0, 0.1, 0.5, 0.95, 0.999999}) {
        CandidateRow row = scanned(scratch, logits);
        weigh(row, 0.8);
        const std::vector<float> weights(row.weights, row.weights + n);
        const double total = row.total;
        keep_top_p(row, p);
        const std::vector<int> kept = kept_ids(row);
        std::vector<int> wanted = falling(weights);
        wanted.resize(kept.size());
        double mass = 0;
        for (const int i : wanted) mass += weights[i];
        const double without_last = mass - weights[wanted.back()];
        std::sort(wanted.begin(), wanted.end());
        const std::string name = "top_p " + std::to_string(p) + " of " + std::to_string(n);
        check(kept == wanted, name + " keeps the heaviest");
        check(mass >= (p - 1e-6) * total, name + " is reached");
        check(kept.size() == 1 || without_last < (p + 1e-6) * total, name + " is not overshot");
      }
    }
  }
}

void test_draw_at_its_ends() {
  SamplingScratch scratch;
  const double last = std::nextafter(1.0, 0.0);
  for (const int n : kSizes) {
    std::vector<float> logits(static_cast<size_t>(n), -kInf);
    logits[static_cast<size_t>(n) / 2] = 1.0f;
    CandidateRow row = scanned(scratch, logits);
    weigh(row, 1.0);
    check(draw(row, 0.0) == n / 2 && draw(row, last) == n / 2, "the only candidate of " + std::to_string(n));
    logits.assign(static_cast<size_t>(n), 0.0f);
    row = scanned(scratch, logits);
    weigh(row, 1.0);
    check(draw(row, 0.0) == 0 && draw(row, last) == n - 1, "first and last of " + std::to_string(n));
    check(draw(row, 0.5) == n / 2, "the middle of " + std::to_string(n));
  }
}

// Where the whole row is kept, compacting changes nothing but the form; what has no weight is gone.
void test_compact_keeps_what_has_weight() {
  std::mt19937 random(6);
  SamplingScratch scratch;
  for (const int n : kSizes) {
    const std::vector<float> logits = random_row(random, n, 3);
    CandidateRow row = scanned(scratch, logits);
    weigh(row, 1.0);
    keep_min_p(row, 0.01);
    const std::vector<int> wanted = kept_ids(row);
    compact(row);
    check(kept_ids(row) == wanted, "compacted row of " + std::to_string(n));
    for (int i = 0; i < row.size; ++i) check(row.logits[i] == logits[row.id(i)], "its logits");
    check(row.max == *std::max_element(logits.begin(), logits.end()), "its maximum");
    weigh(row, 0.5);
    compact(row);  // of a list
    check(kept_ids(row) == wanted, "compacted again, of " + std::to_string(n));
  }
}

void test_typical_against_sorting() {
  std::mt19937 random(7);
  SamplingScratch scratch;
  for (const int n : kSizes) {
    for (const double p : {0.0, 0.3, 0.9, 0.999999}) {
      const std::vector<float> logits = random_row(random, n, 3);
      CandidateRow row = scanned(scratch, logits);
      weigh(row, 0.8);
      const std::vector<float> weights(row.weights, row.weights + n);
      const double total = row.total, expected = entropy(row, 0.8);
      const double max = row.max, scale = inverse_temperature(0.8), log_total = std::log(total);
      const auto distance = [&](int i) { return std::abs(log_total + (max - logits[i]) * scale - expected); };
      keep_typical(row, 0.8, p);
      std::vector<int> wanted;
      for (int i = 0; i < n; ++i) {
        if (weights[i] > 0) wanted.push_back(i);
      }
      std::stable_sort(wanted.begin(), wanted.end(), [&](int a, int b) { return distance(a) < distance(b); });
      wanted.resize(static_cast<size_t>(row.size));
      double mass = 0;
      for (const int i : wanted) mass += weights[i];
      const double without_last = mass - weights[wanted.back()];
      std::sort(wanted.begin(), wanted.end());
      const std::string name = "typical_p " + std::to_string(p) + " of " + std::to_string(n);
      check(kept_ids(row) == wanted, name + " keeps the nearest");
      check(mass >= (p - 1e-6) * total, name + " is reached");
      check(row.size == 1 || without_last < (p + 1e-6) * total, name + " is not overshot");
    }
  }
}

// Random tokens over small alphabets against counting back from every earlier place.
void test_dry_against_trying_all() {
  std::mt19937 random(8);
  SamplingScratch scratch;
  for (int round = 0; round < 300; ++round) {
    DryParams params;
    params.multiplier = 1;
    params.base = 2;
    params.allowed_length = 1 + static_cast<int>(random() % 3);
    if (round % 3 == 0) params.last_n = static_cast<int>(random() % 30);
    if (round % 2 == 0) params.breakers = std::make_shared<TokenSequences>(std::vector<std::vector<int32_t>>{{3}});
    const int64_t window = params.last_n;
    DryPenalty dry(params);
    std::vector<int32_t> tokens(random() % 60);
    for (int32_t& id : tokens) {
      id = static_cast<int32_t>(random() % 4);
      dry.add(id);
    }
    if (window >= 0 && static_cast<int64_t>(tokens.size()) > window)
      tokens.erase(tokens.begin(), tokens.end() - window);
    const int n = static_cast<int>(tokens.size());
    const auto is_breaker = [&](int place) { return round % 2 == 0 && tokens[place] == 3; };
    std::vector<double> wanted(4, 0.0), found(4, 0.0);
    for (int next = 1; next < n && params.last_n != 0; ++next) {
      int length = 0;
      while (length < next && tokens[next - 1 - length] == tokens[n - 1 - length] && !is_breaker(n - 1 - length))
        ++length;
      if (length < params.allowed_length || is_breaker(next)) continue;
      double& penalty = wanted[tokens[next]];
      penalty = std::max(penalty, std::exp2(length - static_cast<double>(params.allowed_length)));
    }
    if (dry.is_on()) dry.for_each_penalty(scratch, [&](int32_t id, double penalty) { found[id] += penalty; });
    check(found == wanted, "DRY, round " + std::to_string(round));
  }
}

void test_sampler_leaves_the_row_as_it_was() {
  std::mt19937 random(5);
  SamplingScratch scratch;
  RowParams params;
  params.repetition_penalty = 1.3;
  params.presence_penalty = 0.5;
  params.logit_bias = {{0, 3.0}, {6, -100.0}};
  params.min_tokens = 2;
  params.ending_ids = {0, 3, 3};
  params.top_k = 5;
  params.top_p = 0.9;
  params.min_p = 0.01;
  params.num_logprobs = 4;
  params.typical_p = 0.9;
  params.top_n_sigma = 2;
  params.dynatemp_range = 0.3;
  params.xtc_probability = 0.5;
  params.dry.multiplier = 0.8;
  params.penalty_last_n = 4;
  RowSampler sampler(params, 7, {1, 1, 2}, 9);
  for (int step = 0; step < 100; ++step) {
    std::vector<float> row = random_row(random, 7, 3);
    const std::vector<float> before = row;
    const Sampled sampled = sampler.sample(row.data(), scratch);
    check(same_bits(row, before), "row restored");
    check(sampled.token_id >= 0 && before[sampled.token_id] > -kInf, "an allowed token");
    check(step >= 2 || (sampled.token_id != 0 && sampled.token_id != 3) ||
              std::count(before.begin(), before.end(), -kInf),
          "no ending token before min_tokens");
  }
}

}  // namespace

int main() {
  test_philox_known_answers();
  test_scan_row();
  test_exp_row_is_accurate();
  test_every_instruction_set_gives_the_same_bits();
  test_exclude_unmasked();
  test_top_k_against_sorting();
  test_top_p_against_sorting();
  test_draw_at_its_ends();
  test_compact_keeps_what_has_weight();
  test_typical_against_sorting();
  test_dry_against_trying_all();
  test_sampler_leaves_the_row_as_it_was();
  return num_failures;
}
