#include "text/word_splitter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

#include "base/rng.h"

namespace millpower::text {
namespace {

using testing::ElementsAre;

std::vector<std::string> Words(std::string_view pattern, std::string_view text) {
  const auto splitter = WordSplitter::Compile(pattern);
  EXPECT_TRUE(splitter) << splitter.error().message;
  WordCursor cursor(*splitter, text);
  std::vector<std::string> words;
  while (true) {
    const auto word = cursor.Next();
    EXPECT_TRUE(word) << word.error().message;
    if (!word || word->empty()) return words;
    words.emplace_back(*word);
  }
}

TEST(WordSplitter, CutsAsQwen) {
  EXPECT_THAT(Words(kQwenPattern, "Hello, world's 12  end"),
              ElementsAre("Hello", ",", " world", "'s", " ", "1", "2", " ", " end"));
  EXPECT_THAT(Words(kQwenPattern, "a\r\n\n  b \n\n c!\n\nd"),
              ElementsAre("a", "\r\n\n", " ", " b", " \n\n", " c", "!\n\n", "d"));
  EXPECT_THAT(Words(kQwenPattern, "tail   "), ElementsAre("tail", "   "));
  EXPECT_THAT(Words(kQwenPattern, "I'LL'x'\u017fo"), ElementsAre("I", "'LL", "'x", "'\u017f", "o"));
  EXPECT_THAT(Words(kQwenPattern, "\u4e2d\u6587\u3002\u3000\u6587"),
              ElementsAre("\u4e2d\u6587", "\u3002", "\u3000\u6587"));
}

// The scanner against PCRE2 running the very expression (with a no-op in front, so that it is not
// recognised), over characters on which their Unicode versions agree.
TEST(WordSplitter, ScannerIsTheExpression) {
  const std::string same = "(?:)" + std::string(kQwenPattern);
  const char* alphabet[] = {"a",          "Z",      "s",  "T",  "l",      "L",      "'",
                            "1",          "\u00bd", " ",  "  ", "\n",     "\r",     "\t",
                            "\u00a0",     "\u3000", ".",  "_",  "\u0301", "\u4e2d", "\u00e9",
                            "\U0001f600", "\u017f", "re", "ve", "d"};
  Rng rng(11);
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (uint64_t left = rng.Below(12); left > 0; --left)
      text += alphabet[rng.Below(std::size(alphabet))];
    ASSERT_EQ(Words(kQwenPattern, text), Words(same, text)) << text;
  }
}

TEST(WordSplitter, GapsAndEmptyMatchesAreWords) {
  EXPECT_THAT(Words("b+", "aabbac"), ElementsAre("aa", "bb", "ac"));
  EXPECT_THAT(Words("b*", "aabba"), ElementsAre("a", "a", "bb", "a"));
  EXPECT_THAT(Words("x", "\u4e2d\u6587"), ElementsAre("\u4e2d\u6587"));
  EXPECT_THAT(Words("", "ab"), ElementsAre("a", "b"));
}

TEST(WordSplitter, SaysWhyAnExpressionIsRefused) {
  const auto splitter = WordSplitter::Compile("a(b");
  ASSERT_FALSE(splitter);
  EXPECT_EQ(splitter.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(splitter.error().message.find("missing closing parenthesis"), std::string::npos);
}

// Exponential backtracking ends as an error, also where each place backtracks only just enough.
TEST(WordSplitter, BoundsBacktracking) {
  for (const char* pattern : {"(a+)+[bc]", "(?:a|aa)+[bc]", "(?:a|a)+(?!a)[bc]"}) {
    const auto splitter = WordSplitter::Compile(pattern);
    ASSERT_TRUE(splitter) << pattern;
    for (const size_t size : {18u, 60u, 20'000u}) {
      const std::string text(size, 'a');
      const std::clock_t start = std::clock();
      WordCursor cursor(*splitter, text);
      auto word = cursor.Next();
      while (word && !word->empty()) word = cursor.Next();
      EXPECT_LT((std::clock() - start) / CLOCKS_PER_SEC, 10) << pattern;
      if (size == 60) {
        ASSERT_FALSE(word) << pattern;
        EXPECT_EQ(word.error().code, ErrorCode::kUnsupported);
      }
    }
  }
}

}  // namespace
}  // namespace millpower::text
