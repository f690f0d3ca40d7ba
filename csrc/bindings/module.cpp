// The Python module quintet._native: a list of topics, each in its own file.
#include <nanobind/nanobind.h>

#include "bindings.h"

NB_MODULE(_native, m) {
  m.doc() = "Quintet's native core.";
  quintet::bind_machine(m);
  quintet::bind_plan(m);
  quintet::bind_quantize(m);
  quintet::bind_sampling(m);
  quintet::bind_text(m);
}
