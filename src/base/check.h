// CHECK(condition) << "detail": stops the process when *we* are wrong. Always on, in every build.
// Never used on input; bad input is a Result (result.h).
#pragma once

#include <sstream>

namespace millpower {

// Collects the message of a failed CHECK and aborts when destroyed.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

}  // namespace millpower

#define CHECK(condition)      \
  if (condition) [[likely]] { \
  } else /* NOLINT */         \
    ::millpower::CheckFailure(__FILE__, __LINE__, #condition).stream()
