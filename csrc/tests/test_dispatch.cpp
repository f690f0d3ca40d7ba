// Which table runs: the fastest by default, the one QUINTET_KERNELS names otherwise, none for a name no table has.
//
// The choice is made once, so each case needs a process of its own: a fork with QUINTET_KERNELS set, whose exit status
// says which table it got.  This process itself never asks.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "check.h"
#include "kernels.h"

namespace {

using namespace quintet;

constexpr int kMaxTables = 8;
constexpr int kNone = 100;  // exit status of a child that got no table; otherwise 10 + the table's index

int active_index() {
  const KernelTable* tables[kMaxTables];
  const int count = available_kernels(tables, kMaxTables);
  for (int i = 0; i < count; ++i) {
    if (active_kernels() == tables[i]) return 10 + i;
  }
  return kNone;
}

int run_with(const char* name) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("QUINTET_KERNELS", name, 1);
    _exit(active_index());
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

int main() {
  const KernelTable* tables[kMaxTables];
  const int count = available_kernels(tables, kMaxTables);
  CHECK(count >= 1 && tables[0] == &reference_kernels());
  CHECK(available_kernels(tables, 1) == 1);
  for (int i = 0; i < count; ++i) {
    CHECK_WITH(run_with(tables[i]->name) == 10 + i, "forcing %s", tables[i]->name);
    for (const auto linear : tables[i]->linear) CHECK(linear != nullptr);
  }
  CHECK(run_with("") == 10 + count - 1);
  CHECK(run_with("avx1024") == kNone);
  CHECK(run_with("AVX2") == kNone);
  return tests::finish("test_dispatch");
}
