// Vocabularies without Python: strings against a list of them, byte pairs against merging by definition.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "byte_pairs.h"
#include "check.h"
#include "string_index.h"

using namespace quintet;

namespace {

// Strings as GGUF stores them.
struct Stored {
  explicit Stored(const std::vector<std::string>& texts) {
    for (const std::string& text : texts) {
      starts.push_back(static_cast<int64_t>(data.size()));
      const uint64_t size = text.size();
      char length[sizeof size];
      std::memcpy(length, &size, sizeof size);
      data.append(length, sizeof length);
      data += text;
    }
    starts.push_back(static_cast<int64_t>(data.size()));
  }
  Strings strings() const { return {data.data(), data.size(), starts.data(), starts.size() - 1}; }

  std::string data;
  std::vector<int64_t> starts;
};

// The byte alphabet need not be GPT-2's for any of this: here a byte stands for itself.
std::vector<std::string> bytes_themselves() {
  std::vector<std::string> alphabet;
  for (int byte = 0; byte < 256; byte++) alphabet.emplace_back(1, static_cast<char>(byte));
  return alphabet;
}

void test_strings_are_found() {
  std::vector<std::string> texts;
  for (int i = 0; i < 3000; i++) texts.push_back(std::string(static_cast<size_t>(i % 40), 'x') + std::to_string(i / 7));
  const Stored stored(texts);
  const StringIndex index(stored.strings());
  for (const std::string& text : texts) {
    const auto first = std::find(texts.begin(), texts.end(), text) - texts.begin();
    CHECK(index.find(text) == first);
    CHECK(index.find(text + "!") == StringIndex::kNone);
  }
  const Stored twice({"a", "", "b", "", "a"});
  CHECK(StringIndex(twice.strings()).duplicate() == std::make_pair(1, 3));
  CHECK(StringIndex(Stored({}).strings()).find("a") == StringIndex::kNone);
}

void test_utf8() {
  for (const char* text :
       {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    CHECK_WITH(is_utf8(text), "%s", text);
  }
  for (const char* text : {"\x80", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe1\x80", "\xf0\x8f\x80\x80",
                           "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xf1\x80\x80"}) {
    CHECK_WITH(!is_utf8(text), "%s", text);
  }
}

struct Pair {
  std::string left, right;
};

// The best merge of any two neighbours, the leftmost of several, until there is none.
std::vector<std::string> merged(std::string_view piece, const std::vector<Pair>& merges,
                                const std::vector<std::string>& hidden) {
  std::vector<std::string> parts;
  for (const char byte : piece) parts.emplace_back(1, byte);
  for (size_t rank = 0; rank < merges.size();) {
    const Pair& merge = merges[rank];
    const bool is_hidden = std::find(hidden.begin(), hidden.end(), merge.left + merge.right) != hidden.end();
    size_t at = 0;
    while (at + 1 < parts.size() && (parts[at] != merge.left || parts[at + 1] != merge.right)) at++;
    if (is_hidden || at + 1 >= parts.size()) {
      rank++;
      continue;
    }
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
    rank = 0;
  }
  return parts;
}

void test_byte_pairs_against_the_definition() {
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 60; round++) {
    std::vector<std::string> tokens = bytes_themselves();
    std::vector<std::string> known = {"a", "b", "c"};
    std::vector<Pair> merges;
    std::vector<std::string> spelled;
    for (int i = 0; i < 40; i++) {
      const Pair merge{known[below(known.size())], known[below(known.size())]};
      const std::string joined = merge.left + merge.right;
      const auto is_same = [&](const Pair& other) { return other.left == merge.left && other.right == merge.right; };
      if (std::find_if(merges.begin(), merges.end(), is_same) != merges.end()) continue;
      if (std::find(tokens.begin(), tokens.end(), joined) == tokens.end()) {
        tokens.push_back(joined);
        known.push_back(joined);
      }
      merges.push_back(merge);
      spelled.push_back(merge.left + " " + merge.right);
    }
    const Stored stored(tokens);
    const Stored stored_merges(spelled);
    const StringIndex index(stored.strings());
    const BytePairs pairs(index, stored_merges.strings(), bytes_themselves());
    CHECK(pairs.first_bad_merge() == -1);
    const std::string hidden = known.back();
    std::vector<uint8_t> is_hidden(tokens.size());
    is_hidden[static_cast<size_t>(index.find(hidden))] = 1;
    BytePairs::Scratch scratch;
    for (int sample = 0; sample < 30; sample++) {
      std::string piece;
      for (size_t i = below(60); i > 0; i--) piece += "abcd"[below(4)];
      for (const bool hides : {false, true}) {
        std::vector<int32_t> found;
        pairs.encode(piece, {.ignores_merges = false, .is_hidden = hides ? is_hidden.data() : nullptr}, scratch, found);
        std::vector<std::string> texts;
        for (const int32_t token : found) texts.push_back(tokens[static_cast<size_t>(token)]);
        const auto expected = merged(piece, merges, hides ? std::vector{hidden} : std::vector<std::string>{});
        CHECK_WITH(texts == expected, "%s", piece.c_str());
      }
    }
    std::vector<int32_t> whole;
    pairs.encode(hidden, {.ignores_merges = true}, scratch, whole);
    CHECK(whole == std::vector{index.find(hidden)});
  }
}

void test_bad_merges_are_found() {
  const Stored tokens({"a", "b", "ab"});
  const StringIndex index(tokens.strings());
  for (const char* merge : {"ab", "", " ", "a ", "b a", "a c", "c b"}) {
    const Stored merges({"a b", merge});
    const BytePairs pairs(index, merges.strings(), bytes_themselves());
    CHECK_WITH(pairs.first_bad_merge() == 1, "%s", merge);
  }
}

}  // namespace

int main() {
  test_strings_are_found();
  test_utf8();
  test_byte_pairs_against_the_definition();
  test_bad_merges_are_found();
  return tests::finish("test_tokenizer");
}
