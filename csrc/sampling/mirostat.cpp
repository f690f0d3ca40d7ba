#include "mirostat.h"

#include <algorithm>
#include <cmath>

#include "logprobs.h"
#include "vector_math.h"

namespace quintet {
namespace {

constexpr int kNumFitted = 100;  // candidates that Zipf's exponent is fitted to, as in the authors' code

// The k whose expected surprise is `mu` in a Zipf distribution fitted to the likeliest candidates; at least 1.
int zipf_k(const CandidateRow& row, double temperature, double mu) {
  const auto largest = largest_logits(row, kNumFitted);
  const double scale = inverse_temperature(temperature);
  double numerator = 0, denominator = 0;
  for (size_t i = 0; i + 1 < largest.size(); ++i) {
    const double rank_ratio = std::log((static_cast<double>(i) + 2) / (static_cast<double>(i) + 1));
    const double log_ratio =
        (static_cast<double>(largest[i].second) - static_cast<double>(largest[i + 1].second)) * scale;
    numerator += rank_ratio * log_ratio;
    denominator += rank_ratio * rank_ratio;
  }
  if (denominator == 0) return 1;
  const double s = numerator / denominator, epsilon = s - 1, size = row.size;
  // (s - 1) / (1 - size^(1 - s)) tends to 1 / log(size) as s nears 1.
  const double factor = std::abs(epsilon) < 1e-9 ? 1 / std::log(size) : epsilon / (1 - std::pow(size, -epsilon));
  const double k = std::pow(factor * std::exp2(mu), 1 / s);
  return k >= size ? row.size : std::max(1, static_cast<int>(k));  // an endless k is the whole row, none is 1
}

}  // namespace

void Mirostat::narrow(CandidateRow& row, double temperature) const {
  if (version_ == 1) {
    keep_top_k(row, zipf_k(row, temperature, mu_));
    weigh(row, temperature);
    return;
  }
  weigh(row, temperature);
  const double cut = row.total * std::exp2(-mu_);
  if (cut > 1) {  // even the likeliest candidate, whose weight is 1, surprises too much
    row.weights = nullptr;
    keep_top_k(row, 1);
    weigh(row, temperature);
  } else {
    row.total = mask_row(row.weights, row.size, static_cast<float>(cut), row.size, row.scratch->block_sums.data());
  }
}

void Mirostat::observe(const CandidateRow& row, int index) {
  const double surprise = std::log2(row.total / row.weights[index]);
  mu_ -= eta_ * (surprise - tau_);
}

}  // namespace quintet
