#include "ranking/signature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "ranking/fake_device.h"
#include "ranking/lookup.h"
#include "ranking/rows.h"

namespace millpower::ranking {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Signature WithEverything() {
  Signature signature = FakeRecommender("m", true).signature;
  signature.inputs.push_back({.name = "country",
                              .dtype = DType::kI64,
                              .is_string = true,
                              .shape = {Size::Symbol("batch")},
                              .buffer = ""});
  signature.prologue = {{.input = "country",
                         .buffer = "x.country",
                         .keys = {"de", "caf\xc3\xa9", std::string("\xff\x00z", 3)},
                         .values = {1, 2, 3},
                         .otherwise = 0,
                         .buckets = 10,
                         .bucket_base = 4}};
  return signature;
}

TEST(SignatureTest, SurvivesJson) {
  const Signature signature = WithEverything();
  const auto text = DumpJson(ToJson(signature));
  const auto again = SignatureFromJson(ParseJson(text).value());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, signature);
}

TEST(SignatureTest, RefusesBrokenJsonByPlace) {
  const auto fails = [](const std::function<void(Json&)>& change) {
    Json json = ToJson(WithEverything());
    change(json);
    const auto read = SignatureFromJson(json);
    return read ? "it is read" : read.error().message;
  };
  EXPECT_THAT(fails([](Json& json) { json["version"] = 2; }), HasSubstr("version 2"));
  EXPECT_THAT(fails([](Json& json) { json["inputs"][1]["dtype"] = "q4_k"; }),
              HasSubstr("inputs[1].dtype"));
  EXPECT_THAT(fails([](Json& json) { json["inputs"][0]["shape"][1] = -3; }),
              HasSubstr("inputs[0].shape[1]"));
  EXPECT_THAT(fails([](Json& json) { json["inputs"][0]["shape"][1] = "2*"; }),
              HasSubstr("inputs[0].shape[1]"));
  EXPECT_THAT(fails([](Json& json) { json["outputs"] = 7; }), HasSubstr("outputs"));
  EXPECT_THAT(fails([](Json& json) { json["outputs"][0] = 7; }), HasSubstr("outputs[0]"));
  EXPECT_THAT(fails([](Json& json) { json["prologue"][0]["keys"][2]["hex"] = "f"; }),
              HasSubstr("prologue[0].keys[2]"));
  EXPECT_THAT(fails([](Json& json) { json["prologue"][0]["values"][0] = 1.5; }),
              HasSubstr("prologue[0].values[0]"));
  EXPECT_THAT(fails([](Json& json) { json = Json::array(); }), HasSubstr("is no object"));
}

std::string CheckOf(const std::function<void(Loading&)>& change) {
  Loading loading = FakeRecommender("m");
  change(loading);
  const auto checked = CheckSignature(loading.signature, *loading.program);
  return checked ? "" : checked.error().message;
}

TEST(SignatureTest, MustFitTheProgram) {
  EXPECT_EQ(CheckOf([](Loading&) {}), "");
  const auto change = [](const std::function<void(Signature&)>& with) {
    return CheckOf([&](Loading& loading) { with(loading.signature); });
  };
  EXPECT_THAT(change([](Signature& s) { s.inputs[0].name = "items"; }), HasSubstr("'items'"));
  EXPECT_THAT(change([](Signature& s) { s.inputs[0].buffer = "x.nothing"; }),
              HasSubstr("not there"));
  EXPECT_THAT(change([](Signature& s) { s.inputs[0].dtype = DType::kI32; }), HasSubstr("'dense'"));
  EXPECT_THAT(change([](Signature& s) { s.inputs[0].shape[1] = 3; }),
              HasSubstr("3*batch elements"));
  EXPECT_THAT(change([](Signature& s) { s.inputs[0].shape[0] = Size::Symbol("ends"); }),
              HasSubstr("'ends'"));
  EXPECT_THAT(change([](Signature& s) { s.inputs.pop_back(); }), HasSubstr("x.scale"));
  EXPECT_THAT(change([](Signature& s) { s.inputs[0].buffer = ""; }), HasSubstr("nowhere"));
  EXPECT_THAT(change([](Signature& s) { s.inputs[0].is_string = true; }), HasSubstr("strings"));
  EXPECT_THAT(change([](Signature& s) { s.outputs[0].buffer = "x.dense"; }), HasSubstr("'score'"));
  EXPECT_THAT(change([](Signature& s) { s.batch = "rows"; }), HasSubstr("'rows'"));
  EXPECT_THAT(change([](Signature& s) { s.inputs[2].offsets_of = {"dense"}; }),
              HasSubstr("'dense'"));
  EXPECT_THAT(change([](Signature& s) { s.inputs[2].offsets_of = {"nobody"}; }),
              HasSubstr("'nobody'"));
  EXPECT_THAT(change([](Signature& s) { s.inputs[0].offsets_of = {"items"}; }),
              HasSubstr("'dense' holds offsets"));
}

TEST(SignatureTest, LookupsMustFitToo) {
  const auto change = [](const std::function<void(Lookup&)>& with) {
    return CheckOf([&](Loading& loading) {
      Port& items = loading.signature.inputs[1];
      items.buffer = "";
      Lookup lookup{.input = "items", .buffer = "x.items", .keys = {"5"}, .values = {1}};
      with(lookup);
      loading.signature.prologue = {lookup};
    });
  };
  EXPECT_EQ(change([](Lookup&) {}), "");
  EXPECT_THAT(change([](Lookup& l) { l.keys[0] = "five"; }), HasSubstr("'five'"));
  EXPECT_THAT(change([](Lookup& l) { l.keys.push_back("6"); }), HasSubstr("number of keys"));
  EXPECT_THAT(change([](Lookup& l) { l.buckets = -1; }), HasSubstr("buckets"));
  const auto extra = [](const char* input) {
    return CheckOf([&](Loading& loading) {
      loading.signature.prologue = {
          {.input = input, .buffer = "x.items", .keys = {}, .values = {}}};
    });
  };
  EXPECT_THAT(extra("dense"), HasSubstr("integers"));
  EXPECT_THAT(extra("what"), HasSubstr("no input"));
  EXPECT_THAT(extra("items"), HasSubstr("as another does"));
  EXPECT_THAT(change([](Lookup& l) { l.buffer = "x.offsets"; }), HasSubstr("x.offsets"));
}

std::vector<int64_t> FindStrings(const Lookup& lookup, std::vector<std::string_view> keys) {
  std::vector<std::byte> bytes;
  EXPECT_TRUE(LookupTable(lookup, true, DType::kI64, DType::kI64).Find(keys, bytes));
  std::vector<int64_t> values(keys.size());
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST(LookupTest, FindsKeysAndHashesTheRest) {
  Lookup lookup{.input = "x", .buffer = "y", .keys = {"a", "b", "a"}, .values = {1, 2, 3}};
  EXPECT_THAT(FindStrings(lookup, {"a", "b", "c", ""}), ElementsAre(3, 2, -1, -1));
  // tf.strings.to_hash_bucket_fast(["Hello", "TensorFlow", "2.x"], 3) is [0, 2, 2]: the example of
  // its documentation.
  lookup.buckets = 3;
  lookup.bucket_base = 100;
  EXPECT_THAT(FindStrings(lookup, {"Hello", "TensorFlow", "2.x", "b"}),
              ElementsAre(100, 102, 102, 2));
}

TEST(LookupTest, TakesIntegersOfAnyWidth) {
  const Lookup lookup{.input = "x", .buffer = "y", .keys = {"-5", "300"}, .values = {7, 1LL << 40}};
  const std::vector<int16_t> keys = {300, -5, 1};
  const auto bytes_of = std::as_bytes(std::span(keys));
  std::vector<std::byte> found;
  ASSERT_TRUE(LookupTable(lookup, false, DType::kI16, DType::kI64).Find(bytes_of, found));
  std::vector<int64_t> values(3);
  std::memcpy(values.data(), found.data(), found.size());
  EXPECT_THAT(values, ElementsAre(1LL << 40, 7, -1));
  EXPECT_FALSE(LookupTable(lookup, false, DType::kI16, DType::kI32).Find(bytes_of, found));
}

TEST(RowsTest, AreWrittenAsTheLayoutSays) {
  const std::vector<float> values = {1, -2, 0.5f, 127, 0, 0, 0, 0};
  const std::vector<int64_t> rows = {30, 4}, one = {30};
  const auto i8 = MakeTableRows(values, rows, 4, DType::kI8).value();
  ASSERT_EQ(i8.size(), 16u);
  float scale = 0;
  std::memcpy(&scale, i8.data(), 4);
  EXPECT_EQ(scale, 1.0f);
  EXPECT_EQ(static_cast<int8_t>(i8[4]), 1);
  EXPECT_EQ(static_cast<int8_t>(i8[5]), -2);
  EXPECT_EQ(static_cast<int8_t>(i8[6]), 0);  // half, to even
  EXPECT_EQ(static_cast<int8_t>(i8[7]), 127);
  std::memcpy(&scale, i8.data() + 8, 4);
  EXPECT_EQ(scale, 0.0f);
  const auto i4 = MakeTableRows(std::span(values).first(3), one, 3, DType::kI4).value();
  ASSERT_EQ(i4.size(), 8u);
  std::memcpy(&scale, i4.data(), 4);
  EXPECT_EQ(scale, 2.0f / 7.0f);
  EXPECT_EQ(static_cast<int>(i4[4]), (8 + 3) | ((8 - 7) << 4));
  EXPECT_EQ(static_cast<int>(i4[5]), 8 + 2);
  const auto f16 = MakeTableRows(std::span(values).first(3), one, 3, DType::kF16).value();
  EXPECT_EQ(f16.size(), 8u);
  EXPECT_FALSE(MakeTableRows(std::vector<float>{1e6f}, one, 1, DType::kF16));
  EXPECT_FALSE(MakeTableRows(std::vector<float>{NAN}, one, 1, DType::kF32));
}

}  // namespace
}  // namespace millpower::ranking
