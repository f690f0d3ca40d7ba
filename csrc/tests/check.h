// The whole test framework: CHECK counts and reports, finish() prints a summary and gives the exit status, and
// few_shapes() asks for less.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

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

// Emulated machines are slow: with QUINTET_TEST_SHAPES=few the longest tests take fewer and smaller shapes.
inline bool few_shapes() {
  const char* shapes = std::getenv("QUINTET_TEST_SHAPES");
  return shapes != nullptr && std::strcmp(shapes, "few") == 0;
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
