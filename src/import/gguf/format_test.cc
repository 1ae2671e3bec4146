#include "import/gguf/format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "base/blocks.h"
#include "base/mapped_file.h"
#include "import/gguf/fields.h"
#include "import/gguf/test_file.h"

namespace millpower::import {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& file) { return std::as_bytes(std::span(file)); }

std::string Failure(const std::string& file, ErrorCode code = ErrorCode::kCorrupt) {
  const auto parsed = ParseGguf(Bytes(file));
  if (parsed) return "";
  EXPECT_EQ(parsed.error().code, code) << parsed.error().message;
  return parsed.error().message;
}
std::string Failure(const GgufBuilder& file, ErrorCode code = ErrorCode::kCorrupt) {
  return Failure(file.Build(), code);
}

TEST(Gguf, ReadsMetadataOfEveryType) {
  GgufBuilder file;
  const auto put = [&](const char* key, uint32_t type, const std::string& bytes) {
    file.Put(key, BytesOf(type) + bytes);
  };
  put("u8", 0, BytesOf(uint8_t{200}));
  put("i8", 1, BytesOf(int8_t{-2}));
  put("u16", 2, BytesOf(uint16_t{40000}));
  put("i16", 3, BytesOf(int16_t{-3}));
  put("u32", 4, BytesOf(uint32_t{4000000000}));
  put("i32", 5, BytesOf(int32_t{-4}));
  put("f32", 6, BytesOf(0.6f));
  put("bool", 7, BytesOf(uint8_t{1}));
  put("u64", 10, BytesOf(uint64_t{1} << 40));
  put("huge", 10, BytesOf(uint64_t{1} << 63));
  put("i64", 11, BytesOf(int64_t{-5}));
  put("f64", 12, BytesOf(2.5));
  file.Set("text", "hello").Set("list", std::vector<std::string>{"a", "", "bc"});
  file.Set("numbers", std::vector<int32_t>{3, -1});
  put("nested", 9,
      BytesOf(uint32_t{9}) + BytesOf(uint64_t{2}) +              // two arrays
          BytesOf(uint32_t{0}) + BytesOf(uint64_t{3}) + "abc" +  // of bytes
          BytesOf(uint32_t{8}) + BytesOf(uint64_t{1}) + BytesOf(std::string("x")));
  for (const uint32_t version : {2u, 3u}) {
    file.version = version;
    const std::string bytes = file.Build();
    const auto parsed = ParseGguf(Bytes(bytes));
    ASSERT_TRUE(parsed) << parsed.error().message;
    const GgufFields fields(parsed->metadata);
    EXPECT_EQ(fields.Integer("u8"), 200);
    EXPECT_EQ(fields.Integer("i8"), -2);
    EXPECT_EQ(fields.Integer("u16"), 40000);
    EXPECT_EQ(fields.Integer("i16"), -3);
    EXPECT_EQ(fields.Integer("u32"), 4000000000);
    EXPECT_EQ(fields.Integer("i32"), -4);
    EXPECT_EQ(fields.Real("f32"), 0.6);  // and not 0.60000002
    EXPECT_EQ(fields.Bool("bool"), true);
    EXPECT_EQ(fields.Integer("u64"), int64_t{1} << 40);
    EXPECT_EQ(fields.Integer("i64"), -5);
    EXPECT_EQ(fields.Real("f64"), 2.5);
    EXPECT_EQ(fields.Real("i32"), -4);
    EXPECT_EQ(fields.String("text"), "hello");
    EXPECT_THAT(*fields.Strings("list"), ElementsAre("a", "", "bc"));
    EXPECT_THAT(*fields.Integers("numbers"), ElementsAre(3, -1));
    EXPECT_EQ(fields.Integer("absent", 7), 7);

    EXPECT_EQ(fields.Integer("absent").error().message, "absent is missing");
    EXPECT_EQ(fields.Integer("f32").error().message, "f32 is not a whole number");
    EXPECT_EQ(fields.Integer("huge").error().message, "huge is not a whole number");
    EXPECT_EQ(fields.Integer("list").error().message, "list is not a whole number");
    EXPECT_EQ(fields.Real("text").error().message, "text is not a number");
    EXPECT_EQ(fields.Bool("u8").error().message, "u8 is not true or false");
    EXPECT_EQ(fields.String("list").error().message, "list is not a string");
    EXPECT_EQ(fields.Strings("numbers").error().message, "numbers is not an array of strings");
    EXPECT_EQ(fields.Integers("list").error().message, "list is not an array of whole numbers");
    EXPECT_EQ(fields.Integers("nested").error().message, "nested is not an array of whole numbers");
  }
}

TEST(Gguf, RefusesOtherFiles) {
  EXPECT_THAT(Failure(std::string()), HasSubstr("does not begin with GGUF"));
  EXPECT_THAT(Failure(std::string("GGML....")), HasSubstr("does not begin with GGUF"));
  GgufBuilder file;
  file.version = 1;
  EXPECT_THAT(Failure(file, ErrorCode::kUnsupported), HasSubstr("GGUF version 1"));
  file.version = 4;
  EXPECT_THAT(Failure(file, ErrorCode::kUnsupported), HasSubstr("GGUF version 4"));
  file.version = 0x03000000;
  EXPECT_THAT(Failure(file, ErrorCode::kUnsupported), HasSubstr("big-endian"));
}

// A file cut anywhere in its header is refused, whatever is cut.
TEST(Gguf, RefusesTruncatedFiles) {
  const GgufBuilder builder = SmallGguf();
  const std::string file = builder.Build();
  GgufBuilder header = builder;
  for (auto& [name, tensor] : header.tensors) tensor.size_bytes = 0;
  for (size_t size = 0; size < header.Build().size(); ++size)
    EXPECT_FALSE(ParseGguf(Bytes(file).first(size))) << size;
  EXPECT_THAT(Failure(file.substr(0, file.size() - 128)), HasSubstr("is the file complete?"));
}

TEST(Gguf, RefusesCountsBeyondTheFile) {
  for (const uint64_t count : {uint64_t{1000}, uint64_t{1} << 32, UINT64_MAX}) {
    GgufBuilder file;
    file.tensor_count = count;
    EXPECT_THAT(Failure(file), HasSubstr("says that it has " + std::to_string(count) + " tensors"));
    file.tensor_count.reset();
    file.entry_count = count;
    EXPECT_THAT(Failure(file), HasSubstr(std::to_string(count) + " entries of metadata"));
    file.entry_count.reset();
    for (const uint32_t type : {0u, 4u, 8u, 9u, 12u}) {
      file.Put("list", BytesOf(uint32_t{9}) + BytesOf(type) + BytesOf(count));
      EXPECT_THAT(Failure(file), HasSubstr("metadata 'list': has an array of")) << type;
    }
    file.Put("list", BytesOf(uint32_t{8}) + BytesOf(count));
    EXPECT_THAT(Failure(file), HasSubstr("metadata 'list': takes"));
  }
}

TEST(Gguf, RefusesBadMetadata) {
  const auto failure = [](const std::string& bytes) {
    GgufBuilder file;
    file.Put("odd", bytes);
    return Failure(file);
  };
  EXPECT_THAT(failure(BytesOf(uint32_t{13}) + "x"), HasSubstr("'odd': has the type 13"));
  EXPECT_THAT(failure(BytesOf(uint32_t{9}) + BytesOf(uint32_t{99}) + BytesOf(uint64_t{0})),
              HasSubstr("has the type 99"));
  std::string nested;
  for (int i = 0; i < 4; ++i) nested += BytesOf(uint32_t{9}) + BytesOf(uint64_t{1});
  nested = BytesOf(uint32_t{9}) + nested + BytesOf(uint32_t{0}) + BytesOf(uint64_t{0});
  EXPECT_THAT(failure(nested), HasSubstr("arrays in arrays deeper than 4"));

  GgufBuilder file;
  file.Set("twice", 1u);
  file.entries.push_back(file.entries.front());
  EXPECT_THAT(Failure(file), HasSubstr("metadata 'twice' is there twice"));
  GgufBuilder unnamed;
  unnamed.Set("", 1u);
  EXPECT_THAT(Failure(unnamed), HasSubstr("metadata entry 0: has a name of 0 bytes"));
  GgufBuilder named;
  named.Set(std::string(kMaxGgufKeyBytes + 1, 'x'), 1u);
  EXPECT_THAT(Failure(named), HasSubstr("has a name of 65537 bytes"));
  for (const uint32_t alignment : {0u, 3u, 48u}) {
    GgufBuilder odd;
    odd.Set("general.alignment", alignment);
    EXPECT_THAT(Failure(odd), HasSubstr("no power of two"));
  }
  GgufBuilder odd;
  odd.Set("general.alignment", "32");
  EXPECT_THAT(Failure(odd), HasSubstr("general.alignment is not a u32"));
}

TEST(Gguf, TensorsLieWhereTheySay) {
  GgufBuilder file;
  file.Set("general.alignment", 64u);
  file.alignment = 64;
  file.Add("a", kGgmlQ4_0, {3, 2, 64}, DType::kQ4_0).Add("b", kGgmlF16, {5}, DType::kF16);
  file.Add("c", 41, {64}, DType::kF32);
  const std::string bytes = file.Build();
  const auto parsed = ParseGguf(Bytes(bytes));
  ASSERT_TRUE(parsed) << parsed.error().message;
  const GgufTensor& a = parsed->tensors.at("a");
  EXPECT_EQ(a.dtype, DType::kQ4_0);
  EXPECT_THAT(a.shape, ElementsAre(3, 2, 64));
  EXPECT_EQ(a.bytes.size(), 12 * 18u);
  EXPECT_EQ((a.bytes.data() - Bytes(bytes).data()) % 64, 0);
  EXPECT_EQ(parsed->tensors.at("b").bytes.data() - a.bytes.data(), 256);
  EXPECT_EQ(parsed->tensors.at("b").bytes.size(), 10u);
  EXPECT_EQ(parsed->tensors.at("c").dtype, std::nullopt);
  EXPECT_EQ(parsed->tensors.at("c").type_name, "Q1_0");
}

TEST(Gguf, RefusesBadTensors) {
  const auto failure = [](auto&& spoil) {
    GgufBuilder file;
    file.Add("a", kGgmlQ8_0, {2, 64}, DType::kQ8_0).Add("b", kGgmlF32, {8}, DType::kF32);
    spoil(file);
    return Failure(file);
  };
  const auto shape = [&](std::vector<int64_t> dims) {
    return failure([&](GgufBuilder& file) { file.At("a").shape = dims; });
  };
  EXPECT_THAT(shape({}), HasSubstr("tensor 'a': has 0 dimensions"));
  EXPECT_THAT(shape({1, 1, 1, 1, 32}), HasSubstr("has 5 dimensions"));
  EXPECT_THAT(shape({0, 32}), HasSubstr("dimension of 0"));
  EXPECT_THAT(shape({-1, 32}), HasSubstr("dimension of 18446744073709551615"));
  EXPECT_THAT(shape({int64_t{1} << 44, 32}), HasSubstr("larger than 2^48 values"));
  EXPECT_THAT(shape({2, 48}), HasSubstr("rows of 48 values, not whole blocks of Q8_0"));
  EXPECT_THAT(shape({1 << 20, 64}), HasSubstr("is the file complete?"));
  const auto offset = [&](uint64_t at) {
    return failure([&](GgufBuilder& file) { file.At("b").offset = at; });
  };
  EXPECT_THAT(offset(0), HasSubstr("overlaps"));
  EXPECT_THAT(offset(128), HasSubstr("tensor 'b' overlaps 'a'"));
  EXPECT_THAT(offset(8), HasSubstr("tensor 'b' is at 8, no multiple of the alignment 32"));
  EXPECT_THAT(offset(192), HasSubstr("is the file complete?"));
  EXPECT_THAT(offset(UINT64_MAX - 31), HasSubstr("is the file complete?"));
  EXPECT_THAT(failure([](GgufBuilder& file) { file.tensors[1].first = "a"; }),
              HasSubstr("tensor 'a' is there twice"));
  EXPECT_THAT(failure([](GgufBuilder& file) { file.tensors[1].first = ""; }),
              HasSubstr("tensor 1: has a name of 0 bytes"));
  EXPECT_THAT(failure([](GgufBuilder& file) { file.tensors[1].first = std::string(65, 'x'); }),
              HasSubstr("has a name of 65 bytes"));
}

// tools/goldens/make_blocks.py: what the `gguf` package's reference gives, to the bit.
class Blocks : public testing::Test {
 protected:
  void SetUp() override {
    auto file = MappedFile::Open(std::filesystem::path(MILLPOWER_SOURCE_DIR) /
                                 "tests/gguf_data/blocks.gguf");
    ASSERT_TRUE(file) << file.error().message;
    file_ = std::move(*file);
    auto parsed = ParseGguf(file_.bytes());
    ASSERT_TRUE(parsed) << parsed.error().message;
    parsed_ = std::move(*parsed);
  }
  const GgufTensor& Tensor(const std::string& name) { return parsed_.tensors.at(name); }
  std::vector<float> Floats(const std::string& name) {
    std::vector<float> values(Tensor(name).bytes.size() / sizeof(float));
    std::memcpy(values.data(), Tensor(name).bytes.data(), values.size() * sizeof(float));
    return values;
  }

 private:
  MappedFile file_;
  GgufFile parsed_;
};

TEST_F(Blocks, HaveTheValuesOfTheReference) {
  for (const DType type :
       {DType::kF16, DType::kBf16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ6_K}) {
    const std::string name = Name(type);
    ASSERT_EQ(Tensor(name).dtype, type);
    const std::vector<float> expected = Floats(name + ".values");
    ASSERT_EQ(expected.size(), 6 * 512u);
    std::vector<float> actual(expected.size());
    Dequantise(type, Tensor(name).bytes.data(), static_cast<int64_t>(actual.size()), actual.data());
    EXPECT_EQ(std::memcmp(actual.data(), expected.data(), actual.size() * sizeof(float)), 0)
        << name;
  }
}

TEST_F(Blocks, AreMadeAsByTheReference) {
  const std::vector<float> x = Floats("x");
  for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
    const std::string name = std::string("x.") + Name(type);
    const auto expected = Tensor(name).bytes;
    std::vector<std::byte> actual(expected.size());
    (type == DType::kQ8_0 ? QuantiseQ8_0 : QuantiseQ4_0)(x.data(), static_cast<int64_t>(x.size()),
                                                         actual.data());
    const auto size = static_cast<size_t>(BlockBytes(type));
    for (size_t at = 0; at < actual.size(); at += size)
      EXPECT_EQ(std::memcmp(&actual[at], &expected[at], size), 0) << name << " block " << at / size;
  }
}

}  // namespace
}  // namespace millpower::import
