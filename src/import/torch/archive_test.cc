#include "import/torch/archive.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "import/torch/size_expression.h"
#include "import/torch/test_file.h"
#include "import/torch/zip.h"

namespace millpower::import::torch {
namespace {

ErrorCode CodeOf(const std::string& file) {
  const auto zip = ZipArchive::Open(AsBytes(file));
  return zip ? ErrorCode::kInternal : zip.error().code;
}

TEST(ZipArchive, MapsWhatIsStoredAndInflatesTheRest) {
  const std::string long_text(5000, 'a');
  const std::string file =
      ZipBuilder().Add("a/stored", "hello").Add("a/deflated", long_text, true).Add("e", "").Build();
  const auto zip = ZipArchive::Open(AsBytes(file));
  ASSERT_TRUE(zip) << zip.error().message;
  EXPECT_EQ(zip->Names(), (std::vector<std::string>{"a/deflated", "a/stored", "e"}));
  const auto stored = zip->Read("a/stored");
  ASSERT_TRUE(stored);
  EXPECT_EQ(AsText(stored->view), "hello");
  EXPECT_TRUE(stored->inflated.empty());
  EXPECT_GE(stored->view.data(), AsBytes(file).data());
  EXPECT_LT(stored->view.data(), AsBytes(file).data() + file.size());
  const auto deflated = zip->Read("a/deflated");
  ASSERT_TRUE(deflated);
  EXPECT_EQ(AsText(deflated->view), long_text);
  EXPECT_EQ(zip->Read("e")->view.size(), 0u);
  EXPECT_EQ(zip->Read("../e").error().code, ErrorCode::kNotFound);
}

TEST(ZipArchive, RefusesDamage) {
  ZipBuilder builder;
  builder.Add("x", std::string(1000, 'x'), true);
  builder.records[0].checksum = 7;
  const std::string file = builder.Build();
  const auto zip = ZipArchive::Open(AsBytes(file));
  ASSERT_TRUE(zip);
  EXPECT_EQ(zip->Read("x").error().code, ErrorCode::kCorrupt);

  EXPECT_EQ(CodeOf("not a zip archive"), ErrorCode::kCorrupt);
  EXPECT_EQ(CodeOf(""), ErrorCode::kCorrupt);
  EXPECT_EQ(CodeOf(ZipBuilder().Add("a", "1").Add("a", "2").Build()), ErrorCode::kCorrupt);
  const auto spoiled = [](auto spoil) {
    ZipBuilder one;
    one.Add("a", "text").Add("b", "more");
    spoil(one.records[1]);
    return CodeOf(one.Build());
  };
  EXPECT_EQ(spoiled([](auto& record) { record.flags = 1; }), ErrorCode::kUnsupported);
  EXPECT_EQ(spoiled([](auto& record) { record.method = 12; }), ErrorCode::kUnsupported);
  EXPECT_EQ(spoiled([](auto& record) { record.size = 5; }), ErrorCode::kCorrupt);
  EXPECT_EQ(spoiled([](auto& record) { record.local_offset = 0xfffffff0; }), ErrorCode::kCorrupt);
  EXPECT_EQ(spoiled([](auto& record) { record.name = ""; }), ErrorCode::kCorrupt);
}

TEST(ZipArchive, RefusesBombs) {
  const std::string zeros(50'000'000, '\0');
  EXPECT_EQ(CodeOf(ZipBuilder().Add("x", zeros, true).Build()), ErrorCode::kOutOfRange);
  // Many entries on the same bytes.
  ZipBuilder builder;
  builder.Add("x0", zeros.substr(0, 1'000'000), true);
  for (int i = 1; i < 100; ++i) {
    ZipBuilder::Record again = builder.records[0];
    again.name = "x" + std::to_string(i);
    builder.records.push_back(again);
  }
  EXPECT_EQ(CodeOf(builder.Build()), ErrorCode::kOutOfRange);
}

TEST(ZipArchive, SurvivesTruncationAndNoise) {
  const std::string file =
      ZipBuilder().Add("a", "text").Add("b", std::string(300, 'b'), true).Add("c", "").Build();
  const auto read_all = [](const std::string& bytes) {
    const auto zip = ZipArchive::Open(AsBytes(bytes));
    if (!zip) return;
    for (const std::string& name : zip->Names()) (void)zip->Read(name);
  };
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ZipArchive::Open(AsBytes(file.substr(0, size)))) << size;
  }
  Rng rng(1);
  for (int i = 0; i < 20000; ++i) {
    std::string noisy = file;
    for (int flips = 0; flips < 3; ++flips)
      noisy[rng.Next() % noisy.size()] = static_cast<char>(rng.Next() & 255);
    read_all(noisy);
  }
}

std::string LayeredFile(const std::string& config, const std::string& order = "little") {
  return ZipBuilder()
      .Add("m/archive_format", "pt2")
      .Add("m/archive_version", "0")
      .Add("m/byteorder", order)
      .Add("m/models/model.json", "{}")
      .Add("m/data/weights/weight_0", std::string(16, '\0'))
      .Add("m/data/weights/model_weights_config.json", config)
      .Build();
}

std::string WeightConfig(const std::string& path, const std::string& sizes,
                         const std::string& strides, int offset) {
  return R"({"config":{"w":{"path_name":")" + path +
         R"(","is_param":true,"use_pickle":false,"tensor_meta":{"dtype":7,"sizes":[)" + sizes +
         R"(],"strides":[)" + strides + R"(],"storage_offset":{"as_int":)" +
         std::to_string(offset) + "}}}}}";
}

TEST(Pt2Archive, ReadsWeightsThatLieInRecords) {
  const std::string file = LayeredFile(
      WeightConfig("weight_0", R"({"as_int":1},{"as_int":3})", R"({"as_int":3},{"as_int":1})", 1));
  const auto archive = OpenPt2Archive(AsBytes(file));
  ASSERT_TRUE(archive) << archive.error().message;
  const StridedTensor& tensor = archive->weights.at("w");
  EXPECT_EQ(tensor.dtype, DType::kF32);
  EXPECT_EQ(tensor.offset, 1);
  std::vector<std::byte> copy;
  const auto view = RowMajor(tensor, copy);
  ASSERT_TRUE(view) << view.error().message;
  EXPECT_EQ(view->bytes.data(), tensor.storage.data() + 4);
  EXPECT_TRUE(copy.empty());
}

TEST(Pt2Archive, RefusesWhatIsNotOne) {
  const auto code_of = [](const std::string& file) {
    const auto archive = OpenPt2Archive(AsBytes(file));
    return archive ? ErrorCode::kInternal : archive.error().code;
  };
  EXPECT_EQ(code_of(ZipBuilder().Add("x", "y").Build()), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of(LayeredFile("{}", "big")), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(LayeredFile("{}")), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of(LayeredFile(WeightConfig("../../etc/passwd", "", "", 0))),
            ErrorCode::kNotFound);
  EXPECT_EQ(
      code_of(
          ZipBuilder().Add("serialized_exported_program.json", "{}").Add("version", "9.0").Build()),
      ErrorCode::kUnsupported);
}

TEST(RowMajor, ChecksEveryElement) {
  const std::string storage(16, '\1');
  std::vector<std::byte> copy;
  const auto code_of = [&](std::vector<int64_t> shape, std::vector<int64_t> strides,
                           int64_t offset) {
    const auto view = RowMajor({"f", DType::kF32, shape, strides, offset, AsBytes(storage)}, copy);
    return view ? ErrorCode::kInternal : view.error().code;
  };
  EXPECT_EQ(code_of({2, 2}, {1, 2}, 0), ErrorCode::kInternal);  // fine: transposed
  EXPECT_EQ(copy.size(), 16u);
  EXPECT_EQ(code_of({2, 2}, {2, 1}, 1), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of({2, 2}, {2, 1}, -1), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of({2, 2}, {-2, 1}, 0), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of({-1}, {1}, 0), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of({INT64_MAX, INT64_MAX}, {1, 1}, 0), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of({2}, {INT64_MAX}, 2), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of({1000000}, {0}, 0), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of({0, 5}, {9, 9}, 0), ErrorCode::kInternal);
}

std::string SizeText(const std::string& text) {
  const auto size = ParseSizeExpression(
      text, [](const std::string& name) { return Result<Size>(Size::Symbol(name)); });
  return size ? size->ToString() : size.error().code == ErrorCode::kCorrupt ? "corrupt" : "refused";
}

TEST(SizeExpression, ReadsBothForms) {
  EXPECT_EQ(SizeText("2*s0 + 1"), "2*s0+1");
  EXPECT_EQ(SizeText("s0**2 - 3"), "s0*s0-3");
  EXPECT_EQ(SizeText("(4*s0)//2"), "2*s0");
  EXPECT_EQ(SizeText("-(s0 - 5)"), "-s0+5");
  EXPECT_EQ(SizeText("Symbol('s77', positive=True, integer=True)"), "s77");
  EXPECT_EQ(SizeText("Add(Mul(Integer(2), Symbol('s0', integer=True)), Integer(-1))"), "2*s0-1");
  EXPECT_EQ(SizeText("FloorDiv(Mul(Integer(6), Symbol('s0')), Integer(3))"), "2*s0");
  EXPECT_EQ(SizeText("Pow(Symbol('s0'), Integer(2))"), "s0*s0");
  EXPECT_EQ(SizeText("Max(1, s0)"), "s0");
  EXPECT_EQ(SizeText("FloorDiv(7, 2)"), "3");
  EXPECT_EQ(SizeText("Mod(-7, 4)"), "1");
}

TEST(SizeExpression, RefusesTheRest) {
  for (const char* text : {"s0//2", "s0/2", "Rational(1, 2)", "Mod(s0, 2)", "2**s0", "1//0",
                           "99999999999999999999", "9223372036854775807*s0*s0*4"})
    EXPECT_EQ(SizeText(text), "refused") << text;
  for (const char* text : {"", "s0 +", "(s0", "Symbol(s0)", "f(", "1 2", "$"})
    EXPECT_EQ(SizeText(text), "corrupt") << text;
  EXPECT_EQ(SizeText(std::string(3000, '(')), "corrupt");
  EXPECT_EQ(SizeText(std::string(3000, '-') + "1"), "corrupt");
}

}  // namespace
}  // namespace millpower::import::torch
