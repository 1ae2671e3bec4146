#include "serve/batch/batch_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millpower::serve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::string_view kChat = "/v1/chat/completions";

std::string Line(std::string_view custom_id, std::string_view body = R"({"model":"m"})") {
  return R"({"custom_id":")" + std::string(custom_id) +
         R"(","method":"POST","url":"/v1/chat/completions","body":)" + std::string(body) + "}\n";
}

std::vector<BatchError> Check(std::string_view file) {
  return CheckInput(file, kChat, [](const std::string& model) -> Result<void> {
    if (model == "m") return {};
    return Fail(ErrorCode::kNotFound, "no model " + model);
  });
}

// Of a file of this one line.
std::string CodeOf(std::string_view line) {
  const auto errors = Check(line);
  EXPECT_EQ(errors.size(), 1u) << line;
  return errors.empty() ? "" : errors[0].code;
}

TEST(BatchInputTest, SplitsLinesAndLeavesBlankOnesOut) {
  const auto lines = SplitLines("a\r\n\n \t\r\nb\n\nc");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].text, "a\r");
  EXPECT_EQ(lines[1].text, "b");
  EXPECT_EQ(lines[2].text, "c");
  EXPECT_THAT((std::vector{lines[0].number, lines[1].number, lines[2].number}),
              ElementsAre(1, 4, 6));
  EXPECT_THAT(SplitLines(""), IsEmpty());
  EXPECT_THAT(SplitLines("\n\n"), IsEmpty());
}

TEST(BatchInputTest, ReadsALine) {
  const std::string text = Line("a", R"({"model":"m","z":1,"a":[2],"stream":false})");
  const auto request = ReadLine({7, text}, kChat);
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->custom_id, "a");
  EXPECT_EQ(request->model, "m");
  EXPECT_EQ(request->body, R"({"model":"m","z":1,"a":[2],"stream":false})");
}

TEST(BatchInputTest, NamesWhatIsWrongWithALine) {
  EXPECT_EQ(CodeOf("{"), "invalid_json_line");
  EXPECT_EQ(CodeOf("[1]"), "invalid_json_line");
  EXPECT_EQ(CodeOf("{}"), "invalid_custom_id");
  EXPECT_EQ(CodeOf(Line("")), "invalid_custom_id");
  EXPECT_EQ(CodeOf(Line(std::string(kCustomIdBytesMax + 1, 'x'))), "invalid_custom_id");
  EXPECT_EQ(CodeOf(R"({"custom_id":1})"), "invalid_custom_id");
  EXPECT_EQ(CodeOf(R"({"custom_id":"a","method":"GET"})"), "invalid_method");
  EXPECT_EQ(CodeOf(R"({"custom_id":"a","method":"POST","url":"/v1/completions","body":{}})"),
            "mismatched_url");
  EXPECT_EQ(CodeOf(R"({"custom_id":"a","method":"POST","url":"/v1/chat/completions"})"),
            "invalid_body");
  EXPECT_EQ(CodeOf(Line("a", "[]")), "invalid_body");
  EXPECT_EQ(CodeOf(Line("a", "{}")), "missing_model");
  EXPECT_EQ(CodeOf(Line("a", R"({"model":"m","stream":true})")), "stream_not_supported");
  EXPECT_EQ(CodeOf(Line("a", R"({"model":"m","stream":0})")), "stream_not_supported");
  EXPECT_EQ(CodeOf(Line("a", R"({"model":"x"})")), "model_not_found");
  EXPECT_EQ(CodeOf("\n\n"), "empty_file");
}

TEST(BatchInputTest, ChecksAllLinesAndNumbersThem) {
  EXPECT_THAT(Check(Line("a") + Line("b") + "\n" + Line("c")), IsEmpty());
  const auto errors = Check(Line("a") + "x\n\n" + Line("b") + Line("a"));
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_EQ(errors[0].line, 2);
  EXPECT_EQ(errors[1].code, "duplicate_custom_id");
  EXPECT_EQ(errors[1].line, 5);
  EXPECT_THAT(errors[1].message, HasSubstr("line 1"));
}

// What a failed batch keeps of its input stands outside of what a tenant may keep.
TEST(BatchInputTest, KeepsFaultsShort) {
  const std::string much(1 << 20, 'x');
  for (const std::string& line : {Line("a", R"({"model":")" + much + "\"}"),
                                  Line("a", "{\"model\":\"" + much), Line(much, R"({"model":"m"})"),
                                  Line("a", R"({"model":")" + std::string(500, 'x') + "\"}")}) {
    const auto errors = Check(line);
    ASSERT_EQ(errors.size(), 1u);
    EXPECT_LE(errors[0].message.size(), kErrorBytesMax);
    EXPECT_LE(errors[0].code.size() + errors[0].param.size(), 100u);
  }
}

TEST(BatchInputTest, ShortensBetweenCharacters) {
  EXPECT_EQ(Shortened("abc", 3), "abc");
  EXPECT_EQ(Shortened("abc", 2), "ab");
  EXPECT_EQ(Shortened("a\u20acb", 3), "a");
  EXPECT_EQ(Shortened("a\u20acb", 4), "a\u20ac");
  EXPECT_EQ(Shortened("\U0001f6a2\U0001f6a2", 7), "\U0001f6a2");
  EXPECT_EQ(Shortened("", 0), "");
}

TEST(BatchInputTest, HoldsItsLimits) {
  std::string file;
  for (size_t i = 0; i < kBatchLinesMax; ++i) file += Line(std::to_string(i));
  EXPECT_THAT(Check(file), IsEmpty());
  const auto errors = Check(file + Line("one"));
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].code, "too_many_lines");
  std::string bad;
  for (int i = 0; i < 1000; ++i) bad += "x\n";
  EXPECT_EQ(Check(bad).size(), kBatchErrorsMax);
}

}  // namespace
}  // namespace millpower::serve
