// The whole test framework: CHECK counts and reports, finish() prints a summary and gives the exit status.
#pragma once

#include <cstdio>

namespace quintet::tests {

inline int num_checks = 0;
inline int num_failures = 0;

// After this many the rest are counted, not printed.
inline constexpr int kMaxReports = 20;

inline bool report(bool ok, const char* file, int line, const char* expression) {
  ++num_checks;
  if (!ok && num_failures++ < kMaxReports) std::printf("%s:%d: failed: %s\n", file, line, expression);
  return ok;
}

inline int finish(const char* name) {
  std::printf("%s: %d checks, %d failed\n", name, num_checks, num_failures);
  return num_failures == 0 && num_checks > 0 ? 0 : 1;
}

}  // namespace quintet::tests

#define CHECK(expression) ::quintet::tests::report((expression), __FILE__, __LINE__, #expression)

// With the circumstances, printf style, when it fails.
#define CHECK_WITH(expression, ...)                                                              \
  do {                                                                                           \
    if (!CHECK(expression) && ::quintet::tests::num_failures <= ::quintet::tests::kMaxReports) { \
      std::printf("    ");                                                                       \
      std::printf(__VA_ARGS__);                                                                  \
      std::printf("\n");                                                                         \
    }                                                                                            \
  } while (false)
