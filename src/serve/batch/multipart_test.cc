#include "serve/batch/multipart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millpower::serve {
namespace {

using testing::HasSubstr;

std::string Field(std::string_view name, std::string_view content) {
  return "--b\r\nContent-Disposition: form-data; name=\"" + std::string(name) + "\"\r\n\r\n" +
         std::string(content) + "\r\n";
}

std::string ErrorOf(std::string_view body, const MultipartLimits& limits = {}) {
  const auto parts = ReadMultipart(body, "b", limits);
  EXPECT_FALSE(parts) << body;
  return parts ? "" : parts.error().message;
}

TEST(BoundaryTest, IsFoundQuotedOrNot) {
  EXPECT_EQ(BoundaryOf("multipart/form-data; boundary=abc"), "abc");
  EXPECT_EQ(BoundaryOf("Multipart/Form-Data ;charset=utf-8; BOUNDARY=\"a b:c\" "), "a b:c");
  EXPECT_EQ(BoundaryOf("multipart/form-data; boundary=" + std::string(70, 'x')),
            std::string(70, 'x'));
}

TEST(BoundaryTest, IsRefusedWhereRfc2046Does) {
  for (const char* type :
       {"multipart/form-data", "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"", "multipart/form-data; boundary=\"a\\\"b\"",
        "multipart/form-data; boundary=\"ab \"", "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=\"a", "multipart/form-data; boundary=a b",
        "multipart/form-data; boundary", "multipart/form-data;"})
    EXPECT_FALSE(BoundaryOf(type)) << type;
  EXPECT_FALSE(BoundaryOf("multipart/form-data; boundary=" + std::string(71, 'x')));
  EXPECT_EQ(BoundaryOf("multipart/mixed; boundary=a").error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(BoundaryOf("").error().code, ErrorCode::kUnsupported);
}

TEST(MultipartTest, ReadsFieldsAndFilesInOrder) {
  const std::string body =
      Field("purpose", "batch") +
      "--b \t\r\ncontent-TYPE: application/jsonl\r\n"
      "Content-Disposition: form-data; name=file; filename=\"a \\\"b\\\".jsonl\""
      "\r\nX-Other: 1\r\n\r\nline\n\r\n--b--\r\n";
  const auto parts = ReadMultipart(body, "b");
  ASSERT_TRUE(parts) << parts.error().message;
  ASSERT_EQ(parts->size(), 2u);
  EXPECT_EQ((*parts)[0].name, "purpose");
  EXPECT_EQ((*parts)[0].content, "batch");
  EXPECT_FALSE((*parts)[0].filename);
  EXPECT_EQ((*parts)[1].name, "file");
  EXPECT_EQ((*parts)[1].filename, "a \"b\".jsonl");
  EXPECT_EQ((*parts)[1].content_type, "application/jsonl");
  EXPECT_EQ((*parts)[1].content, "line\n");
}

TEST(MultipartTest, KeepsAllBytesOfAContent) {
  std::string content;
  for (int i = 0; i < 512; ++i) content += static_cast<char>(i);
  content += "\r\n\r\n-b\r\n--\r\n--a\n--b\r--b\r\n - -b--b\r\n\r";
  const std::string body = Field("file", content) + "--b--";
  const auto parts = ReadMultipart(body, "b");
  ASSERT_TRUE(parts) << parts.error().message;
  EXPECT_EQ(parts->front().content, content);
}

TEST(MultipartTest, ReadsEmptyContentWrittenEitherWay) {
  const std::string empty = Field("a", "") + "--b--";
  const auto usual = ReadMultipart(empty, "b");
  ASSERT_TRUE(usual);
  EXPECT_EQ(usual->front().content, "");
  // RFC 2046 lets the headers' last line end be that of the delimiter.
  const std::string body =
      "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n" + Field("c", "d") + "--b--";
  const auto terse = ReadMultipart(body, "b");
  ASSERT_TRUE(terse) << terse.error().message;
  ASSERT_EQ(terse->size(), 2u);
  EXPECT_EQ((*terse)[0].content, "");
  EXPECT_EQ((*terse)[1].content, "d");
}

TEST(MultipartTest, IgnoresPreambleAndEpilogue) {
  const std::string body = "hello --b\r\n" + Field("a", "1") + "--b--\r\n--b\r\nmore";
  const auto parts = ReadMultipart(body, "b");
  ASSERT_TRUE(parts) << parts.error().message;
  ASSERT_EQ(parts->size(), 1u);
  EXPECT_EQ(parts->front().content, "1");
}

TEST(MultipartTest, RefusesWhatIsCutOffAnywhere) {
  const std::string body = Field("a", "some text") + Field("b", "") + "--b--";
  ASSERT_TRUE(ReadMultipart(body, "b"));
  for (size_t size = 0; size < body.size(); ++size)
    EXPECT_FALSE(ReadMultipart(std::string_view(body).substr(0, size), "b")) << size;
}

TEST(MultipartTest, RefusesFaultyFraming) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("nowhere"));
  EXPECT_THAT(ErrorOf("--c\r\n"), HasSubstr("nowhere"));
  EXPECT_THAT(ErrorOf("x--b\r\n"), HasSubstr("nowhere"));
  EXPECT_THAT(ErrorOf("--b--"), HasSubstr("no parts"));
  EXPECT_THAT(ErrorOf("--b\n" + Field("a", "1")), HasSubstr("alone on its line"));
  EXPECT_THAT(ErrorOf("--bb\r\n"), HasSubstr("alone on its line"));
  // A delimiter twice in a row leaves a part without headers.
  EXPECT_THAT(ErrorOf("--b\r\n" + Field("a", "1") + "--b--"), HasSubstr("Name: value"));
  // Content that goes on where a boundary seems to be.
  EXPECT_THAT(ErrorOf(Field("a", "1\r\n--bc") + "--b--"), HasSubstr("alone on its line"));
}

TEST(MultipartTest, RefusesFaultyHeaders) {
  const auto with = [](std::string_view headers) {
    return ErrorOf("--b\r\n" + std::string(headers) + "\r\n\r\n1\r\n--b--");
  };
  constexpr std::string_view kGood = "Content-Disposition: form-data; name=a";
  EXPECT_THAT(with("X: y"), HasSubstr("no Content-Disposition"));
  EXPECT_THAT(with("Content-Disposition: attachment; name=a"), HasSubstr("form-data"));
  EXPECT_THAT(with("Content-Disposition: form-data"), HasSubstr("no name"));
  EXPECT_THAT(with("Content-Disposition: form-data; name=\"\""), HasSubstr("no name"));
  EXPECT_THAT(with("Content-Disposition: form-data; name=a; name=b"), HasSubstr("twice"));
  EXPECT_THAT(with("Content-Disposition: form-data; name=\"a"), HasSubstr("no end"));
  EXPECT_THAT(with(std::string(kGood) + "\r\n" + std::string(kGood)), HasSubstr("two"));
  EXPECT_THAT(with(std::string(kGood) + "\r\nContent-Type: a\r\nContent-Type: b"),
              HasSubstr("two"));
  EXPECT_THAT(with(std::string(kGood) + "\r\n folded"), HasSubstr("Name: value"));
  EXPECT_THAT(with(std::string(kGood) + "\r\nno colon"), HasSubstr("Name: value"));
  EXPECT_THAT(with(std::string(kGood) + "\nX: y"), HasSubstr("control character"));
  EXPECT_THAT(with(std::string(kGood) + "\r\nX: \x01"), HasSubstr("control character"));
  EXPECT_THAT(with(std::string(kGood) + "\r\nContent-Transfer-Encoding: base64"),
              HasSubstr("encoding"));
}

TEST(MultipartTest, HoldsItsLimits) {
  const MultipartLimits limits{.parts_max = 2, .header_bytes_max = 100};
  const std::string two = Field("a", "1") + Field("b", "2");
  EXPECT_TRUE(ReadMultipart(two + "--b--", "b", limits));
  EXPECT_THAT(ErrorOf(two + Field("c", "3") + "--b--", limits), HasSubstr("more than 2 parts"));
  // To the byte: "--b\r\n" aside, 40 and 2 and those of X.
  const auto sized = [](size_t x_bytes) {
    return "--b\r\nContent-Disposition: form-data; name=a\r\nX: " + std::string(x_bytes, 'x') +
           "\r\n\r\n1\r\n--b--";
  };
  EXPECT_TRUE(ReadMultipart(sized(100 - 40 - 2 - 5), "b", limits));
  EXPECT_THAT(ErrorOf(sized(100 - 40 - 2 - 5 + 1), limits), HasSubstr("exceed 100 bytes"));
  EXPECT_THAT(ErrorOf(sized(100'000), limits), HasSubstr("exceed 100 bytes"));
}

}  // namespace
}  // namespace millpower::serve
