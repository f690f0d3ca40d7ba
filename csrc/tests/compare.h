// Comparing numbers in tests: random inputs, bits, errors against double.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels.h"

namespace quintet::tests {

// Those this CPU can run, the reference first.
inline std::vector<const KernelTable*> tables() {
  std::vector<const KernelTable*> found(8);
  found.resize(static_cast<size_t>(available_kernels(found.data(), static_cast<int>(found.size()))));
  return found;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}

  std::vector<float> normal(size_t count, float deviation = 1.0f) {
    std::normal_distribution<float> distribution(0.0f, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = distribution(engine_);
    return values;
  }

  int below(int bound) { return std::uniform_int_distribution<int>(0, bound - 1)(engine_); }

 private:
  std::mt19937 engine_;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// sqrt(sum (actual - expected)^2 / sum expected^2)
template <class T>
double nrmse(const std::vector<T>& actual, const std::vector<double>& expected) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = static_cast<double>(actual[i]) - expected[i];
    error += difference * difference;
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

// Distance in units of the last place of `expected` as a float.
inline double ulps(float actual, double expected) {
  const auto nearest = static_cast<float>(expected);
  const float next = std::nextafter(std::fabs(nearest), INFINITY);
  const double unit = static_cast<double>(next) - static_cast<double>(std::fabs(nearest));
  return std::fabs(static_cast<double>(actual) - expected) / unit;
}

}  // namespace quintet::tests
