#include "dry.h"

#include <algorithm>
#include <cmath>

namespace quintet {

double DryPenalty::penalty(int32_t length) const {
  return params_.multiplier * std::pow(params_.base, static_cast<double>(length - params_.allowed_length));
}

// How many of the newest tokens stand after the newest breaker; num_tokens without one.
int DryPenalty::limit_by_breakers(int num_tokens) const {
  if (params_.breakers == nullptr) return num_tokens;
  const std::span<const int32_t> tokens(tokens_);
  for (int back = 1; back <= num_tokens; ++back) {
    const int length = params_.breakers->longest_prefix(tokens.last(static_cast<size_t>(back)));
    if (length > 0) return back - length;
  }
  return num_tokens;
}

// scratch.repeats = (token, length of the longest repetition it would continue), each token once.
void DryPenalty::find_repeats(SamplingScratch& scratch) const {
  auto& repeats = scratch.repeats;
  repeats.clear();
  int64_t window = static_cast<int64_t>(tokens_.size());
  if (params_.last_n >= 0) window = std::min(window, params_.last_n);
  const int n = static_cast<int>(window);
  if (n <= params_.allowed_length) return;
  const int limit = limit_by_breakers(n);
  if (limit < params_.allowed_length) return;

  // Read from the newest token back, matches[k] is how far the sequence agrees with itself k tokens earlier: the
  // Z function (Gusfield 1997, "Algorithms on strings, trees, and sequences", section 1.3).
  const auto token = [newest = tokens_.data() + tokens_.size() - 1](int back) { return newest[-back]; };
  auto& matches = scratch.counts;
  matches.assign(static_cast<size_t>(n), 0);
  for (int k = 1, begin = 0, end = 0; k < n; ++k) {
    int length = k < end ? std::min(end - k, matches[k - begin]) : 0;
    while (k + length < n && token(length) == token(k + length)) ++length;
    matches[k] = length;
    if (k + length > end) {
      begin = k;
      end = k + length;
    }
    const int repeated = std::min(length, limit);
    if (repeated >= params_.allowed_length && !is_breaker(token(k - 1))) repeats.emplace_back(token(k - 1), repeated);
  }

  // Longest first within a token; one is left of each.
  std::sort(repeats.begin(), repeats.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first < b.first : a.second > b.second; });
  const auto same_token = [](const auto& a, const auto& b) { return a.first == b.first; };
  repeats.erase(std::unique(repeats.begin(), repeats.end(), same_token), repeats.end());
}

}  // namespace quintet
