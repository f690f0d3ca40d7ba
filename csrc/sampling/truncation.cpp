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

// Sets to 0 the weights of all but the first of `scored`, (distance, index), that together reach `needed`; of one at
// least.  Halves what is left of the list, which holds the last one to keep, until that is alone.
void keep_nearest(std::vector<std::pair<double, int32_t>>& scored, float* weights, double needed) {
  auto begin = scored.begin(), end = scored.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end);
    double mass = 0;
    for (auto it = begin; it != middle; ++it) mass += weights[it->second];
    if (mass >= needed) {
      end = middle;
    } else {
      needed -= mass;
      begin = middle;
    }
  }
  for (auto it = end; it != scored.end(); ++it) weights[it->second] = 0;
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
  // The mass at each distance from the entropy is counted in bins first, so that the candidates of one bin only have to
  // be put in order.
  constexpr int kBins = 4096;
  constexpr double kBinsPerNat = 32;
  SamplingScratch& scratch = *row.scratch;
  const double expected = entropy(row, temperature);
  const auto bin_of = [](double distance) { return static_cast<int>(std::min(distance * kBinsPerNat, kBins - 1.0)); };
  const auto for_each_distance = [&](auto visit) {
    for_each_surprise(row, temperature, [&](int i, double surprise) { visit(i, std::abs(surprise - expected)); });
  };
  auto& mass = scratch.histogram;
  mass.assign(kBins, 0.0);
  for_each_distance([&](int i, double distance) { mass[bin_of(distance)] += row.weights[i]; });
  double needed = p * row.total;
  int reached = 0;
  while (reached < kBins - 1 && (mass[reached] == 0 || mass[reached] < needed)) needed -= mass[reached++];

  auto& scored = scratch.scored;
  scored.clear();
  for_each_distance([&](int i, double distance) {
    const int bin = bin_of(distance);
    if (bin == reached) scored.emplace_back(distance, i);
    if (bin > reached) row.weights[i] = 0;
  });
  keep_nearest(scored, row.weights, needed);
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
