#include "text/stop_strings.h"

#include <algorithm>
#include <utility>

namespace millpower::text {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& string : stops) {
    if (string.empty()) continue;
    Stop stop{string, std::vector<size_t>(string.size() + 1, 0), 0};
    for (size_t i = 1, border = 0; i < string.size(); ++i) {
      while (border > 0 && string[i] != string[border]) border = stop.fallback[border];
      if (string[i] == string[border]) ++border;
      stop.fallback[i + 1] = border;
    }
    stops_.push_back(std::move(stop));
  }
}

void StopMatcher::Stop::Advance(char c) {
  while (matched > 0 && string[matched] != c) matched = fallback[matched];
  if (string[matched] == c) ++matched;
}

StopMatcher::Output StopMatcher::Push(std::string_view piece) {
  if (stopped_) return {{}, true};
  for (const char c : piece) {
    held_.push_back(c);
    size_t stop_size = 0;
    for (Stop& stop : stops_) {
      stop.Advance(c);
      if (stop.matched == stop.string.size()) stop_size = std::max(stop_size, stop.matched);
    }
    if (stop_size == 0) continue;
    stopped_ = true;
    held_.resize(held_.size() - stop_size);
    return {std::exchange(held_, {}), true};
  }
  size_t undecided = 0;
  for (const Stop& stop : stops_) undecided = std::max(undecided, stop.matched);
  std::string safe = held_.substr(0, held_.size() - undecided);
  held_.erase(0, safe.size());
  return {std::move(safe), false};
}

std::string StopMatcher::Flush() {
  for (Stop& stop : stops_) stop.matched = 0;
  return std::exchange(held_, {});
}

}  // namespace millpower::text
