#include "text/output_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace millpower::text {
namespace {

constexpr std::string_view kThinkOpen = "<think>";
constexpr std::string_view kThinkClose = "</think>";
constexpr std::string_view kCallOpen = "<tool_call>";
constexpr std::string_view kCallClose = "</tool_call>";
constexpr std::string_view kWhiteSpace = " \t\r\n";

// A head longer than this is not waited for: no function has such a name.
constexpr size_t kMaxHeadBytes = 1024;

// Length of the longest end of `text` with which `tag` begins.
size_t PartialTag(std::string_view text, std::string_view tag) {
  size_t size = std::min(text.size(), tag.size() - 1);
  while (!text.ends_with(tag.substr(0, size))) --size;
  return size;
}

// Reads  {"name": "...", "arguments": {  up to the last bracket.
class HeadReader {
 public:
  enum Outcome { kMatch, kMismatch, kNeedMore };
  explicit HeadReader(std::string_view text) : text_(text) {}

  Outcome Read() {
    Literal("{") && Literal("\"name\"") && Literal(":") && Name() && Literal(",") &&
        Literal("\"arguments\"") && Literal(":") && Literal("{");
    return outcome_;
  }
  const std::string& name() const { return name_; }
  size_t arguments_begin() const { return at_ - 1; }

 private:
  void SkipWhiteSpace() { at_ = std::min(text_.find_first_not_of(kWhiteSpace, at_), text_.size()); }

  bool Literal(std::string_view literal) {
    SkipWhiteSpace();
    const std::string_view found = text_.substr(at_, literal.size());
    at_ += found.size();
    if (found == literal) return true;
    outcome_ = literal.starts_with(found) ? kNeedMore : kMismatch;
    return false;
  }

  bool Name() {
    SkipWhiteSpace();
    if (at_ < text_.size() && text_[at_] != '"') return outcome_ = kMismatch, false;
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != '"') end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) return outcome_ = kNeedMore, false;
    const auto name = ParseJson(text_.substr(at_, end + 1 - at_));
    if (!name) return outcome_ = kMismatch, false;
    name_ = name->get<std::string>();
    at_ = end + 1;
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string name_;
  Outcome outcome_ = kMatch;
};

struct WholeCall {
  std::string name;
  std::string arguments;
};

// A complete call with its keys in any order.
std::optional<WholeCall> ReadWholeCall(std::string_view json) {
  const auto call = ParseJson(json);
  if (!call || !call->is_object()) return std::nullopt;
  const auto name = call->find("name"), arguments = call->find("arguments");
  if (name == call->end() || !name->is_string()) return std::nullopt;
  if (arguments == call->end() || !arguments->is_object()) return std::nullopt;
  return WholeCall{name->get<std::string>(), arguments->dump()};
}

}  // namespace

OutputParser::OutputParser(ChatFormat format, bool starts_in_reasoning, bool tools_enabled)
    : tools_enabled_(tools_enabled && format != ChatFormat::kChatMl),
      after_tag_(starts_in_reasoning) {
  const bool thinks = format == ChatFormat::kQwen3 || format == ChatFormat::kQwen3Thinking2507;
  state_ = starts_in_reasoning ? State::kReasoning : thinks ? State::kStart : State::kContent;
}

std::vector<OutputEvent> OutputParser::Push(std::string_view text) {
  buffer_ += text;
  while (Step()) {
  }
  return std::exchange(events_, {});
}

std::vector<OutputEvent> OutputParser::Finish() {
  std::string rest = std::exchange(buffer_, {});
  if (state_ == State::kCallTail) rest.erase(0, rest.find_first_not_of(" \t\r\n}"));
  switch (state_) {
    case State::kReasoning:
      EmitText(OutputEvent::kReasoning, rest);
      pending_newlines_ = 0;
      break;
    case State::kCallHead:
    case State::kCallWhole:
      EmitText(OutputEvent::kContent, kCallOpen);
      [[fallthrough]];
    case State::kStart:
    case State::kContent:
    case State::kCallTail:
      EmitText(OutputEvent::kContent, rest);
      if (!after_tag_)
        Emit(OutputEvent::kContent, std::string(std::exchange(pending_newlines_, 0), '\n'));
      break;
    case State::kArguments:
    case State::kBrokenArguments:
      Emit(OutputEvent::kToolCallArguments, rest);
      break;
  }
  state_ = State::kContent;
  return std::exchange(events_, {});
}

bool OutputParser::Step() {
  switch (state_) {
    case State::kStart:
      return StepStart();
    case State::kReasoning:
      return StepUntil(kThinkClose, OutputEvent::kReasoning, State::kContent);
    case State::kContent:
      if (tools_enabled_) return StepUntil(kCallOpen, OutputEvent::kContent, State::kCallHead);
      EmitText(OutputEvent::kContent, std::exchange(buffer_, {}));
      return false;
    case State::kCallHead:
      return StepCallHead();
    case State::kCallWhole:
      return StepCallWhole();
    case State::kArguments:
      return StepArguments();
    case State::kBrokenArguments:
      return StepBrokenArguments();
    case State::kCallTail:
      return StepCallTail();
  }
  return false;
}

bool OutputParser::StepStart() {
  const size_t begin = std::min(buffer_.find_first_not_of(kWhiteSpace), buffer_.size());
  const std::string_view rest = std::string_view(buffer_).substr(begin, kThinkOpen.size());
  if (rest == kThinkOpen) {
    buffer_.erase(0, begin + rest.size());
    after_tag_ = true;
    state_ = State::kReasoning;
    return true;
  }
  if (kThinkOpen.starts_with(rest)) return false;
  state_ = State::kContent;
  return true;
}

// Emits text up to `tag`, and without it all that cannot be the tag's beginning.
bool OutputParser::StepUntil(std::string_view tag, OutputEvent::Kind kind, State next) {
  const size_t at = buffer_.find(tag);
  const bool found = at != std::string::npos;
  const size_t end = found ? at : buffer_.size() - PartialTag(buffer_, tag);
  EmitText(kind, std::string_view(buffer_).substr(0, end));
  buffer_.erase(0, found ? end + tag.size() : end);
  if (!found) return false;
  if (next == State::kContent) {
    pending_newlines_ = 0;
    after_tag_ = true;
  }  // a call may yet turn out to be content: the line breaks before it stay pending
  state_ = next;
  return true;
}

bool OutputParser::StepCallHead() {
  HeadReader head(std::string_view(buffer_).substr(0, kMaxHeadBytes));
  switch (head.Read()) {
    case HeadReader::kNeedMore:
      if (buffer_.size() < kMaxHeadBytes) return false;
      [[fallthrough]];
    case HeadReader::kMismatch:
      state_ = State::kCallWhole;
      searched_ = 0;
      return true;
    case HeadReader::kMatch:
      BeginCall(head.name());
      buffer_.erase(0, head.arguments_begin());
      arguments_.clear();
      depth_ = 0;
      in_string_ = escaped_ = false;
      state_ = State::kArguments;
      return true;
  }
  return false;
}

bool OutputParser::StepCallWhole() {
  const size_t end = buffer_.find(kCallClose, searched_);
  if (end == std::string::npos) {
    searched_ = buffer_.size() - PartialTag(buffer_, kCallClose);
    return false;
  }
  if (const auto call = ReadWholeCall(std::string_view(buffer_).substr(0, end))) {
    BeginCall(call->name);
    Emit(OutputEvent::kToolCallArguments, call->arguments);
    Emit(OutputEvent::kToolCallEnd, {});
  } else {
    EmitText(OutputEvent::kContent, kCallOpen);
    EmitText(OutputEvent::kContent, std::string_view(buffer_).substr(0, end + kCallClose.size()));
  }
  buffer_.erase(0, end + kCallClose.size());
  state_ = State::kContent;
  return true;
}

// Follows brackets outside of strings to the end of the object; tags inside strings are text. Two
// faults must not carry us past the closing tag: '<' outside of a string, and a string that is not
// closed, which a line break in it gives away.
bool OutputParser::StepArguments() {
  size_t size = 0;
  bool ended = false;
  while (size < buffer_.size() && !ended) {
    const char c = buffer_[size];
    if (in_string_ ? c == '\n' : c == '<') {
      Emit(OutputEvent::kToolCallArguments, std::string_view(buffer_).substr(0, size));
      buffer_.erase(0, size);
      state_ = State::kBrokenArguments;
      return true;
    }
    ++size;
    if (in_string_) {
      if (escaped_)
        escaped_ = false;
      else if (c == '\\')
        escaped_ = true;
      else if (c == '"')
        in_string_ = false;
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      ended = --depth_ == 0;
    }
  }
  arguments_.append(buffer_, 0, size);
  Emit(OutputEvent::kToolCallArguments, std::string_view(buffer_).substr(0, size));
  buffer_.erase(0, size);
  if (!ended) return false;
  if (ParseJson(arguments_)) Emit(OutputEvent::kToolCallEnd, {});
  state_ = State::kCallTail;
  return true;
}

bool OutputParser::StepBrokenArguments() {
  const size_t at = buffer_.find(kCallClose);
  const bool found = at != std::string::npos;
  const size_t end = found ? at : buffer_.size() - PartialTag(buffer_, kCallClose);
  Emit(OutputEvent::kToolCallArguments, std::string_view(buffer_).substr(0, end));
  buffer_.erase(0, found ? end + kCallClose.size() : end);
  if (found) state_ = State::kContent;
  return found;
}

// The envelope's bracket (models forget it) and the closing tag. Anything else is content.
bool OutputParser::StepCallTail() {
  const auto skip = [&](size_t at) {
    return std::min(buffer_.find_first_not_of(kWhiteSpace, at), buffer_.size());
  };
  size_t at = skip(0);
  if (at < buffer_.size() && buffer_[at] == '}') at = skip(at + 1);
  const std::string_view rest = std::string_view(buffer_).substr(at, kCallClose.size());
  if (rest != kCallClose && kCallClose.starts_with(rest)) return false;
  buffer_.erase(0, rest == kCallClose ? at + rest.size() : at);
  state_ = State::kContent;
  return true;
}

void OutputParser::BeginCall(std::string_view name) {
  pending_newlines_ = 0;
  after_tag_ = true;
  ++call_count_;
  Emit(OutputEvent::kToolCallBegin, name);
}

void OutputParser::EmitText(OutputEvent::Kind kind, std::string_view text) {
  if (after_tag_) text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
  if (text.empty()) return;
  after_tag_ = false;
  const size_t end = text.find_last_not_of('\n') + 1;
  if (end > 0) {
    Emit(kind, std::string(std::exchange(pending_newlines_, 0), '\n'));
    Emit(kind, text.substr(0, end));
  }
  pending_newlines_ += text.size() - end;
}

void OutputParser::Emit(OutputEvent::Kind kind, std::string_view text) {
  const bool is_text = kind == OutputEvent::kReasoning || kind == OutputEvent::kContent ||
                       kind == OutputEvent::kToolCallArguments;
  if (is_text && text.empty()) return;
  if (is_text && !events_.empty() && events_.back().kind == kind) {
    events_.back().text += text;
    return;
  }
  const bool of_call = kind != OutputEvent::kReasoning && kind != OutputEvent::kContent;
  events_.push_back({kind, of_call ? call_count_ - 1 : 0, std::string(text)});
}

}  // namespace millpower::text
