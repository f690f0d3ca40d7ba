// One function per topic, called from module.cpp.
#pragma once

#include <nanobind/nanobind.h>

namespace quintet {

void bind_machine(nanobind::module_& m);
void bind_plan(nanobind::module_& m);
void bind_quantize(nanobind::module_& m);
void bind_sampling(nanobind::module_& m);
void bind_text(nanobind::module_& m);
void bind_tokenizer(nanobind::module_& m);

}  // namespace quintet
