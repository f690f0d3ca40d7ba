#include "string_index.h"

#include <bit>
#include <cstring>
#include <random>
#include <stdexcept>

namespace quintet {

uint64_t StringIndex::hash(std::string_view text) {
  uint64_t sum = hash_seed() ^ text.size();
  size_t i = 0;
  uint64_t word = 0;
  for (; i + sizeof word <= text.size(); i += sizeof word) {
    std::memcpy(&word, text.data() + i, sizeof word);
    sum = mix_bits(sum ^ word);
  }
  word = 0;
  std::memcpy(&word, text.data() + i, text.size() - i);
  return mix_bits(sum ^ word);
}

Strings::Strings(const char* data, size_t size_bytes, const int64_t* starts, size_t count)
    : data_(data), starts_(starts), count_(count) {
  for (size_t i = 0; i < count; i++) {
    if (starts[i] < 0 || starts[i + 1] < starts[i] || static_cast<uint64_t>(starts[i + 1]) > size_bytes ||
        starts[i + 1] - starts[i] < kLengthBytes) {
      throw std::invalid_argument("starts: outside the bytes, or not ascending");
    }
  }
}

StringIndex::StringIndex(const Strings& strings) : strings_(strings) {
  if (strings.count() > INT32_MAX) throw std::invalid_argument("more strings than an int32 counts");
  slots_.resize(table_size(strings.count()));
  const size_t mask = slots_.size() - 1;
  for (size_t i = 0; i < strings.count(); i++) {
    const std::string_view text = strings[i];
    const uint64_t whole_hash = hash(text);
    const auto short_hash = static_cast<uint32_t>(whole_hash >> 32);
    size_t at = whole_hash & mask;
    while (slots_[at].place != kNone) {
      if (slots_[at].hash == short_hash && strings[static_cast<size_t>(slots_[at].place)] == text) break;
      at = (at + 1) & mask;
    }
    if (slots_[at].place == kNone) {
      slots_[at] = {short_hash, static_cast<int32_t>(i)};
    } else if (duplicate_.first == kNone) {
      duplicate_ = {slots_[at].place, static_cast<int32_t>(i)};
    }
  }
}

void StringIndex::fetch_string(uint64_t hash) const {
  const Slot& slot = slots_[hash & (slots_.size() - 1)];
  if (slot.place != kNone) strings_.fetch(static_cast<size_t>(slot.place));
}

int32_t StringIndex::find(std::string_view text, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  const auto short_hash = static_cast<uint32_t>(hash >> 32);
  for (size_t at = hash & mask; slots_[at].place != kNone; at = (at + 1) & mask) {
    if (slots_[at].hash == short_hash && strings_[static_cast<size_t>(slots_[at].place)] == text) {
      return slots_[at].place;
    }
  }
  return kNone;
}

bool is_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto continues = [&](size_t i) { return i < text.size() && (byte(i) & 0xc0) == 0x80; };
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = byte(i);
    if (lead < 0x80) {
      i += 1;
    } else if (lead >= 0xc2 && lead < 0xe0) {
      if (!continues(i + 1)) return false;
      i += 2;
    } else if (lead >= 0xe0 && lead < 0xf0) {
      if (!continues(i + 1) || !continues(i + 2)) return false;
      if (lead == 0xe0 && byte(i + 1) < 0xa0) return false;   // overlong
      if (lead == 0xed && byte(i + 1) >= 0xa0) return false;  // a surrogate
      i += 3;
    } else if (lead >= 0xf0 && lead < 0xf5) {
      if (!continues(i + 1) || !continues(i + 2) || !continues(i + 3)) return false;
      if (lead == 0xf0 && byte(i + 1) < 0x90) return false;   // overlong
      if (lead == 0xf4 && byte(i + 1) >= 0x90) return false;  // beyond U+10FFFF
      i += 4;
    } else {
      return false;
    }
  }
  return true;
}

size_t table_size(size_t count) { return std::bit_ceil(count + count / 2 + 1); }

uint64_t hash_seed() {
  static const uint64_t seed = [] {
    std::random_device random;
    return static_cast<uint64_t>(random()) << 32 | random();
  }();
  return seed;
}

}  // namespace quintet
