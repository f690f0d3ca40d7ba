// Byte-level byte pair encoding.  Source: Sennrich et al. 2016, arXiv:1508.07909; over bytes: Radford et al. 2019.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "string_index.h"

namespace quintet {

// A vocabulary spelled in the 256 characters of GPT-2's byte alphabet, and its merges, best first.  Immutable.
class BytePairs {
 public:
  // `tokens` is the caller's to keep; of `merges`, each two tokens with a space between, nothing is kept.
  // `alphabet` is the character each byte is spelled with, in UTF-8.
  BytePairs(const StringIndex& tokens, const Strings& merges, const std::vector<std::string>& alphabet);

  // The first merge that is not two tokens whose join is a third, or -1; then nothing else may be called.
  int64_t first_bad_merge() const { return first_bad_merge_; }

  // Whether some merge results in this token.
  bool makes(int32_t token) const { return token >= 0 && made_[static_cast<size_t>(token)]; }

  // How pieces are encoded.
  struct Rules {
    bool ignores_merges = false;         // a whole piece that is a token is taken as it stands
    const uint8_t* is_hidden = nullptr;  // by token, or null: tokens that no piece may give
  };

  // A token of a piece that is being merged; those that were taken into others have none.
  struct Symbol {
    int32_t token;
    int32_t before, behind;  // neighbours, or -1
  };
  // A merge that two neighbours had when it was written down.
  struct Candidate {
    int32_t rank;
    int32_t left;  // the symbol's place
    int32_t left_token, right_token;
    int32_t result;
  };
  // Memory that piece after piece may use.
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<Candidate> candidates;  // a heap, the best on top
    std::string spelled;
  };

  // Appends the tokens of a piece of text, given as bytes: again and again the best merge that two neighbours have,
  // and of several the leftmost.  Bytes that are no token are left out.  In O(n log n).
  void encode(std::string_view piece, const Rules& rules, Scratch& scratch, std::vector<int32_t>& tokens) const;

 private:
  struct Merge {
    uint64_t pair = kNoPair;
    int32_t rank = 0;
    int32_t result = 0;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  static uint64_t pair_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  const Merge* find(int32_t left, int32_t right) const;
  void add(int32_t left, int32_t right, int32_t rank, int32_t result);

  const StringIndex& tokens_;
  std::vector<std::string> alphabet_;
  std::vector<int32_t> of_byte_;
  std::vector<Merge> merges_;  // linear probing
  std::vector<bool> made_;
  int64_t first_bad_merge_ = -1;
};

}  // namespace quintet
