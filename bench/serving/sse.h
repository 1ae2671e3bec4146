// Server-sent events (html.spec.whatwg.org, "Parsing an event stream"), as far as OpenAI servers
// use them: the data of each event, as bytes come in.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millpower::bench {

// Not thread-safe; one per stream.
class SseParser {
 public:
  // An event's data may be so long; a server that never ends a line must not fill our memory.
  static constexpr size_t kMaxEventBytes = 4 << 20;

  // The data of the events that these bytes complete, in order; lines of one event are joined by
  // "\n". Lines end in LF, CR or CRLF, wherever the bytes are cut. Comments and other fields are
  // passed over, as are events without data. Errors: kOutOfRange past kMaxEventBytes.
  Result<std::vector<std::string>> Push(std::string_view bytes);

 private:
  void EndLine(std::vector<std::string>& events);

  std::string line_;
  std::string data_;  // of the event so far, a "\n" after each line
  bool after_cr_ = false;
};

}  // namespace millpower::bench
