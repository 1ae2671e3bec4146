#include "text/stop_strings.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace millpower::text {
namespace {

struct Outcome {
  std::string text;
  bool stopped = false;
  bool operator==(const Outcome&) const = default;
};

Outcome Match(const std::vector<std::string>& stops, const std::vector<std::string_view>& pieces) {
  StopMatcher matcher(stops);
  Outcome outcome;
  for (const std::string_view piece : pieces) {
    const auto [text, stopped] = matcher.Push(piece);
    outcome.text += text;
    outcome.stopped = stopped;
  }
  if (!outcome.stopped) outcome.text += matcher.Flush();
  return outcome;
}

// The definition: the first end of a stop string in the text, the longest there.
Outcome Reference(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops)
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, EndsBeforeTheStop) {
  EXPECT_EQ(Match({"stop"}, {"go on, stop here"}), (Outcome{"go on, ", true}));
  EXPECT_EQ(Match({"x", "abc"}, {"aabc"}), (Outcome{"a", true}));
  EXPECT_EQ(Match({}, {"all of it"}), (Outcome{"all of it", false}));
  EXPECT_EQ(Match({""}, {"all of it"}), (Outcome{"all of it", false}));
  // The one that is complete first counts; of two that end together, the longer.
  EXPECT_EQ(Match({"abcde", "bc"}, {"xabcde"}), (Outcome{"xa", true}));
  EXPECT_EQ(Match({"bc", "abc"}, {"xabcde"}), (Outcome{"x", true}));
}

TEST(StopMatcher, HoldsBackOnlyWhatMayStop) {
  StopMatcher matcher({"\n\nUser:", "\u4e2d\u6587"});
  EXPECT_EQ(matcher.Push("hello\n").text, "hello");
  EXPECT_EQ(matcher.Push("\n").text, "");
  EXPECT_EQ(matcher.Push("\n").text, "\n");  // two of the three may still begin the stop
  EXPECT_EQ(matcher.Push("Us").text, "");
  EXPECT_EQ(matcher.Push("e!").text, "\n\nUse!");
  EXPECT_EQ(matcher.Push("\u4e2d").text, "");
  EXPECT_EQ(matcher.Push("\u4e2d").text, "\u4e2d");
  const auto last = matcher.Push("\u6587, and more");
  EXPECT_EQ(last.text, "");
  EXPECT_TRUE(last.stopped);
  EXPECT_EQ(matcher.Push("ignored").text, "");
  EXPECT_TRUE(matcher.Push("ignored").stopped);
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, EverySplitGivesTheSame) {
  Rng rng(9);
  const auto random_text = [&](uint64_t size) {
    std::string text;
    for (uint64_t i = 0; i < size; ++i) text.push_back(static_cast<char>('a' + rng.Below(2)));
    return text;
  };
  int stopped_count = 0;
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops;
    for (uint64_t i = rng.Below(4); i > 0; --i) stops.push_back(random_text(1 + rng.Below(7)));
    const std::string text = random_text(rng.Below(14));
    const Outcome whole = Reference(stops, text);
    stopped_count += whole.stopped;
    const std::string_view view = text;
    for (size_t i = 0; i <= text.size(); ++i)
      for (size_t j = i; j <= text.size(); ++j)
        ASSERT_EQ(Match(stops, {view.substr(0, i), view.substr(i, j - i), view.substr(j)}), whole)
            << text << " at " << i << ", " << j;
  }
  EXPECT_GT(stopped_count, 500);
  EXPECT_LT(stopped_count, 1900);
}

}  // namespace
}  // namespace millpower::text
