// The check at the door of every building call.
#pragma once

#include <stdexcept>

namespace quintet {

inline void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

}  // namespace quintet
