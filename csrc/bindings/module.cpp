// The Python module quintet._native: a list of topics, each in its own file.
#include <nanobind/nanobind.h>

void bind_sampling(nanobind::module_& m);

NB_MODULE(_native, m) {
  m.doc() = "Quintet's native core.";
  bind_sampling(m);
}
