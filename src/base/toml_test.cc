#include "base/toml.h"

#include <gtest/gtest.h>

namespace millpower {
namespace {

std::string MessageOf(std::string_view text) {
  const auto table = ParseToml(text, "f.toml");
  return table ? "" : table.error().message;
}

TEST(Toml, ReadsStringsAndCommentsInAnyLanguage) {
  const auto table = ParseToml(
      "\xef\xbb\xbf# Grüße\n"
      "a = \"\\\"ж\" # д\n"
      "b = '\\'\n"
      "c = \"\"\"two \"\" and ж\nand \\\"\"\"\"\"\n"
      "d = '''ж''''\n"
      "\"ж\" = 1\n",
      "f.toml");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ((*table)["a"].value<std::string>(), "\"ж");
  EXPECT_EQ((*table)["b"].value<std::string>(), "\\");
  EXPECT_EQ((*table)["c"].value<std::string>(), "two \"\" and ж\nand \"\"");
  EXPECT_EQ((*table)["d"].value<std::string>(), "ж'");
  EXPECT_EQ((*table)["ж"].value<int64_t>(), 1);
}

TEST(Toml, NamesTheLine) {
  EXPECT_TRUE(MessageOf("a = 1\nb = = 2\n").starts_with("f.toml:2: ")) << MessageOf("a = = 2");
  EXPECT_TRUE(MessageOf("a = 1\n\n[#b]\n").starts_with("f.toml:3: ")) << MessageOf("[#b]");
}

TEST(Toml, RefusesLettersWhereNoneCanBe) {
  for (const char* text : {"a = 70С-3\n", "ж = 1\n", "a = '''x'''''ж\n", "a = \"\"\"x\"\"\"\"\" ж",
                           "a = \"x\n ж", "a = 1 ж # ж", "a = \"\\ж\"", "a = \"\"\"x\\\n  ж\"\"\""})
    EXPECT_NE(MessageOf(text).find("beyond ASCII"), std::string::npos) << text;
  EXPECT_EQ(MessageOf("a = 1\nж = 1\n"),
            "f.toml:2: a letter beyond ASCII stands outside of a string, or after a backslash");
}

TEST(Toml, BearsWhatIsCutOff) {
  const std::string text = "a = \"\\\"ж\"\nb = '''ж'''\nc = \"\"\"\\\nж\"\"\"\n[ж";
  for (size_t size = 0; size <= text.size(); ++size)
    (void)ParseToml(std::string_view(text).substr(0, size), "f.toml");
}

}  // namespace
}  // namespace millpower
