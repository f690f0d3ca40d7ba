// The Python module quintet._native: a list of topics, each in its own file.
#include <nanobind/nanobind.h>

#include "bindings.h"

NB_MODULE(_native, m) {
  m.doc() = "Quintet's native core.";
  // A vocabulary that a global still holds when the interpreter ends is no leak.
  nanobind::set_leak_warnings(false);
  quintet::bind_machine(m);
  quintet::bind_plan(m);
  quintet::bind_quantize(m);
  quintet::bind_sampling(m);
  quintet::bind_text(m);
  quintet::bind_tokenizer(m);
}
