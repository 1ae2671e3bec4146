#include "serve/inference/tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "serve/inference/protocol.h"

namespace millpower::serve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ranking::Port PortOf(DType dtype, bool is_string = false) {
  ranking::Port port;
  port.name = "x";
  port.dtype = dtype;
  port.is_string = is_string;
  return port;
}

// What a list becomes, and how it is written again; or the error.
std::string RoundTrip(DType dtype, std::string_view text) {
  TensorStore store;
  const ranking::Port port = PortOf(dtype);
  TensorBuilder builder(port, store, ByteStrings::kPlain);
  const auto added = builder.AddFlat(ParseJson(text).value());
  if (!added) return added.error().message;
  std::string json;
  AppendElements(builder.Build({builder.count()}).bytes, dtype, json);
  return json;
}

TEST(TensorsTest, ReadsAndWritesEveryType) {
  EXPECT_EQ(RoundTrip(DType::kBool, "[true, false, 1, 0]"), "true,false,true,false");
  EXPECT_EQ(RoundTrip(DType::kI8, "[-128, 127]"), "-128,127");
  EXPECT_EQ(RoundTrip(DType::kU8, "[[0], [255]]"), "0,255");
  EXPECT_EQ(RoundTrip(DType::kI16, "[-32768, 32767]"), "-32768,32767");
  EXPECT_EQ(RoundTrip(DType::kU16, "[65535]"), "65535");
  EXPECT_EQ(RoundTrip(DType::kI32, "[-2147483648, 2147483647]"), "-2147483648,2147483647");
  EXPECT_EQ(RoundTrip(DType::kU32, "[4294967295]"), "4294967295");
  EXPECT_EQ(RoundTrip(DType::kI64, "[-9223372036854775808, 9223372036854775807]"),
            "-9223372036854775808,9223372036854775807");
  EXPECT_EQ(RoundTrip(DType::kU64, "[18446744073709551615]"), "18446744073709551615");
  EXPECT_EQ(RoundTrip(DType::kF32, "[0.1, -3, 1e30, 1e300]"), "0.1,-3,1e+30,null");
  EXPECT_EQ(RoundTrip(DType::kF64, "[0.1, 1e300]"), "0.1,1e+300");
  EXPECT_EQ(RoundTrip(DType::kF16, "[0.5, 65504]"), "0.5,65504");
  EXPECT_EQ(RoundTrip(DType::kBf16, "[1.5]"), "1.5");
}

TEST(TensorsTest, RefusesWhatDoesNotFit) {
  for (const auto& [dtype, text] : std::initializer_list<std::pair<DType, const char*>>{
           {DType::kBool, "[2]"},
           {DType::kBool, "[18446744073709551615]"},
           {DType::kI8, "[128]"},
           {DType::kU8, "[-1]"},
           {DType::kU8, "[256]"},
           {DType::kI32, "[2147483648]"},
           {DType::kI64, "[9223372036854775808]"},
           {DType::kI64, "[1.5]"},
           {DType::kI64, "[true]"},
           {DType::kI64, "[null]"},
           {DType::kU64, "[-1]"},
           {DType::kF32, "[\"1\"]"},
           {DType::kF32, "[{}]"}})
    EXPECT_THAT(RoundTrip(dtype, text), HasSubstr("which is no")) << text;
}

std::string ShapeOf(std::string_view text, size_t rank = 2) {
  TensorStore store;
  ranking::Port port = PortOf(DType::kF32);
  port.shape.assign(rank, Size(3));
  TensorBuilder builder(port, store, ByteStrings::kPlain);
  std::vector<int64_t> shape;
  const auto added = builder.AddNested(ParseJson(text).value(), shape);
  return added ? testing::PrintToString(shape) : "refused";
}

TEST(TensorsTest, FindsTheShapeOfNestedLists) {
  EXPECT_EQ(ShapeOf("7"), "{}");
  EXPECT_EQ(ShapeOf("[1, 2]"), "{ 2 }");
  EXPECT_EQ(ShapeOf("[[1, 2, 3], [4, 5, 6]]"), "{ 2, 3 }");
  EXPECT_EQ(ShapeOf("[]", 1), "{ 0 }");
  EXPECT_EQ(ShapeOf("[]", 2), "{ 0, 3 }");
  EXPECT_EQ(ShapeOf("[[], []]"), "{ 2, 0 }");
  EXPECT_EQ(ShapeOf("[[], [1]]"), "refused");
  EXPECT_EQ(ShapeOf("[[1, 2], [3]]"), "refused");
  EXPECT_EQ(ShapeOf("[[1, 2], 3]"), "refused");
  EXPECT_EQ(ShapeOf("[1, [2]]"), "refused");
}

TEST(TensorsTest, WritesNestedLists) {
  const std::vector<int32_t> values = {1, 2, 3, 4, 5, 6};
  std::string json;
  AppendNested(std::as_bytes(std::span(values)), DType::kI32, std::vector<int64_t>{3, 1, 2}, json);
  EXPECT_EQ(json, "[[[1,2]],[[3,4]],[[5,6]]]");
  json.clear();
  AppendNested({}, DType::kI32, std::vector<int64_t>{0, 2}, json);
  EXPECT_EQ(json, "[]");
  json.clear();
  AppendNested(std::as_bytes(std::span(values).first(1)), DType::kI32, {}, json);
  EXPECT_EQ(json, "1");
}

TEST(TensorsTest, ReadsByteStrings) {
  TensorStore store;
  const ranking::Port port = PortOf(DType::kI64, true);
  TensorBuilder builder(port, store, ByteStrings::kBase64Objects);
  EXPECT_TRUE(builder.AddFlat(ParseJson(R"(["a", {"b64": "AP8="}, ""])").value()));
  EXPECT_THAT(builder.Build({3}).strings, ElementsAre("a", std::string_view("\0\xff", 2), ""));
  EXPECT_FALSE(builder.AddFlat(ParseJson(R"([{"b64": "A"}])").value()));
  EXPECT_FALSE(builder.AddFlat(ParseJson("[1]").value()));
  TensorBuilder plain(port, store, ByteStrings::kPlain);
  EXPECT_FALSE(plain.AddFlat(ParseJson(R"([{"b64": "AP8="}])").value()));
}

TEST(TensorsTest, DecodesBase64) {
  EXPECT_EQ(DecodeBase64("").value(), "");
  EXPECT_EQ(DecodeBase64("Zg==").value(), "f");
  EXPECT_EQ(DecodeBase64("Zm8=").value(), "fo");
  EXPECT_EQ(DecodeBase64("Zm9v").value(), "foo");
  for (const char* bad : {"Z", "Zg=", "Zg= =", "Zm9 ", "Z===", "====", "Zm=v", "Zm9*"})
    EXPECT_FALSE(DecodeBase64(bad)) << bad;
}

TEST(TensorsTest, CountsElements) {
  EXPECT_EQ(CountElements(std::vector<int64_t>{}).value(), 1);
  EXPECT_EQ(CountElements(std::vector<int64_t>{2, 0, 5}).value(), 0);
  EXPECT_FALSE(CountElements(std::vector<int64_t>{2, -1}));
  EXPECT_FALSE(CountElements(std::vector<int64_t>{INT64_MAX, 2}));
  EXPECT_FALSE(CountElements(std::vector<int64_t>{1LL << 41}));
}

TEST(PathsTest, TellModelVersionAndVerb) {
  constexpr std::string_view kVerbs[] = {"infer", "ready"};
  const auto model = ReadModelPath("a/b/versions/3/infer", kVerbs);
  EXPECT_EQ(model->name, "a/b");
  EXPECT_EQ(model->version, 3);
  EXPECT_EQ(model->verb, "infer");
  EXPECT_EQ(ReadModelPath("m", kVerbs)->name, "m");
  EXPECT_EQ(ReadModelPath("m/other", kVerbs)->name, "m/other");
  for (const char* bad : {"m/versions/0", "m/versions/x/infer", "m/versions/-1",
                          "m/versions/99999999999999999999", "m/versions/"})
    EXPECT_FALSE(ReadModelPath(bad, kVerbs)) << bad;
  const auto colon = ReadColonPath("a/b/versions/12:predict");
  EXPECT_EQ(colon->name, "a/b");
  EXPECT_EQ(colon->version, 12);
  EXPECT_EQ(colon->verb, "predict");
  EXPECT_EQ(ReadColonPath("m/labels/stable:predict")->label, "stable");
  EXPECT_EQ(ReadColonPath("m/versions/2/metadata")->verb, "metadata");
  EXPECT_EQ(ReadColonPath("metadata")->name, "metadata");
  EXPECT_EQ(ReadColonPath("host:8/m")->name, "host:8/m");
}

}  // namespace
}  // namespace millpower::serve
