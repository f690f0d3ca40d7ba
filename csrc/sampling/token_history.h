// Which tokens a sequence has seen, for the penalties: memory grows with its distinct tokens, not the vocabulary.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace quintet {

class TokenHistory {
 public:
  struct Entry {
    int32_t id;
    int32_t output_count;  // times generated; 0 for a token of the prompt only
  };

  void add_prompt(int32_t id) { entry(id); }
  void add_output(int32_t id) { ++entry(id).output_count; }

  // Distinct tokens in the order they were first seen.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  Entry& entry(int32_t id) {
    const auto [it, is_new] = index_.try_emplace(id, entries_.size());
    if (is_new) entries_.push_back({id, 0});
    return entries_[it->second];
  }

  std::unordered_map<int32_t, size_t> index_;
  std::vector<Entry> entries_;
};

}  // namespace quintet
