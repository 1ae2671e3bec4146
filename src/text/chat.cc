#include "text/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "text/python_json.h"

namespace millpower::text {
namespace {

constexpr std::array<std::pair<ChatFormat, const char*>, 4> kFormatNames = {{
    {ChatFormat::kQwen3, "qwen3"},
    {ChatFormat::kQwen3Instruct2507, "qwen3-instruct-2507"},
    {ChatFormat::kQwen3Thinking2507, "qwen3-thinking-2507"},
    {ChatFormat::kChatMl, "chatml"},
}};

std::string AllFormatNames() {
  std::string names;
  for (const auto& [format, name] : kFormatNames)
    names += (names.empty() ? "" : "|") + std::string(name);
  return names;
}

// ---- Recognising templates

bool HasAll(std::string_view text, std::initializer_list<std::string_view> markers) {
  return std::ranges::all_of(markers, [&](auto marker) { return text.contains(marker); });
}

bool HasAny(std::string_view text, std::initializer_list<std::string_view> markers) {
  return std::ranges::any_of(markers, [&](auto marker) { return text.contains(marker); });
}

std::optional<ChatFormat> DetectQwen3(std::string_view text) {
  if (!HasAll(text, {"<|im_start|>", "<|im_end|>",
                     "You may call one or more functions to assist with the user query.",
                     "<tools></tools>", "<tool_call>", "<tool_response>",
                     "(loop.first and content) or (not loop.first)", "add_generation_prompt"}))
    return std::nullopt;
  if (HasAny(text, {"vision", "image", "<function=", "<parameter=", "preserve_thinking", "macro",
                    "raise_exception", "strftime", "generation %}", "You are Qwen", "helpful"}))
    return std::nullopt;
  if (!HasAny(text, {"reasoning_content", "multi_step_tool", "enable_thinking", "think"}))
    return ChatFormat::kQwen3Instruct2507;
  if (!HasAll(text, {"reasoning_content", "multi_step_tool", "loop.index0 > ns.last_query_index",
                     "loop.last or (not loop.last and reasoning_content)"}))
    return std::nullopt;
  if (HasAll(text, {"enable_thinking is defined and enable_thinking is false",
                    R"('<think>\n\n</think>\n\n')"}))
    return ChatFormat::kQwen3;
  if (!text.contains("enable_thinking") && text.contains(R"('<|im_start|>assistant\n<think>\n')"))
    return ChatFormat::kQwen3Thinking2507;
  return std::nullopt;
}

void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

// The template without what changes nothing: white space inside tags, the line break after a block
// tag (transformers trims it), and two ways to write the same.
std::string PlainTemplate(std::string_view text) {
  std::string plain;
  bool in_tag = false;
  for (const char c : text) {
    if (in_tag && (c == ' ' || c == '\n')) continue;
    if (!in_tag && c == '\n' && plain.ends_with("%}")) continue;
    plain.push_back(c);
    if (plain.ends_with("{{") || plain.ends_with("{%")) in_tag = true;
    if (plain.ends_with("}}") || plain.ends_with("%}")) in_tag = false;
  }
  constexpr std::pair<std::string_view, std::string_view> kSame[] = {
      {"\"", "'"},
      {"['role']", ".role"},
      {"['content']", ".content"},
      {R"('<|im_end|>'+'\n')", R"('<|im_end|>\n')"}};
  for (const auto& [from, to] : kSame) ReplaceAll(plain, from, to);
  return plain;
}

bool IsChatMl(std::string_view text) {
  constexpr std::string_view kLoop =
      R"({%formessageinmessages%}{{'<|im_start|>'+message.role+'\n'+message.content+'<|im_end|>\n'}})"
      R"({%endfor%}{%ifadd_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%})";
  constexpr std::string_view kDefault =
      "{%ifnotadd_generation_promptisdefined%}{%setadd_generation_prompt=false%}{%endif%}";
  const std::string plain = PlainTemplate(text);
  return plain == kLoop || plain == std::string(kDefault) + std::string(kLoop);
}

// ---- Reading messages

std::unexpected<Error> BadField(const std::string& field, const std::string& what,
                                ErrorCode code = ErrorCode::kInvalidArgument) {
  return Fail(code, field + ": " + what, field);
}

enum class Role { kSystem, kUser, kAssistant, kTool };

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON text
};

struct Message {
  Role role = Role::kUser;
  std::string content;
  std::optional<std::string> reasoning;
  std::vector<ToolCall> tool_calls;
};

const Json& FieldOf(const Json& object, const char* name) {
  static const Json null;
  const auto found = object.find(name);
  return found == object.end() ? null : *found;
}

Result<Role> ReadRole(const Json& message, const std::string& field) {
  const Json& role = FieldOf(message, "role");
  constexpr std::pair<const char*, Role> kRoles[] = {{"system", Role::kSystem},
                                                     {"developer", Role::kSystem},
                                                     {"user", Role::kUser},
                                                     {"assistant", Role::kAssistant},
                                                     {"tool", Role::kTool}};
  for (const auto& [name, value] : kRoles)
    if (role == name) return value;
  return BadField(field, "expected system, developer, user, assistant or tool");
}

Result<std::string> ReadContent(const Json& message, const std::string& field) {
  const Json& content = FieldOf(message, "content");
  if (content.is_string()) return content.get<std::string>();
  if (content.is_null()) return std::string();
  if (!content.is_array()) return BadField(field, "expected a string, null or an array of parts");
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part_field = fmt::format("{}[{}]", field, i);
    const Json& part = content[i];
    if (!part.is_object() || !FieldOf(part, "type").is_string())
      return BadField(part_field, "expected an object with a type");
    const Json& type = FieldOf(part, "type");
    if (type != "text")
      return BadField(part_field + ".type",
                      fmt::format("parts of type {} are not supported", type.get<std::string>()),
                      ErrorCode::kUnsupported);
    if (!FieldOf(part, "text").is_string())
      return BadField(part_field + ".text", "expected a string");
    if (i > 0) text += "\n";
    text += FieldOf(part, "text").get<std::string>();
  }
  return text;
}

Result<std::vector<ToolCall>> ReadToolCalls(const Json& message, const std::string& field) {
  std::vector<ToolCall> calls;
  const Json& list = FieldOf(message, "tool_calls");
  if (list.is_null()) return calls;
  if (!list.is_array()) return BadField(field, "expected an array");
  for (size_t i = 0; i < list.size(); ++i) {
    std::string where = fmt::format("{}[{}]", field, i);
    if (!list[i].is_object()) return BadField(where, "expected an object");
    const bool nested = list[i].contains("function");  // the template takes {"name", ...} as well
    const Json& function = nested ? list[i]["function"] : list[i];
    if (nested) where += ".function";
    if (!function.is_object()) return BadField(where, "expected an object");
    if (!FieldOf(function, "name").is_string())
      return BadField(where + ".name", "expected a string");
    const Json& arguments = FieldOf(function, "arguments");
    if (!arguments.is_string() && !arguments.is_object())
      return BadField(where + ".arguments", "expected JSON text or an object");
    calls.push_back({FieldOf(function, "name").get<std::string>(),
                     arguments.is_string() ? arguments.get<std::string>() : PythonJson(arguments)});
  }
  return calls;
}

Result<Message> ReadMessage(const Json& json, const std::string& where) {
  if (!json.is_object()) return BadField(where, "expected an object");
  Message message;
  TRY_ASSIGN(message.role, ReadRole(json, where + ".role"));
  if (!json.contains("content") && message.role != Role::kAssistant)
    return BadField(where + ".content", "is missing");
  TRY_ASSIGN(message.content, ReadContent(json, where + ".content"));
  if (message.role != Role::kAssistant) return message;
  const Json& reasoning = FieldOf(json, "reasoning_content");
  if (reasoning.is_string())
    message.reasoning = reasoning.get<std::string>();
  else if (!reasoning.is_null())
    return BadField(where + ".reasoning_content", "expected a string");
  TRY_ASSIGN(message.tool_calls, ReadToolCalls(json, where + ".tool_calls"));
  return message;
}

Result<std::vector<Message>> ReadMessages(const Json& json) {
  if (!json.is_array() || json.empty()) return BadField("messages", "expected a non-empty array");
  std::vector<Message> messages;
  for (const Json& entry : json) {
    TRY_ASSIGN(Message message, ReadMessage(entry, fmt::format("messages[{}]", messages.size())));
    messages.push_back(std::move(message));
  }
  return messages;
}

Result<void> CheckTools(const Json& tools) {
  if (tools.is_null()) return {};
  if (!tools.is_array()) return BadField("tools", "expected an array");
  for (size_t i = 0; i < tools.size(); ++i)
    if (!tools[i].is_object()) return BadField(fmt::format("tools[{}]", i), "expected an object");
  return {};
}

// ---- Writing prompts

// Python's strip, lstrip and rstrip of "\n".
std::string_view StripLeft(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of('\n'), text.size()));
}
std::string_view StripRight(std::string_view text) {
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

// A prompt, which knows which of its bytes are the template's and which were given.
class Prompt {
 public:
  explicit Prompt(std::vector<TextRange>* given) : given_(given) {}

  Prompt& Fixed(std::string_view text) {
    text_ += text;
    return *this;
  }
  Prompt& Given(std::string_view text) {
    if (given_ && !text.empty()) given_->push_back({text_.size(), text_.size() + text.size()});
    return Fixed(text);
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
  std::vector<TextRange>* given_;
};

const char* RoleName(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
    case Role::kTool:
      return "tool";
  }
  return "?";
}

void WriteSystem(const std::vector<Message>& messages, const Json& tools, Prompt& prompt) {
  const bool has_system = messages[0].role == Role::kSystem;
  if (tools.empty()) {
    if (has_system)
      prompt.Fixed("<|im_start|>system\n").Given(messages[0].content).Fixed("<|im_end|>\n");
    return;
  }
  prompt.Fixed("<|im_start|>system\n");
  if (has_system) prompt.Given(messages[0].content).Fixed("\n\n");
  prompt.Fixed(
      "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
      "You are provided with function signatures within <tools></tools> XML tags:\n<tools>");
  for (const Json& tool : tools) prompt.Fixed("\n").Given(PythonJson(tool));
  prompt.Fixed(
      "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
      "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
      "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n");
}

// Index of the last message in which a user asks; the turns after it are steps of one answer.
size_t LastQuery(const std::vector<Message>& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string& content = messages[i].content;
    if (messages[i].role == Role::kUser &&
        !(content.starts_with("<tool_response>") && content.ends_with("</tool_response>")))
      return i;
  }
  return messages.size() - 1;
}

// What an assistant thought, and what it said: from reasoning_content, or else cut out of content.
std::pair<std::string_view, std::string_view> SplitReasoning(const Message& message) {
  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  const std::string_view content = message.content;
  if (message.reasoning) return {*message.reasoning, content};
  const size_t first_close = content.find(kClose);
  if (first_close == std::string_view::npos) return {{}, content};
  std::string_view reasoning = StripRight(content.substr(0, first_close));
  if (const size_t open = reasoning.rfind(kOpen); open != std::string_view::npos)
    reasoning.remove_prefix(open + kOpen.size());
  return {StripLeft(reasoning), StripLeft(content.substr(content.rfind(kClose) + kClose.size()))};
}

void WriteAssistant(const Message& message, bool thinks, bool after_query, bool last,
                    Prompt& prompt) {
  prompt.Fixed("<|im_start|>assistant\n");
  std::string_view reasoning, content = message.content;
  if (thinks) std::tie(reasoning, content) = SplitReasoning(message);
  if (thinks && after_query && (last || !reasoning.empty())) {
    prompt.Fixed("<think>\n").Given(StripLeft(StripRight(reasoning))).Fixed("\n</think>\n\n");
    prompt.Given(StripLeft(content));
  } else {
    prompt.Given(content);
  }
  bool line_open = !content.empty();
  for (const ToolCall& call : message.tool_calls) {
    if (std::exchange(line_open, true)) prompt.Fixed("\n");
    prompt.Fixed("<tool_call>\n{\"name\": \"").Given(call.name).Fixed("\", \"arguments\": ");
    prompt.Given(call.arguments).Fixed("}\n</tool_call>");
  }
  prompt.Fixed("<|im_end|>\n");
}

void WriteQwen3(const std::vector<Message>& messages, const Json& tools, bool thinks,
                Prompt& prompt) {
  WriteSystem(messages, tools, prompt);
  const size_t last_query = LastQuery(messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const bool last = i + 1 == messages.size();
    switch (message.role) {
      case Role::kSystem:
        if (i == 0) break;  // written already
        [[fallthrough]];
      case Role::kUser:
        prompt.Fixed("<|im_start|>").Fixed(RoleName(message.role)).Fixed("\n");
        prompt.Given(message.content).Fixed("<|im_end|>\n");
        break;
      case Role::kAssistant:
        WriteAssistant(message, thinks, i > last_query, last, prompt);
        break;
      case Role::kTool:  // consecutive results share one user turn
        if (i == 0 || messages[i - 1].role != Role::kTool) prompt.Fixed("<|im_start|>user");
        prompt.Fixed("\n<tool_response>\n").Given(message.content).Fixed("\n</tool_response>");
        if (last || messages[i + 1].role != Role::kTool) prompt.Fixed("<|im_end|>\n");
        break;
    }
  }
}

Result<void> WriteChatMl(const std::vector<Message>& messages, const Json& tools, Prompt& prompt) {
  const auto no_tools = [](const std::string& field) {
    return BadField(field, "the chat format chatml has no tools", ErrorCode::kUnsupported);
  };
  if (!tools.empty()) return no_tools("tools");
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const std::string where = fmt::format("messages[{}]", i);
    if (message.role == Role::kTool) return no_tools(where + ".role");
    if (!message.tool_calls.empty()) return no_tools(where + ".tool_calls");
    prompt.Fixed("<|im_start|>").Fixed(RoleName(message.role)).Fixed("\n");
    prompt.Given(message.content).Fixed("<|im_end|>\n");
  }
  return {};
}

Result<void> CheckThinking(ChatFormat format, std::optional<bool> enable) {
  if (!enable || format == ChatFormat::kQwen3 || *enable == StartsInReasoning(format)) return {};
  return BadField("chat_template_kwargs.enable_thinking",
                  fmt::format("the chat format {} {}", ChatFormatName(format),
                              *enable ? "does not think" : "always thinks"),
                  ErrorCode::kUnsupported);
}

}  // namespace

const char* ChatFormatName(ChatFormat format) {
  for (const auto& [value, name] : kFormatNames)
    if (value == format) return name;
  return "?";
}

Result<ChatFormat> ChatFormatFromName(std::string_view name) {
  for (const auto& [format, known] : kFormatNames)
    if (name == known) return format;
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("\"{}\" is not a chat format; there are {}", name, AllFormatNames()),
              "--chat-format");
}

Result<ChatFormat> DetectChatFormat(std::string_view chat_template) {
  constexpr std::string_view kOurs = "{#- millpower: ", kOursEnd = " chat format -#}";
  if (chat_template.starts_with(kOurs)) {
    const std::string_view line = chat_template.substr(0, chat_template.find('\n'));
    if (line.ends_with(kOursEnd) && line.size() > kOurs.size() + kOursEnd.size())
      return ChatFormatFromName(
          line.substr(kOurs.size(), line.size() - kOurs.size() - kOursEnd.size()));
  }
  if (const auto format = DetectQwen3(chat_template)) return *format;
  if (IsChatMl(chat_template)) return ChatFormat::kChatMl;
  return Fail(
      ErrorCode::kUnsupported,
      "the chat_template of the model folder (in tokenizer_config.json or "
      "chat_template.jinja) is none that we know; if the model does speak one of our formats, "
      "--chat-format " +
          AllFormatNames() + " chooses it",
      "chat_template");
}

bool StartsInReasoning(ChatFormat format) { return format == ChatFormat::kQwen3Thinking2507; }

Result<std::string> RenderChat(ChatFormat format, const Json& messages, const Json& tools,
                               const ChatOptions& options, std::vector<TextRange>* untrusted) {
  TRY_ASSIGN(const std::vector<Message> turns, ReadMessages(messages));
  TRY(CheckTools(tools));
  TRY(CheckThinking(format, options.enable_thinking));
  Prompt prompt(untrusted);
  if (format == ChatFormat::kChatMl) {
    TRY(WriteChatMl(turns, tools, prompt));
  } else {
    WriteQwen3(turns, tools, format != ChatFormat::kQwen3Instruct2507, prompt);
  }
  if (options.add_generation_prompt) {
    prompt.Fixed("<|im_start|>assistant\n");
    if (StartsInReasoning(format))
      prompt.Fixed("<think>\n");
    else if (format == ChatFormat::kQwen3 && options.enable_thinking == false)
      prompt.Fixed("<think>\n\n</think>\n\n");
  }
  return prompt.Take();
}

}  // namespace millpower::text
