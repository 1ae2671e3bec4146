#include "text/unicode.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace millpower::text {
namespace {

std::string Lossy(std::string_view bytes) {
  std::string text;
  AppendLossy(bytes, text);
  return text;
}

// The examples of Unicode 15.0, section 3.9, tables 3-8 to 3-11.
TEST(Utf8, ReplacesMaximalIllFormedParts) {
  EXPECT_EQ(Lossy("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\x41");
  EXPECT_EQ(Lossy("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\x41");
  EXPECT_EQ(Lossy("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\x41\ufffd\ufffd\x42");
  EXPECT_EQ(Lossy("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), "\ufffd\ufffd\ufffd\ufffd\x41");
  EXPECT_EQ(Lossy("\xe4\xb8"), "\ufffd");
}

TEST(Utf8, EveryCodePointGoesThereAndBack) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string bytes;
    AppendUtf8(c, bytes);
    ASSERT_EQ(ValidUtf8Prefix(bytes), bytes.size());
    for (size_t size = 1; size < bytes.size(); ++size)
      ASSERT_EQ(FirstUtf8Unit(std::string_view(bytes).substr(0, size)).kind, Utf8Unit::kIncomplete);
    size_t position = 0;
    ASSERT_TRUE(NextCodePoint(bytes, position) == c);
    ASSERT_EQ(position, bytes.size());
  }
}

TEST(Utf8, PrefixEndsAtTheFault) {
  const std::string ascii(20, 'a');
  EXPECT_EQ(ValidUtf8Prefix(ascii + "\x80" + ascii), 20u);
  EXPECT_EQ(ValidUtf8Prefix(ascii + "\u4e2d\xe4\xb8"), 23u);
}

// As counted with the expressions \p{L}, \p{N} and \s of `tokenizers` 0.23.3.
TEST(CharProperties, AreThoseOfTheLibrary) {
  const auto count = [](uint8_t bit) {
    return std::ranges::count_if(CharProperties(), [bit](uint8_t kind) { return kind & bit; });
  };
  EXPECT_EQ(count(kLetter), 141028);
  EXPECT_EQ(count(kNumber), 1911);
  EXPECT_EQ(count(kSpace), 25);
  EXPECT_EQ(count(kNewline), 2);
}

TEST(Nfc, ComposesAndOrders) {
  EXPECT_EQ(ToNfc("cafe\u0301"), "caf\u00e9");
  EXPECT_EQ(ToNfc("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(ToNfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(ToNfc("\u212b"), "\u00c5");
  // U+0898 has combined only since Unicode 14, U+11938 only since 13.
  EXPECT_EQ(ToNfc("q\u0898\u0323"), "q\u0898\u0323");
  EXPECT_EQ(ToNfc("\U00011935\U00011930"), "\U00011935\U00011930");
}

TEST(Nfc, PlainTextIsKnownAtSight) {
  for (const char* plain : {"", "plain ASCII", "caf\u00e9", "\u4e2d\u6587\u3002", "\u0645\u0631"})
    EXPECT_TRUE(IsPlainlyNfc(plain)) << plain;
  for (const char* other : {"cafe\u0301", "\u212b", "\u1161", "q\u0323"})
    EXPECT_FALSE(IsPlainlyNfc(other)) << other;
}

}  // namespace
}  // namespace millpower::text
