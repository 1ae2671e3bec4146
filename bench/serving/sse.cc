#include "bench/serving/sse.h"

namespace millpower::bench {

Result<std::vector<std::string>> SseParser::Push(std::string_view bytes) {
  std::vector<std::string> events;
  for (const char c : bytes) {
    const bool second_of_crlf = after_cr_ && c == '\n';
    after_cr_ = c == '\r';
    if (second_of_crlf) continue;
    if (c == '\n' || c == '\r') {
      EndLine(events);
      continue;
    }
    line_ += c;
    if (line_.size() + data_.size() > kMaxEventBytes)
      return Fail(ErrorCode::kOutOfRange, "an event of the stream is longer than " +
                                              std::to_string(kMaxEventBytes) + " bytes");
  }
  return events;
}

void SseParser::EndLine(std::vector<std::string>& events) {
  if (line_.empty()) {
    if (!data_.empty()) {
      data_.pop_back();  // the last line's "\n"
      events.push_back(std::move(data_));
      data_.clear();
    }
    return;
  }
  const std::string_view line = line_;
  const size_t colon = line.find(':');
  if (line.substr(0, colon) == "data") {
    std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    data_ += value;
    data_ += '\n';
  }
  line_.clear();
}

}  // namespace millpower::bench
