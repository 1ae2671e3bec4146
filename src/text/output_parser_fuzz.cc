// Any output of a model, cut into any pieces: the parser may not crash, its events are well formed,
// and they do not depend on the pieces.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/json.h"
#include "text/output_parser.h"

using millpower::text::ChatFormat;
using millpower::text::OutputEvent;
using millpower::text::OutputParser;

namespace {

std::vector<OutputEvent> Parse(uint8_t setup, std::string_view text, size_t piece_size) {
  OutputParser parser(static_cast<ChatFormat>(setup & 3), setup & 4, setup & 8);
  std::vector<OutputEvent> merged;
  const auto take = [&](std::vector<OutputEvent> events) {
    for (OutputEvent& event : events) {
      const bool whole =
          event.kind == OutputEvent::kToolCallBegin || event.kind == OutputEvent::kToolCallEnd;
      if (!whole && !merged.empty() && merged.back().kind == event.kind)
        merged.back().text += event.text;
      else
        merged.push_back(std::move(event));
    }
  };
  for (size_t at = 0; at < text.size(); at += piece_size)
    take(parser.Push(text.substr(at, piece_size)));
  take(parser.Finish());
  return merged;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto events = Parse(data[0], text, size);
  CHECK(events == Parse(data[0], text, 1u + data[1] % 16));

  int calls = 0;
  std::string arguments;
  for (const OutputEvent& event : events) {
    switch (event.kind) {
      case OutputEvent::kReasoning:
      case OutputEvent::kContent:
        CHECK(!event.text.empty());
        break;
      case OutputEvent::kToolCallBegin:
        CHECK(event.index == calls++);
        arguments.clear();
        break;
      case OutputEvent::kToolCallArguments:
        CHECK(event.index == calls - 1);
        arguments += event.text;
        break;
      case OutputEvent::kToolCallEnd: {
        CHECK(event.index == calls - 1);
        const auto json = millpower::ParseJson(arguments);
        CHECK(json && json->is_object());
        break;
      }
    }
  }
  return 0;
}
