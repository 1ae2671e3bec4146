// Names for requests and responses.
#pragma once

#include <string>
#include <string_view>

namespace millpower::serve {

// `prefix` and 24 hexadecimal digits; never the same twice in a process, and practically never
// the same in two. Thread-safe.
std::string NewId(std::string_view prefix);

// Whether a client's own x-request-id may be repeated in headers and logs: 1 to 128 of
// letters, digits, '-', '_', '.', ':'.
bool IsSaneId(std::string_view id);

}  // namespace millpower::serve
