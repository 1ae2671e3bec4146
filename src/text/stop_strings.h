// Ends a stream of text at the first of some stop strings.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace millpower::text {

// One per stream, not thread-safe. Costs a few steps per byte and stop string, however long or
// repetitive they are.
class StopMatcher {
 public:
  // Empty strings are passed over.
  explicit StopMatcher(const std::vector<std::string>& stops);

  struct Output {
    std::string text;      // safe to send: no stop string can begin in it
    bool stopped = false;  // a stop string is complete; what follows it is gone
  };
  // Text is whole UTF-8 characters if all pieces are. The stop string that is complete first
  // counts, the longest of those that end together; the text ends before it. After `stopped`, all
  // later pieces are ignored.
  Output Push(std::string_view piece);

  // What was held back at the end of the stream, because a stop string could have begun there.
  std::string Flush();

 private:
  // Knuth, Morris and Pratt: matched is the length of the longest prefix of the stop string that
  // the text so far ends with.
  struct Stop {
    std::string string;
    std::vector<size_t> fallback;  // [length]: the longest proper border of that prefix
    size_t matched = 0;

    void Advance(char c);
  };

  std::vector<Stop> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace millpower::text
