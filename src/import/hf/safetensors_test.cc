#include "import/hf/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "import/hf/test_folder.h"
#include "import/hf/weights.h"

namespace millpower::import {
namespace {

using ::testing::HasSubstr;

Result<SafetensorsTable> Parse(const std::string& file) {
  return ParseSafetensors({reinterpret_cast<const std::byte*>(file.data()), file.size()});
}

TEST(Safetensors, ReadsTensorsAndPassesMetadataOver) {
  const std::string file = SafetensorsFile(
      R"({"__metadata__": {"format": "pt"},
          "b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]},
          "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
          "none": {"dtype": "F16", "shape": [0, 9], "data_offsets": [4, 4]},
          "one": {"dtype": "F16", "shape": [], "data_offsets": [28, 30]},
          "other": {"dtype": "I64", "shape": [1], "data_offsets": [30, 38]}})",
      38);
  const auto table = Parse(file);
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(table->size(), 5u);
  EXPECT_EQ(table->at("a").dtype, DType::kBf16);
  EXPECT_EQ(table->at("b").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(table->at("b").bytes.size(), 24u);
  EXPECT_EQ(table->at("other").dtype, std::nullopt);
  EXPECT_EQ(table->at("other").dtype_name, "I64");
}

TEST(Safetensors, RefusesHostileHeaders) {
  const auto failure = [](const std::string& header, size_t data_bytes) {
    const auto table = Parse(SafetensorsFile(header, data_bytes));
    return table ? "" : table.error().message;
  };
  const auto entry = [](const char* dtype, const char* shape, const char* offsets) {
    return std::string(R"({"dtype": ")") + dtype + R"(", "shape": )" + shape +
           R"(, "data_offsets": )" + offsets + "}";
  };
  const auto one = [&](const char* dtype, const char* shape, const char* offsets) {
    return failure(R"({"a": )" + entry(dtype, shape, offsets) + "}", 8);
  };
  EXPECT_EQ(one("F32", "[2]", "[0, 8]"), "");
  // Offsets.
  EXPECT_THAT(one("F32", "[2]", "[0, 9]"), HasSubstr("data_offsets [0, 9] in 8 bytes"));
  EXPECT_THAT(one("F32", "[2]", "[8, 0]"), HasSubstr("data_offsets [8, 0]"));
  EXPECT_THAT(one("F32", "[2]", "[-8, 0]"), HasSubstr("no two data_offsets"));
  EXPECT_THAT(one("F32", "[2]", "[0]"), HasSubstr("no two data_offsets"));
  EXPECT_THAT(one("F32", "[2]", "[0, 18446744073709551615]"), HasSubstr("no two data_offsets"));
  EXPECT_THAT(one("F32", "[1]", "[0, 4]"), HasSubstr("at the end belong to no tensor"));
  EXPECT_THAT(one("F32", "[1]", "[4, 8]"), HasSubstr("before 'a' belong to no tensor"));
  EXPECT_THAT(failure(R"({"a": )" + entry("F32", "[2]", "[0, 8]") + R"(, "b": )" +
                          entry("F32", "[1]", "[4, 8]") + "}",
                      8),
              HasSubstr("'b' overlaps another tensor"));
  // Shapes.
  EXPECT_THAT(one("F32", "[3]", "[0, 8]"), HasSubstr("has 8 bytes, not what its shape and F32"));
  EXPECT_THAT(one("F32", "[-2]", "[0, 8]"), HasSubstr("no shape of whole numbers"));
  EXPECT_THAT(one("F32", "[2.0]", "[0, 8]"), HasSubstr("no shape of whole numbers"));
  EXPECT_THAT(one("F32", "\"2\"", "[0, 8]"), HasSubstr("no shape of whole numbers"));
  EXPECT_THAT(one("F32", "[4611686018427387904, 4, 2]", "[0, 8]"), HasSubstr("not what its shape"));
  EXPECT_THAT(one("F32", "[4611686018427387906]", "[0, 8]"), HasSubstr("not what its shape"));
  // JSON.
  EXPECT_THAT(failure(R"({"a": {"shape": [2], "data_offsets": [0, 8]}})", 8),
              HasSubstr("no dtype"));
  EXPECT_THAT(failure(R"({"a": 3})", 0), HasSubstr("tensor 'a' is not an object"));
  EXPECT_THAT(failure("[]", 0), HasSubstr("not an object"));
  EXPECT_THAT(failure("{", 0), HasSubstr("malformed JSON"));
  EXPECT_THAT(failure("", 0), HasSubstr("malformed JSON"));
  EXPECT_THAT(failure(R"({"a": )" + std::string(100000, '['), 0), HasSubstr("malformed JSON"));
  EXPECT_THAT(failure(R"({"a": )" + std::string(50, '[') + std::string(50, ']') + "}", 0),
              HasSubstr("nests too deep"));
  EXPECT_THAT(failure(R"({"a": )" + entry("F32", "[2]", "[0, 8]") + R"(, "a": )" +
                          entry("F32", "[2]", "[0, 8]") + "}",
                      8),
              HasSubstr("'a' is listed twice"));
  // Lengths.
  EXPECT_THAT(Parse("short").error().message, HasSubstr("shorter than a safetensors header"));
  EXPECT_THAT(Parse(std::string("\x10\0\0\0\0\0\0\0{}", 10)).error().message,
              HasSubstr("header is truncated"));
  EXPECT_THAT(Parse(std::string(16, '\xff')).error().message, HasSubstr("too long"));
  EXPECT_THAT(Parse("PK\x03\x04 a zip file, by another name").error().message,
              HasSubstr("is this a safetensors file?"));
}

TEST(HfWeights, ReadsOneFileOrShards) {
  TestFolder folder;
  folder.Write("model-1.safetensors", SafetensorsFile({{"a", {2, 2}}, {"b", {3}}}));
  folder.Write("model-2.safetensors", SafetensorsFile({{"c", {4}}}));
  folder.Write("model.safetensors.index.json",
               R"({"metadata": {"total_size": 22}, "weight_map": {
                   "a": "model-1.safetensors", "b": "model-1.safetensors",
                   "c": "model-2.safetensors"}})");
  auto weights = HfWeights::Open(folder.path());
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_EQ((*weights)->tensor_count(), 3u);
  const auto c = (*weights)->Find("c");
  ASSERT_TRUE(c);
  EXPECT_EQ(c->shape, std::vector<int64_t>{4});
  EXPECT_EQ(c->bytes[7], std::byte{0});
  (*weights)->Release(c->bytes);
  EXPECT_EQ(c->bytes[7], std::byte{0});
  EXPECT_EQ((*weights)->Find("d").error().code, ErrorCode::kNotFound);

  folder.Write(
      "model.safetensors",
      SafetensorsFile(R"({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}})", 1));
  weights = HfWeights::Open(folder.path());  // goes before the shards
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_THAT((*weights)->Find("a").error().message, HasSubstr("is F8_E4M3; supported: F32"));
}

TEST(HfWeights, RefusesUnsoundFolders) {
  TestFolder folder;
  const auto failure = [&] {
    const auto weights = HfWeights::Open(folder.path());
    return weights ? "" : weights.error().message;
  };
  const auto write_index = [&](const std::string& weight_map) {
    folder.Write("model.safetensors.index.json", R"({"weight_map": )" + weight_map + "}");
  };
  EXPECT_THAT(failure(), HasSubstr("no model.safetensors or model.safetensors.index.json in"));
  folder.Write("pytorch_model.bin", "pickle");
  EXPECT_THAT(failure(), HasSubstr("pytorch_model.bin: weights in pickle files are not read"));
  folder.Write("s.safetensors", SafetensorsFile({{"a", {1}}}));
  write_index(R"({"b": "s.safetensors"})");
  EXPECT_THAT(failure(), HasSubstr("'b' is not in s.safetensors"));
  write_index(R"({"a": "gone.safetensors"})");
  EXPECT_THAT(failure(), HasSubstr("gone.safetensors"));
  for (const char* shard : {"\"../s.safetensors\"", "\"/etc/s.safetensors\"", "\"..safetensors\"",
                            "\"a\\\\b.safetensors\"", "\"config.json\"", "3", "null"}) {
    write_index(std::string(R"({"a": )") + shard + "}");
    EXPECT_THAT(failure(), HasSubstr("is not a .safetensors file name")) << shard;
  }
  write_index("[]");
  EXPECT_THAT(failure(), HasSubstr("has no weight_map"));
}

}  // namespace
}  // namespace millpower::import
