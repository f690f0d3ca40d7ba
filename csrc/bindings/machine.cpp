// What this machine is: the kernels it can run, its threads, how fast it reads memory.
#include "machine.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "bindings.h"
#include "kernels.h"
#include "thread_pool.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace quintet {
namespace {

void check_measurement(int num_threads, double seconds) {
  if (num_threads < 1 || num_threads > 1024) throw std::invalid_argument("num_threads must be 1 to 1024");
  if (!(seconds > 0 && seconds <= 60)) throw std::invalid_argument("seconds must be above 0, at most 60");
}

}  // namespace

void bind_machine(nb::module_& m) {
  m.def(
      "kernels_info",
      [] {
        const KernelTable* tables[8];
        const int count = available_kernels(tables, 8);
        std::vector<std::string> available;
        for (int i = 0; i < count; i++) available.emplace_back(tables[i]->name);
        const KernelTable* active = active_kernels();
        nb::dict info;
        info["active"] = active == nullptr ? nb::none() : nb::cast(std::string(active->name));
        info["available"] = nb::cast(available);
        return info;
      },
      nb::sig("def kernels_info() -> dict[str, typing.Any]"),
      "`active`: the kernel table in use, None when QUINTET_KERNELS names one that cannot run; `available`: all of "
      "them, slowest first.");
  m.def("default_num_threads", &default_num_threads, "min(affinity mask, cgroup CPU quota, physical cores).");
  m.def(
      "measure_read_bandwidth",
      [](int num_threads, size_t size_bytes, double seconds) {
        check_measurement(num_threads, seconds);
        const nb::gil_scoped_release release;
        return measure_read_bandwidth(num_threads, size_bytes, seconds);
      },
      nb::kw_only(), "num_threads"_a, "size_bytes"_a = 0, "seconds"_a = 0.5,
      "Best bytes per second of reading `size_bytes` once on all threads, over `seconds` of trying; 0 bytes: more "
      "than caches hold.");
  m.def(
      "measure_int8_peak",
      [](int num_threads, double seconds) {
        check_measurement(num_threads, seconds);
        const nb::gil_scoped_release release;
        return measure_int8_peak(num_threads, seconds);
      },
      nb::kw_only(), "num_threads"_a, "seconds"_a = 0.5,
      "Best int8 multiply-accumulates per second on all threads, with the active kernels' instructions.");
}

}  // namespace quintet
