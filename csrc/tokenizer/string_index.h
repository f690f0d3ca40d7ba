// An array of strings, and which of them a text is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace quintet {

// Strings as GGUF stores them: string i is between the eight bytes of its length at starts[i] and starts[i + 1].
// `data` and `starts` are the caller's to keep.  Throws std::invalid_argument where they do not fit together.
class Strings {
 public:
  Strings(const char* data, size_t size_bytes, const int64_t* starts, size_t count);

  size_t count() const { return count_; }
  std::string_view operator[](size_t i) const {
    const int64_t begin = starts_[i] + kLengthBytes;
    return {data_ + begin, static_cast<size_t>(starts_[i + 1] - begin)};
  }
  void fetch(size_t i) const { __builtin_prefetch(data_ + starts_[i]); }

 private:
  static constexpr int64_t kLengthBytes = 8;

  const char* data_;
  const int64_t* starts_;
  size_t count_;
};

// Finds strings in constant time.  Immutable.  Equal strings are found as the first of them.
class StringIndex {
 public:
  static constexpr int32_t kNone = -1;

  // Throws std::invalid_argument for more strings than an int32_t counts.
  explicit StringIndex(const Strings& strings);

  // The string's place, or kNone.
  int32_t find(std::string_view text) const { return find(text, hash(text)); }
  // The same in three parts, for who looks for many: the memory each needs is on its way while others are looked for.
  static uint64_t hash(std::string_view text);
  void fetch_slot(uint64_t hash) const { __builtin_prefetch(&slots_[hash & (slots_.size() - 1)]); }
  void fetch_string(uint64_t hash) const;
  int32_t find(std::string_view text, uint64_t hash) const;
  const Strings& strings() const { return strings_; }
  // The first string that is there twice and where it is again, or kNone twice.
  std::pair<int32_t, int32_t> duplicate() const { return duplicate_; }

 private:
  // Linear probing.
  struct Slot {
    uint32_t hash = 0;
    int32_t place = kNone;
  };

  Strings strings_;
  std::vector<Slot> slots_;
  std::pair<int32_t, int32_t> duplicate_{kNone, kNone};
};

// Whether the bytes are UTF-8.  Source: The Unicode Standard, table 3-7.
bool is_utf8(std::string_view text);

// A table's size for so many entries: a power of two, and two thirds full at most.
size_t table_size(size_t count);

// A number that nobody outside this process can guess, so that no file can be made whose strings all collide.
uint64_t hash_seed();

// Spreads all bits of a word over all bits of the result; bijective.  Source: the finaliser of MurmurHash3.
inline uint64_t mix_bits(uint64_t x) {
  x = (x ^ x >> 33) * 0xff51afd7ed558ccdu;
  x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53u;
  return x ^ x >> 33;
}

}  // namespace quintet
