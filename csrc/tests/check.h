// A test is a program: CHECK counts and prints what fails, report() is its exit status.
#pragma once

#include <cstdio>

namespace quintet::tests {

inline int num_checks = 0;
inline int num_failures = 0;

inline int report(const char* name) {
  std::printf("%s: %d checks, %d failures\n", name, num_checks, num_failures);
  return num_failures > 0 ? 1 : 0;
}

}  // namespace quintet::tests

// CHECK(condition, format, arguments...)
#define CHECK(condition, ...)                                                        \
  do {                                                                               \
    ++quintet::tests::num_checks;                                                    \
    if (!(condition) && ++quintet::tests::num_failures <= 20) {                      \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                    \
      std::printf(__VA_ARGS__);                                                      \
      std::printf("\n");                                                             \
    }                                                                                \
  } while (false)
