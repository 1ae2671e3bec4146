// Takes a model's output text apart, as it streams: reasoning, content and tool calls.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace millpower::text {

struct OutputEvent {
  enum Kind {
    kReasoning,          // text
    kContent,            // text
    kToolCallBegin,      // index, text = the function's name
    kToolCallArguments,  // index, text = a fragment of the arguments' JSON text as the model wrote
                         // it
    kToolCallEnd,        // index; the fragments together are a valid JSON object
  };
  Kind kind = kContent;
  int index = 0;  // of the tool call: 0, 1, ...
  std::string text;
  bool operator==(const OutputEvent&) const = default;
};

// One per stream, not thread-safe. Whatever the pieces are that the text comes in, the events are
// the same once fragments of one kind are put together.
//
//   - Reasoning (kQwen3, kQwen3Thinking2507) is <think>...</think> at the start of the output, or
//     all up to </think> where the prompt opened it. Line breaks around it are dropped. Elsewhere
//     these tags are content.
//   - A tool call (all formats but kChatMl, when tools are enabled) is
//     <tool_call>{"name": ..., "arguments": {...}}</tool_call>; line breaks around it are dropped.
//     With its keys in that order, as the models are trained, arguments stream as they come; else
//     the call is held until it is complete, and its arguments are one fragment, written anew.
//   - A call whose JSON is not of that form is content, tags included. Once arguments have begun to
//     stream they cannot be taken back: if they turn out to be broken or cut off, the fragments are
//     still exactly what the model wrote, and there is no kToolCallEnd.
//   - A tag that is incomplete at the end is text like any other.
class OutputParser {
 public:
  // `starts_in_reasoning`: the prompt ends inside <think> (StartsInReasoning in chat.h).
  OutputParser(ChatFormat format, bool starts_in_reasoning, bool tools_enabled);

  std::vector<OutputEvent> Push(std::string_view text);
  // The rest, at the end of the stream.
  std::vector<OutputEvent> Finish();

 private:
  enum class State {
    kStart,            // white space, perhaps <think>
    kReasoning,        // until </think>
    kContent,          // until <tool_call>
    kCallHead,         // {"name": "...", "arguments":
    kCallWhole,        // a call of another shape, until </tool_call>
    kArguments,        // until the object ends
    kBrokenArguments,  // until </tool_call>
    kCallTail,         // }</tool_call>
  };

  // Each consumes what it can of buffer_; false when it needs more text.
  bool Step();
  bool StepStart();
  bool StepUntil(std::string_view tag, OutputEvent::Kind kind, State next);
  bool StepCallHead();
  bool StepCallWhole();
  bool StepArguments();
  bool StepBrokenArguments();
  bool StepCallTail();

  void Emit(OutputEvent::Kind kind, std::string_view text);
  // Text without the line breaks next to tags: those at its end wait for what follows.
  void EmitText(OutputEvent::Kind kind, std::string_view text);
  void BeginCall(std::string_view name);

  const bool tools_enabled_;
  State state_;
  std::string buffer_;           // not yet decided
  size_t searched_ = 0;          // kCallWhole: no </tool_call> begins before this in buffer_
  bool after_tag_;               // line breaks are dropped
  size_t pending_newlines_ = 0;  // at the end of the text so far
  int call_count_ = 0;
  std::string arguments_;  // of the call that streams
  int depth_ = 0;          // open brackets in arguments_
  bool in_string_ = false;
  bool escaped_ = false;
  std::vector<OutputEvent> events_;
};

}  // namespace millpower::text
