// Denormals are zero in the threads of a pool while it runs, and only there: as operands and as results.
#include <limits>
#include <vector>

#include "check.h"
#include "thread_pool.h"

namespace {

using namespace quintet;

volatile float smallest_normal = std::numeric_limits<float>::min();
volatile float denormal = std::numeric_limits<float>::denorm_min();

bool flushes() { return smallest_normal * 0.5f == 0.0f && denormal * 0x1p100f == 0.0f; }
bool keeps() { return smallest_normal * 0.5f != 0.0f && denormal * 0x1p100f != 0.0f; }

}  // namespace

int main() {
  CHECK(keeps());
  for (const int num_threads : {1, 2, 3}) {
    ThreadPool pool(num_threads);
    std::vector<int> flushed(static_cast<size_t>(pool.num_threads()));
    for (int pass = 0; pass < 2; ++pass) {
      pool.run([&](int worker) { flushed[static_cast<size_t>(worker)] += flushes() ? 1 : 0; });
      CHECK(keeps());
    }
    for (const int count : flushed) CHECK(count == 2);
  }
  return tests::finish("test_thread_pool");
}
