// Which table runs: the fastest by default, the one QUINTET_KERNELS names otherwise, none for a name no table has.
//
// The choice is made once, so each case needs a process of its own: the program runs itself again with QUINTET_KERNELS
// set, and the child's exit status says which table it got.
#include <cstdlib>
#include <cstring>
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

int run_with(const char* program, const std::string& name) {
  setenv("QUINTET_KERNELS", name.c_str(), 1);
  const std::string command = "'" + std::string(program) + "' child";
  const int status = std::system(command.c_str());
  unsetenv("QUINTET_KERNELS");
  return status / 256;  // the exit status, as wait() encodes it
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) return active_index();
  const KernelTable* tables[kMaxTables];
  const int count = available_kernels(tables, kMaxTables);
  CHECK(count >= 1 && tables[0] == &reference_kernels());
  CHECK(available_kernels(tables, 1) == 1);
  for (int i = 0; i < count; ++i) {
    CHECK_WITH(run_with(argv[0], tables[i]->name) == 10 + i, "forcing %s", tables[i]->name);
    for (const auto linear : tables[i]->linear) CHECK(linear != nullptr);
  }
  CHECK(run_with(argv[0], "") == 10 + count - 1);
  CHECK(run_with(argv[0], "avx1024") == kNone);
  CHECK(run_with(argv[0], "AVX2") == kNone);
  return tests::finish("test_dispatch");
}
