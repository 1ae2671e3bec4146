#include "text/chat.h"

#include <gtest/gtest.h>

#include "text/python_json.h"
#include "text/test_data.h"

namespace millpower::text {
namespace {

std::string Render(ChatFormat format, const Json& messages, const Json& tools = nullptr,
                   const ChatOptions& options = {}) {
  const auto prompt = RenderChat(format, messages, tools, options);
  return prompt ? *prompt : prompt.error().param + " | " + prompt.error().message;
}

// Renders the conversations of a golden file and compares; returns how many there were.
int CheckGoldens(const char* file) {
  int count = 0;
  for (const std::string& line : ReadTestLines(file)) {
    const Json golden = ParseJson(line).value();
    const ChatFormat format = golden.contains("format")
                                  ? ChatFormatFromName(golden["format"].get<std::string>()).value()
                                  : ChatFormat::kQwen3;
    ChatOptions options{golden["add_generation_prompt"].get<bool>(), std::nullopt};
    if (golden["chat_template_kwargs"].contains("enable_thinking"))
      options.enable_thinking = golden["chat_template_kwargs"]["enable_thinking"].get<bool>();
    EXPECT_EQ(Render(format, golden["messages"], golden["tools"], options), golden["rendered"])
        << "line " << count;
    ++count;
  }
  return count;
}

TEST(Chat, RendersAsTheGoldens) { EXPECT_EQ(CheckGoldens("chat_golden.jsonl.gz"), 150); }

// All three official Qwen3 templates, with odd turns, numbers and escapes.
TEST(Chat, RendersAsTheOfficialTemplates) {
  EXPECT_EQ(CheckGoldens("chat_formats.jsonl.gz"), 3 * (40 + 36));
}

TEST(Chat, JoinsTextPartsAndTakesDeveloperForSystem) {
  const Json messages = {
      {{"role", "developer"}, {"content", "be brief"}},
      {{"role", "user"},
       {"content", {{{"type", "text"}, {"text", "one"}}, {{"type", "text"}, {"text", "two"}}}}}};
  EXPECT_EQ(Render(ChatFormat::kQwen3Thinking2507, messages),
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\none\ntwo<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n");
  EXPECT_EQ(Render(ChatFormat::kChatMl, messages),
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\none\ntwo<|im_end|>\n"
            "<|im_start|>assistant\n");
}

TEST(Chat, NamesTheFieldThatIsWrong) {
  struct Case {
    const char* messages;
    const char* tools;
    const char* field;
  };
  const Case cases[] = {
      {R"([])", "null", "messages"},
      {R"({})", "null", "messages"},
      {R"([1])", "null", "messages[0]"},
      {R"([{"content": "a"}])", "null", "messages[0].role"},
      {R"([{"role": "robot", "content": "a"}])", "null", "messages[0].role"},
      {R"([{"role": 7, "content": "a"}])", "null", "messages[0].role"},
      {R"([{"role": "user"}])", "null", "messages[0].content"},
      {R"([{"role": "user", "content": "a"}, {"role": "user", "content": 7}])", "null",
       "messages[1].content"},
      {R"([{"role": "user", "content": ["a"]}])", "null", "messages[0].content[0]"},
      {R"([{"role": "user", "content": [{"type": "text", "text": "a"},
                                        {"type": "image_url", "image_url": {}}]}])",
       "null", "messages[0].content[1].type"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])", "null",
       "messages[0].content[0].text"},
      {R"([{"role": "assistant", "reasoning_content": 1}])", "null",
       "messages[0].reasoning_content"},
      {R"([{"role": "assistant", "tool_calls": {}}])", "null", "messages[0].tool_calls"},
      {R"([{"role": "assistant", "tool_calls": [{"function": 1}]}])", "null",
       "messages[0].tool_calls[0].function"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {"arguments": ""}}]}])", "null",
       "messages[0].tool_calls[0].function.name"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 1}}]}])",
       "null", "messages[0].tool_calls[0].function.arguments"},
      {R"([{"role": "user", "content": "a"}])", "{}", "tools"},
      {R"([{"role": "user", "content": "a"}])", "[{}, 1]", "tools[1]"},
  };
  for (const Case& bad : cases) {
    const auto prompt = RenderChat(ChatFormat::kQwen3, ParseJson(bad.messages).value(),
                                   ParseJson(bad.tools).value(), {});
    ASSERT_FALSE(prompt) << bad.messages;
    EXPECT_EQ(prompt.error().param, bad.field);
    EXPECT_TRUE(prompt.error().message.starts_with(bad.field)) << prompt.error().message;
  }
}

TEST(Chat, RefusesWhatTheFormatCannotHonour) {
  const Json messages = {{{"role", "user"}, {"content", "hi"}}};
  const auto code = [&](ChatFormat format, const Json& tools, std::optional<bool> thinking) {
    const auto prompt = RenderChat(format, messages, tools, {true, thinking});
    return prompt ? std::nullopt : std::optional(prompt.error().code);
  };
  EXPECT_EQ(code(ChatFormat::kQwen3Instruct2507, nullptr, true), ErrorCode::kUnsupported);
  EXPECT_EQ(code(ChatFormat::kQwen3Instruct2507, nullptr, false), std::nullopt);
  EXPECT_EQ(code(ChatFormat::kQwen3Thinking2507, nullptr, false), ErrorCode::kUnsupported);
  EXPECT_EQ(code(ChatFormat::kQwen3Thinking2507, nullptr, true), std::nullopt);
  EXPECT_EQ(code(ChatFormat::kChatMl, nullptr, true), ErrorCode::kUnsupported);
  EXPECT_EQ(code(ChatFormat::kChatMl, Json::array({Json::object()}), std::nullopt),
            ErrorCode::kUnsupported);
  EXPECT_EQ(code(ChatFormat::kChatMl, Json::array(), std::nullopt), std::nullopt);
}

// What came from the request, put together, is all that was given; the rest is the template's.
TEST(Chat, TellsGivenTextFromItsOwn) {
  const Json messages = {{{"role", "system"}, {"content", "S<|im_end|>"}},
                         {{"role", "user"}, {"content", "U<|im_start|>"}},
                         {{"role", "assistant"},
                          {"content", "A"},
                          {"reasoning_content", "R"},
                          {"tool_calls", {{{"function", {{"name", "N"}, {"arguments", "{}"}}}}}}},
                         {{"role", "tool"}, {"content", "T"}}};
  const Json tools = {{{"x", "y"}}};
  std::vector<TextRange> untrusted;
  const std::string prompt =
      RenderChat(ChatFormat::kQwen3, messages, tools, {}, &untrusted).value();
  EXPECT_EQ(prompt, Render(ChatFormat::kQwen3, messages, tools));
  std::string given, own;
  size_t end = 0;
  for (const TextRange& range : untrusted) {
    ASSERT_LE(end, range.begin);
    own += prompt.substr(end, range.begin - end);
    given += prompt.substr(range.begin, range.end - range.begin);
    end = range.end;
  }
  own += prompt.substr(end);
  EXPECT_EQ(given, "S<|im_end|>{\"x\": \"y\"}U<|im_start|>RAN{}T");
  EXPECT_EQ(own.find("U"), std::string::npos);
}

// ---- Detection. The templates' own text is not in this repository: these hold what tells them
// apart, in their order.

const std::string kCommon = R"(
{%- if tools %}{{- '<|im_start|>system\n' }}
"# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with
function signatures within <tools></tools> XML tags
<tool_call>\n{\"name\": <function-name>}\n</tool_call><|im_end|>\n" {%- endif %}
)";
const std::string kReasoning = R"(
{%- set ns = namespace(multi_step_tool=true) %} {%- set reasoning_content = '' %} '</think>'
{%- if loop.index0 > ns.last_query_index %}
{%- if loop.last or (not loop.last and reasoning_content) %}
)";
const std::string kCalls = R"(
{%- if (loop.first and content) or (not loop.first) %} '\n<tool_response>\n'
{%- if add_generation_prompt %} )";

TEST(DetectChatFormat, TellsTheQwen3TemplatesApart) {
  EXPECT_EQ(DetectChatFormat(kCommon + kReasoning + kCalls + R"({{- '<|im_start|>assistant\n' }}
      {%- if enable_thinking is defined and enable_thinking is false %}
      {{- '<think>\n\n</think>\n\n' }})")
                .value(),
            ChatFormat::kQwen3);
  EXPECT_EQ(DetectChatFormat(kCommon + kReasoning + kCalls +
                             R"({{- '<|im_start|>assistant\n<think>\n' }})")
                .value(),
            ChatFormat::kQwen3Thinking2507);
  EXPECT_EQ(DetectChatFormat(kCommon + kCalls + R"({{- '<|im_start|>assistant\n' }})").value(),
            ChatFormat::kQwen3Instruct2507);
}

TEST(DetectChatFormat, KnowsOurOwnMark) {
  EXPECT_EQ(DetectChatFormat("{#- millpower: qwen3 chat format -#}\nanything").value(),
            ChatFormat::kQwen3);
  EXPECT_EQ(DetectChatFormat("{#- millpower: chatml chat format -#}").value(), ChatFormat::kChatMl);
  const auto unknown = DetectChatFormat("{#- millpower: klingon chat format -#}");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("klingon"), std::string::npos);
}

TEST(DetectChatFormat, KnowsPlainChatMl) {
  for (
      const char* text :
      {R"({% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})",
       R"({% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{% for message in messages %}{{ "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n" }}{% endfor %}
{% if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %})"})
    EXPECT_EQ(DetectChatFormat(text).value_or(ChatFormat::kQwen3), ChatFormat::kChatMl) << text;
}

TEST(DetectChatFormat, NeverGuesses) {
  const std::string instruct = kCommon + kCalls;
  const std::string thinking = kCommon + kReasoning + kCalls;
  for (
      const std::string& text :
      {std::string(), std::string("<|im_start|>"), kCommon, kReasoning + kCalls,
       instruct + "vision_start", instruct + "{{- raise_exception('no') }}",
       instruct + "'You are Qwen, created by Alibaba Cloud.'", instruct + "<think>",
       thinking,  // no generation prompt that we know
       thinking + "{%- if enable_thinking %}",
       kCommon + kReasoning + "{% generation %}" + kCalls + R"('<|im_start|>assistant\n<think>\n')",
       std::string("{% for message in messages %}{{'[INST]' + message.content}}{% endfor %}"),
       // ChatML but for one line break that is not there
       std::string(
           R"({% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})")}) {
    const auto format = DetectChatFormat(text);
    ASSERT_FALSE(format) << text;
    EXPECT_EQ(format.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(format.error().message.find("chat_template"), std::string::npos);
    EXPECT_NE(format.error().message.find(
                  "--chat-format qwen3|qwen3-instruct-2507|qwen3-thinking-2507|chatml"),
              std::string::npos);
  }
}

TEST(PythonJson, WritesFloatsAsPython) {
  const std::pair<double, const char*> cases[] = {{1e-7, "1e-07"},
                                                  {2.5, "2.5"},
                                                  {1e16, "1e+16"},
                                                  {1e15, "1000000000000000.0"},
                                                  {0.0, "0.0"},
                                                  {-0.0, "-0.0"},
                                                  {1e-4, "0.0001"},
                                                  {1e-5, "1e-05"},
                                                  {1e22, "1e+22"},
                                                  {100.0, "100.0"},
                                                  {-1.5e300, "-1.5e+300"},
                                                  {5e-324, "5e-324"},
                                                  {0.1, "0.1"},
                                                  {12345678.9, "12345678.9"},
                                                  {1.0 / 3, "0.3333333333333333"}};
  for (const auto& [value, text] : cases) EXPECT_EQ(PythonFloat(value), text);
}

TEST(PythonJson, WritesTextAsPython) {
  EXPECT_EQ(
      PythonJson(
          ParseJson(R"({"b":[1,-2,18446744073709551615,true,null,{}],"a":"<\u00e9\u0001\n\"\\/"})")
              .value()),
      "{\"b\": [1, -2, 18446744073709551615, true, null, {}], "
      "\"a\": \"<\u00e9\\u0001\\n\\\"\\\\/\"}");
}

}  // namespace
}  // namespace millpower::text
