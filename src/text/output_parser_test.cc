#include "text/output_parser.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace millpower::text {

std::ostream& operator<<(std::ostream& out, const OutputEvent& event) {
  static const char* const kNames[] = {"reasoning", "content", "begin", "arguments", "end"};
  return out << kNames[event.kind] << "[" << event.index << "] \"" << event.text << "\"";
}

namespace {

using Events = std::vector<OutputEvent>;

constexpr auto kReasoning = OutputEvent::kReasoning;
constexpr auto kContent = OutputEvent::kContent;
constexpr auto kBegin = OutputEvent::kToolCallBegin;
constexpr auto kArguments = OutputEvent::kToolCallArguments;
constexpr auto kEnd = OutputEvent::kToolCallEnd;

struct Setup {
  ChatFormat format = ChatFormat::kQwen3;
  bool starts_in_reasoning = false;
  bool tools_enabled = true;
};

// The events of `pieces`, fragments of one kind put together.
Events Parse(const Setup& setup, const std::vector<std::string_view>& pieces) {
  OutputParser parser(setup.format, setup.starts_in_reasoning, setup.tools_enabled);
  Events merged;
  const auto take = [&](Events events) {
    for (OutputEvent& event : events) {
      const bool text = event.kind != kBegin && event.kind != kEnd;
      EXPECT_FALSE(text && event.text.empty());
      if (text && !merged.empty() && merged.back().kind == event.kind &&
          merged.back().index == event.index)
        merged.back().text += event.text;
      else
        merged.push_back(std::move(event));
    }
  };
  for (const std::string_view piece : pieces) take(parser.Push(piece));
  take(parser.Finish());
  return merged;
}

// Checks the events of the text as a whole, at every split in three, and byte by byte.
void Check(const Setup& setup, const std::string& text, const Events& expected) {
  const std::string_view view = text;
  ASSERT_EQ(Parse(setup, {view}), expected) << text;
  for (size_t i = 0; i <= view.size(); ++i)
    for (size_t j = i; j <= view.size(); ++j)
      ASSERT_EQ(Parse(setup, {view.substr(0, i), view.substr(i, j - i), view.substr(j)}), expected)
          << text << " at " << i << ", " << j;
  std::vector<std::string_view> bytes;
  for (size_t i = 0; i < view.size(); ++i) bytes.push_back(view.substr(i, 1));
  ASSERT_EQ(Parse(setup, bytes), expected) << text;
}

TEST(OutputParser, SplitsReasoningFromContent) {
  Check({}, "<think>\nhm, a < b\n\nso\n</think>\n\nHello\n",
        {{kReasoning, 0, "hm, a < b\n\nso"}, {kContent, 0, "Hello\n"}});
  Check({}, "\n <think>\n\n</think>\n\nHello", {{kContent, 0, "Hello"}});
  Check({ChatFormat::kQwen3Thinking2507, true}, "\nhm\n</think>\n\nHello</think>",
        {{kReasoning, 0, "hm"}, {kContent, 0, "Hello</think>"}});
}

TEST(OutputParser, WithoutTagsAllIsContent) {
  Check({}, "", {});
  Check({}, "\n\n a\n", {{kContent, 0, "\n\n a\n"}});
  Check({}, "no <think> here </think>", {{kContent, 0, "no <think> here </think>"}});
  Check({ChatFormat::kQwen3Instruct2507}, "<think>a</think>", {{kContent, 0, "<think>a</think>"}});
  Check({ChatFormat::kChatMl}, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
        {{kContent, 0, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"}});
}

TEST(OutputParser, IncompleteTagsAreText) {
  Check({}, "<thi", {{kContent, 0, "<thi"}});
  Check({}, "<think>a\n</thin", {{kReasoning, 0, "a\n</thin"}});
  Check({}, "<think>a\n", {{kReasoning, 0, "a"}});
  Check({}, "a\n<tool_cal", {{kContent, 0, "a\n<tool_cal"}});
  Check({}, "a <<tool_call", {{kContent, 0, "a <<tool_call"}});
}

TEST(OutputParser, StreamsToolCalls) {
  Check({},
        "<think>\nlook it up\n</think>\n\nOne moment.\n<tool_call>\n"
        "{\"name\": \"f\\u0041\", \"arguments\": {\"a\": [1, {\"b\": \"}]\\\"</tool_call>\"}]}}\n"
        "</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>\n",
        {{kReasoning, 0, "look it up"},
         {kContent, 0, "One moment."},
         {kBegin, 0, "fA"},
         {kArguments, 0, "{\"a\": [1, {\"b\": \"}]\\\"</tool_call>\"}]}"},
         {kEnd, 0, ""},
         {kBegin, 1, "g"},
         {kArguments, 1, "{}"},
         {kEnd, 1, ""}});
  Check({ChatFormat::kQwen3Instruct2507},
        "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n\ndone\n",
        {{kBegin, 0, "f"}, {kArguments, 0, "{}"}, {kEnd, 0, ""}, {kContent, 0, "done\n"}});
}

TEST(OutputParser, ArgumentsComeAsTheyAreWritten) {
  OutputParser parser(ChatFormat::kQwen3, false, true);
  EXPECT_EQ(parser.Push("<tool_call>{\"name\": \"f\", \"arguments\": "), Events{});
  EXPECT_EQ(parser.Push("{\"a\": "), (Events{{kBegin, 0, "f"}, {kArguments, 0, "{\"a\": "}}));
  EXPECT_EQ(parser.Push("1"), (Events{{kArguments, 0, "1"}}));
  EXPECT_EQ(parser.Push("}}"), (Events{{kArguments, 0, "}"}, {kEnd, 0, ""}}));
}

TEST(OutputParser, TakesCallsOfAnotherShapeWhole) {
  Check({}, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>",
        {{kBegin, 0, "f"}, {kArguments, 0, "{\"a\":1}"}, {kEnd, 0, ""}});
  Check({}, "<tool_call>{\"id\": 3, \"name\": \"f\", \"arguments\": {}}</tool_call>x",
        {{kBegin, 0, "f"}, {kArguments, 0, "{}"}, {kEnd, 0, ""}, {kContent, 0, "x"}});
}

TEST(OutputParser, ForgivesTheLastBracketOfACall) {
  const Events call = {{kBegin, 0, "f"}, {kArguments, 0, "{}"}, {kEnd, 0, ""}};
  Check({}, "<tool_call>{\"name\": \"f\", \"arguments\": {}\n</tool_call>", call);
  Check({}, "<tool_call>{\"name\": \"f\", \"arguments\": {}}\n", call);
}

TEST(OutputParser, GivesMalformedCallsBack) {
  for (const char* call :
       {"<tool_call>f(1)</tool_call>", "<tool_call></tool_call>",
        "<tool_call>{\"name\": \"f\"}</tool_call>",
        "<tool_call>{\"name\": 1, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}</tool_call>",
        "<tool_call>{\"name\": \"\\x\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"f", "<tool_call>", "<tool_call>{\"name\": \"f\", \"arguments\": [",
        "<tool_call>x</tool_cal"})
    Check({}, "Well:\n" + std::string(call), {{kContent, 0, "Well:\n" + std::string(call)}});
}

TEST(OutputParser, BrokenArgumentsAreWhatTheModelWrote) {
  const std::string head = "<tool_call>{\"name\": \"f\", \"arguments\": ";
  Check({}, head + "{\"a\": 1", {{kBegin, 0, "f"}, {kArguments, 0, "{\"a\": 1"}});
  Check({}, head + "{\"a\": 1</tool_call>b",
        {{kBegin, 0, "f"}, {kArguments, 0, "{\"a\": 1"}, {kContent, 0, "b"}});
  Check({}, head + "{\"a\": \"1}\n</tool_call>b",
        {{kBegin, 0, "f"}, {kArguments, 0, "{\"a\": \"1}\n"}, {kContent, 0, "b"}});
  Check({}, head + "{\"a\": ?}}</tool_call>", {{kBegin, 0, "f"}, {kArguments, 0, "{\"a\": ?}"}});
  Check({}, head + "{}, \"id\": 1}</tool_call>",
        {{kBegin, 0, "f"},
         {kArguments, 0, "{}"},
         {kEnd, 0, ""},
         {kContent, 0, ", \"id\": 1}</tool_call>"}});
}

TEST(OutputParser, WithoutToolsCallsAreContent) {
  const std::string text = "a\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n";
  Check({ChatFormat::kQwen3, false, false}, text, {{kContent, 0, text}});
}

// A name that never ends must not be held for ever, wherever the pieces are cut.
TEST(OutputParser, LongHeadsAreTheSameAtAnySplit) {
  for (const size_t size : {900u, 990u, 1000u, 1024u, 3000u}) {
    const std::string text =
        "<tool_call>{\"name\": \"" + std::string(size, 'f') + "\", \"arguments\": {}}</tool_call>";
    const std::string_view view = text;
    const Events whole = Parse({}, {view});
    EXPECT_EQ(whole.size(), 3u);
    for (size_t i = 0; i <= view.size(); ++i)
      ASSERT_EQ(Parse({}, {view.substr(0, i), view.substr(i)}), whole) << size << " at " << i;
  }
}

}  // namespace
}  // namespace millpower::text
