#include "truncation.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace quintet {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Sum of value(logit) over the logits above -inf: eight lanes, so that it can be vectorised, then over the lanes.
template <typename Value>
double sum_over_logits(const CandidateRow& row, Value value) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  const auto term = [&](int i) { return row.logits[i] > -kInf ? value(static_cast<double>(row.logits[i])) : 0.0; };
  const int whole = row.size - row.size % kLanes;
  for (int i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (int i = whole; i < row.size; ++i) lanes[i - whole] += term(i);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

double num_possible(const CandidateRow& row) {
  return sum_over_logits(row, [](double) { return 1.0; });
}

// Calls visit(index, surprise in nats) for every candidate that has weight.
template <typename Visit>
void for_each_surprise(const CandidateRow& row, double temperature, Visit visit) {
  const double log_total = std::log(row.total), scale = inverse_temperature(temperature);
  for (int i = 0; i < row.size; ++i) {
    if (row.weights[i] == 0) continue;
    visit(i, log_total + (static_cast<double>(row.max) - static_cast<double>(row.logits[i])) * scale);
  }
}

}  // namespace

void keep_top_n_sigma(CandidateRow& row, double n) {
  const double count = num_possible(row);
  const double mean = sum_over_logits(row, [](double logit) { return logit; }) / count;
  const double squares = sum_over_logits(row, [mean](double logit) { return (logit - mean) * (logit - mean); });
  const double smallest = static_cast<double>(row.max) - n * std::sqrt(squares / count);

  SamplingScratch& scratch = *row.scratch;
  scratch.ids.resize(static_cast<size_t>(row.size));
  scratch.logits.resize(static_cast<size_t>(row.size));
  int size = 0;
  for (int i = 0; i < row.size; ++i) {
    const float logit = row.logits[i];
    if (!(logit > -kInf && static_cast<double>(logit) >= smallest)) continue;
    scratch.ids[size] = row.id(i);
    scratch.logits[size++] = logit;
  }
  row = {&scratch, size, scratch.logits.data(), scratch.ids.data(), row.max, nullptr, 0.0};
}

double entropy(const CandidateRow& row, double temperature) {
  double sum = 0;
  for_each_surprise(row, temperature, [&](int i, double surprise) { sum += row.weights[i] * surprise; });
  return sum / row.total;
}

void keep_typical(CandidateRow& row, double temperature, double p) {
  auto& scored = row.scratch->scored;
  scored.clear();
  const double expected = entropy(row, temperature);
  for_each_surprise(row, temperature,
                    [&](int i, double surprise) { scored.emplace_back(std::abs(surprise - expected), i); });

  // Halves [begin, end), which holds the last one to keep, until it is alone.
  double needed = p * row.total;
  auto begin = scored.begin(), end = scored.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end);
    double mass = 0;
    for (auto it = begin; it != middle; ++it) mass += row.weights[it->second];
    if (mass >= needed) {
      end = middle;
    } else {
      needed -= mass;
      begin = middle;
    }
  }
  for (auto it = end; it != scored.end(); ++it) row.weights[it->second] = 0;
  compact(row);
}

void exclude_top_choices(CandidateRow& row, double threshold) {
  const double smallest = threshold * row.total;
  const auto is_top = [&](int i) { return row.weights[i] > 0 && row.weights[i] >= smallest; };
  int least = -1, num_top = 0;
  for (int i = 0; i < row.size; ++i) {
    if (!is_top(i)) continue;
    ++num_top;
    if (least < 0 || row.logits[i] <= row.logits[least]) least = i;
  }
  if (num_top < 2) return;
  for (int i = 0; i < row.size; ++i) {
    if (i != least && is_top(i)) row.weights[i] = 0;
  }
  compact(row);
}

double dynamic_temperature(CandidateRow& row, double middle, double range, double exponent) {
  const double count = num_possible(row);
  if (count <= 1) return middle;
  weigh(row, 1.0);
  const double share = std::clamp(entropy(row, 1.0) / std::log(count), 0.0, 1.0);
  row.weights = nullptr;
  const double low = std::max(0.0, middle - range);
  return low + (middle + range - low) * std::pow(share, exponent);
}

}  // namespace quintet
