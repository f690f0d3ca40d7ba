// Philox4x32-10, a counter-based random generator: the n-th number of a request is a function of its seed and n alone,
// so it does not depend on the batch, on preemption or on how often a step was repeated.
// Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.
#pragma once

#include <array>
#include <cstdint>

namespace quintet {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

inline PhiloxCounter philox4x32_10(PhiloxCounter counter, PhiloxKey key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;  // golden ratio, sqrt(3) - 1
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

// What a position's random numbers are for: each use has a stream of its own (counter word 2; word 3 stays zero).
enum class RandomStream : uint32_t { kToken = 0, kXtc = 1 };

// The uniform number in [0, 1) of output position `position` under `seed`, with 53 random bits.
inline double philox_uniform(uint64_t seed, uint64_t position, RandomStream stream = RandomStream::kToken) {
  const PhiloxCounter counter = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32),
                                 static_cast<uint32_t>(stream), 0};
  const PhiloxKey key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const PhiloxCounter words = philox4x32_10(counter, key);
  const uint64_t bits = (static_cast<uint64_t>(words[0]) << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

}  // namespace quintet
