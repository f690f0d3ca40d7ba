#include "byte_pairs.h"

#include <algorithm>
#include <stdexcept>

namespace quintet {
namespace {

// Merges whose parts are looked for side by side.
constexpr size_t kSideBySide = 16;

// For std::push_heap, whose top is the largest: the best is.
bool is_worse(const BytePairs::Candidate& a, const BytePairs::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

// Two tokens, and their join behind each other in `joined`.
struct Halves {
  std::string joined;
  size_t cut = 0;
  uint64_t hashes[3] = {};  // left, right, joined

  std::string_view left() const { return std::string_view(joined).substr(0, cut); }
  std::string_view right() const { return std::string_view(joined).substr(cut); }
};

}  // namespace

BytePairs::BytePairs(const StringIndex& tokens, const Strings& merges, const std::vector<std::string>& alphabet)
    : tokens_(tokens),
      alphabet_(alphabet),
      of_byte_(alphabet.size()),
      merges_(table_size(merges.count())),
      made_(tokens.strings().count()) {
  if (alphabet.size() != 256) throw std::invalid_argument("alphabet: expected a character for each byte");
  if (merges.count() > INT32_MAX) throw std::invalid_argument("more merges than an int32 counts");
  for (size_t byte = 0; byte < alphabet.size(); byte++) of_byte_[byte] = tokens.find(alphabet[byte]);
  Halves group[kSideBySide];
  for (size_t begin = 0; begin < merges.count(); begin += kSideBySide) {
    const size_t end = std::min(begin + kSideBySide, merges.count());
    for (size_t i = begin; i < end; i++) {
      Halves& halves = group[i - begin];
      const std::string_view merge = merges[i];
      const size_t cut = merge.find(' ', 1);  // a space at the start belongs to the left half
      if (cut == std::string_view::npos) {
        first_bad_merge_ = static_cast<int64_t>(i);
        return;
      }
      halves.cut = cut;
      halves.joined.assign(merge.substr(0, cut));
      halves.joined.append(merge.substr(cut + 1));
      halves.hashes[0] = StringIndex::hash(halves.left());
      halves.hashes[1] = StringIndex::hash(halves.right());
      halves.hashes[2] = StringIndex::hash(halves.joined);
      for (const uint64_t hash : halves.hashes) tokens.fetch_slot(hash);
    }
    for (size_t i = begin; i < end; i++) {
      for (const uint64_t hash : group[i - begin].hashes) tokens.fetch_string(hash);
    }
    for (size_t i = begin; i < end; i++) {
      const Halves& halves = group[i - begin];
      const int32_t left = tokens.find(halves.left(), halves.hashes[0]);
      const int32_t right = tokens.find(halves.right(), halves.hashes[1]);
      const int32_t result = tokens.find(halves.joined, halves.hashes[2]);
      if (left < 0 || right < 0 || result < 0) {
        first_bad_merge_ = static_cast<int64_t>(i);
        return;
      }
      add(left, right, static_cast<int32_t>(i), result);
      made_[static_cast<size_t>(result)] = true;
    }
  }
}

void BytePairs::add(int32_t left, int32_t right, int32_t rank, int32_t result) {
  const uint64_t pair = pair_of(left, right);
  const size_t mask = merges_.size() - 1;
  size_t at = mix_bits(pair ^ hash_seed()) & mask;
  while (merges_[at].pair != kNoPair && merges_[at].pair != pair) at = (at + 1) & mask;
  merges_[at] = {pair, rank, result};  // of a merge that is there twice the last counts, as in `tokenizers`
}

const BytePairs::Merge* BytePairs::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  const size_t mask = merges_.size() - 1;
  for (size_t at = mix_bits(pair ^ hash_seed()) & mask; merges_[at].pair != kNoPair; at = (at + 1) & mask) {
    if (merges_[at].pair == pair) return &merges_[at];
  }
  return nullptr;
}

void BytePairs::encode(std::string_view piece, const Rules& rules, Scratch& scratch,
                       std::vector<int32_t>& tokens) const {
  const auto is_hidden = [&](int32_t token) {
    return rules.is_hidden != nullptr && rules.is_hidden[static_cast<size_t>(token)] != 0;
  };
  if (rules.ignores_merges) {
    scratch.spelled.clear();
    for (const char byte : piece) scratch.spelled += alphabet_[static_cast<uint8_t>(byte)];
    const int32_t token = tokens_.find(scratch.spelled);
    if (token >= 0 && !is_hidden(token)) {
      tokens.push_back(token);
      return;
    }
  }
  if (piece.size() > INT32_MAX) throw std::invalid_argument("a piece of more bytes than an int32 counts");
  std::vector<Symbol>& symbols = scratch.symbols;
  symbols.clear();
  for (const char byte : piece) {
    const int32_t token = of_byte_[static_cast<uint8_t>(byte)];
    if (token < 0 || is_hidden(token)) continue;
    const auto place = static_cast<int32_t>(symbols.size());
    symbols.push_back({token, place - 1, place + 1});
  }
  if (symbols.empty()) return;
  symbols.back().behind = -1;

  std::vector<Candidate>& candidates = scratch.candidates;
  candidates.clear();
  const auto consider = [&](int32_t left) {
    if (left < 0 || symbols[static_cast<size_t>(left)].behind < 0) return;
    const Symbol& symbol = symbols[static_cast<size_t>(left)];
    const int32_t right_token = symbols[static_cast<size_t>(symbol.behind)].token;
    const Merge* merge = find(symbol.token, right_token);
    if (merge == nullptr || is_hidden(merge->result)) return;
    candidates.push_back({merge->rank, left, symbol.token, right_token, merge->result});
    std::push_heap(candidates.begin(), candidates.end(), is_worse);
  };
  for (int32_t place = 0; place < static_cast<int32_t>(symbols.size()); place++) consider(place);
  while (!candidates.empty()) {
    std::pop_heap(candidates.begin(), candidates.end(), is_worse);
    const Candidate best = candidates.back();
    candidates.pop_back();
    Symbol& left = symbols[static_cast<size_t>(best.left)];
    if (left.token != best.left_token || left.behind < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.behind)];
    if (right.token != best.right_token) continue;
    left.token = best.result;
    right.token = -1;
    left.behind = right.behind;
    if (right.behind >= 0) symbols[static_cast<size_t>(right.behind)].before = best.left;
    consider(left.before);
    consider(best.left);
  }
  for (int32_t place = 0; place >= 0; place = symbols[static_cast<size_t>(place)].behind) {
    tokens.push_back(symbols[static_cast<size_t>(place)].token);
  }
}

}  // namespace quintet
