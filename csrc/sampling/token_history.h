// Which tokens a sequence has seen, for the penalties: memory grows with its distinct tokens, not the vocabulary.
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

namespace quintet {

class TokenHistory {
 public:
  struct Entry {
    int32_t id;
    int32_t count;         // times seen, at least 1
    int32_t output_count;  // of those, times generated
  };

  // Forgets all but the newest `window` tokens; -1 forgets none.
  explicit TokenHistory(int64_t window) : window_(window) {}

  void add_prompt(int32_t id) { add({id, false}); }
  void add_output(int32_t id) { add({id, true}); }

  // The distinct tokens, in no order that means anything.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  struct Seen {
    int32_t id;
    bool is_output;
  };

  void add(Seen seen) {
    if (window_ == 0) return;
    if (window_ > 0) {
      if (static_cast<int64_t>(newest_.size()) == window_) {
        forget(newest_.front());
        newest_.pop_front();
      }
      newest_.push_back(seen);
    }
    const auto [it, is_new] = index_.try_emplace(seen.id, entries_.size());
    if (is_new) entries_.push_back({seen.id, 0, 0});
    Entry& entry = entries_[it->second];
    ++entry.count;
    entry.output_count += seen.is_output;
  }

  void forget(Seen seen) {
    const auto it = index_.find(seen.id);
    const size_t place = it->second;
    Entry& entry = entries_[place];
    entry.output_count -= seen.is_output;
    if (--entry.count > 0) return;
    index_.erase(it);
    if (place + 1 < entries_.size()) {
      entries_[place] = entries_.back();
      index_[entries_[place].id] = place;
    }
    entries_.pop_back();
  }

  int64_t window_;
  std::deque<Seen> newest_;  // only where there is a window
  std::unordered_map<int32_t, size_t> index_;
  std::vector<Entry> entries_;
};

}  // namespace quintet
