// A set of token sequences to look for in a text, sorted by their first token; shared by the rows that use it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

namespace quintet {

class TokenSequences {
 public:
  // Throws std::invalid_argument for an empty sequence or a negative id.
  explicit TokenSequences(std::vector<std::vector<int32_t>> sequences) : sequences_(std::move(sequences)) {
    for (const std::vector<int32_t>& sequence : sequences_) {
      if (sequence.empty() || *std::min_element(sequence.begin(), sequence.end()) < 0) {
        throw std::invalid_argument("sequences must hold token ids, at least one each");
      }
      largest_id_ = std::max(largest_id_, *std::max_element(sequence.begin(), sequence.end()));
    }
    std::sort(sequences_.begin(), sequences_.end());
  }

  int32_t largest_id() const { return largest_id_; }  // -1 where there are none

  // Whether the token alone is one of the sequences.
  bool holds(int32_t id) const {
    const auto first = first_with(id);
    return first != sequences_.end() && first->front() == id && first->size() == 1;  // the shortest sorts first
  }

  // Length of the longest sequence that `tokens` begins with; 0 for none.
  int longest_prefix(std::span<const int32_t> tokens) const {
    size_t longest = 0;
    for (auto it = first_with(tokens[0]); it != sequences_.end() && it->front() == tokens[0]; ++it) {
      const bool fits = it->size() <= tokens.size() && std::equal(it->begin(), it->end(), tokens.begin());
      if (fits) longest = std::max(longest, it->size());
    }
    return static_cast<int>(longest);
  }

 private:
  std::vector<std::vector<int32_t>>::const_iterator first_with(int32_t id) const {
    return std::lower_bound(sequences_.begin(), sequences_.end(), id,
                            [](const std::vector<int32_t>& sequence, int32_t head) { return sequence.front() < head; });
  }

  std::vector<std::vector<int32_t>> sequences_;
  int32_t largest_id_ = -1;
};

}  // namespace quintet
