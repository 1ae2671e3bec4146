#include "import/tensorflow/bundle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "import/tensorflow/tensor_proto.h"
#include "import/tensorflow/test_table.h"

namespace millpower::import {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::filesystem::path kData =
    std::filesystem::path(MILLPOWER_SOURCE_DIR) / "tests/saved_model_data";

template <typename T>
std::vector<T> Elements(std::span<const std::byte> bytes) {
  std::vector<T> elements(bytes.size() / sizeof(T));
  std::memcpy(elements.data(), bytes.data(), bytes.size());
  return elements;
}

std::string ErrorOf(const std::string& file) {
  const auto table = ReadTable(AsBytes(file));
  return table ? "" : table.error().message;
}

// ---- tables ----

TEST(Table, ReadsPlainAndCompressedBlocks) {
  TestTable table;
  for (int i = 0; i < 100; ++i)
    table.entries["layer/" + std::to_string(i)] = std::string(static_cast<size_t>(i), 'v');
  for (const bool compress : {false, true}) {
    table.compress = compress;
    const std::string file = table.File();
    const auto read = ReadTable(AsBytes(file));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(std::vector(read->begin(), read->end()),
              (std::vector<std::pair<const std::string, std::string>>(table.entries.begin(),
                                                                      table.entries.end())));
  }
}

// RFC 3720, B.4: 32 bytes of zeros; masked as LevelDB does.
TEST(Table, ChecksumIsCrc32c) {
  const std::vector<std::byte> zeros(32);
  const uint32_t crc = 0x8a9136aa;
  EXPECT_EQ(MaskedCrc32c(zeros), ((crc >> 15) | (crc << 17)) + 0xa282ead8u);
}

TEST(Table, EveryTruncationAndFlippedBitIsToldOrHarmless) {
  TestTable table;
  table.entries = {{"", "header"}, {"a", "1"}, {"ab", "22"}, {"b", "333"}};
  const std::string file = table.File();
  for (size_t size = 0; size < file.size(); ++size) EXPECT_NE(ErrorOf(file.substr(0, size)), "");
  int told = 0;
  for (size_t bit = 0; bit < 8 * file.size(); ++bit) {
    std::string flipped = file;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    told += ErrorOf(flipped).empty() ? 0 : 1;
  }
  // What is left: padding of the footer and the unused handle in it.
  EXPECT_GT(told, static_cast<int>(8 * (file.size() - 40)));
}

TEST(Table, RefusesWhatLiesOutsideOrOutOfOrder) {
  std::string file;
  const std::string block =
      TestTable::AddBlock(file, TestTable::WithRestarts(TestTable::Entry(0, "k", "v")), false);
  const auto with_index = [&](const std::string& entries) {
    std::string copy = file;
    const auto handle = TestTable::AddBlock(copy, TestTable::WithRestarts(entries), false);
    return TestTable::Finish(copy, handle);
  };
  EXPECT_EQ(ErrorOf(with_index(TestTable::Entry(0, "k", block))), "");
  EXPECT_THAT(ErrorOf(with_index(TestTable::Entry(0, "k", VarintText(1u << 30) + VarintText(9)))),
              HasSubstr("outside"));
  EXPECT_THAT(ErrorOf(with_index(
                  TestTable::Entry(0, "k", VarintText(~uint64_t{0}) + VarintText(~uint64_t{0})))),
              HasSubstr("outside"));
  // The same block twice would make a small file large.
  EXPECT_THAT(
      ErrorOf(with_index(TestTable::Entry(0, "k", block) + TestTable::Entry(0, "l", block))),
      HasSubstr("order"));
  EXPECT_THAT(ErrorOf(with_index(TestTable::Entry(5, "k", block))), HasSubstr("damaged"));
}

TEST(Table, RefusesBombs) {
  // A compressed block that says it is 4 GiB.
  std::string file;
  const std::string bomb = TestTable::AddRaw(file, VarintText(0xffffffff) + "\xff\xff\xff", 1);
  std::string index = TestTable::Entry(0, "k", bomb);
  std::string handle = TestTable::AddBlock(file, TestTable::WithRestarts(index), false);
  EXPECT_THAT(ErrorOf(TestTable::Finish(file, handle)), HasSubstr("too large"));

  // Each entry of four bytes shares a key of 100 kB with the one before.
  std::string entries = TestTable::Entry(0, std::string(100'000, 'k'), "");
  for (int i = 0; i < 2000; ++i)
    entries += TestTable::Entry(100'000 + static_cast<uint64_t>(i), "k", "");
  file.clear();
  index =
      TestTable::Entry(0, "k", TestTable::AddBlock(file, TestTable::WithRestarts(entries), false));
  handle = TestTable::AddBlock(file, TestTable::WithRestarts(index), false);
  EXPECT_THAT(ErrorOf(TestTable::Finish(file, handle)), HasSubstr("too long"));
}

// ---- bundles ----

TEST(Bundle, AssemblesPartsThatTensorFlowWrote) {
  const auto bundle = Bundle::Open(kData / "partitioned");
  ASSERT_TRUE(bundle) << bundle.error().message;
  EXPECT_THAT((*bundle)->Keys(), ElementsAre("columns", "far", "plain", "rows"));

  std::vector<float> whole(24);
  std::iota(whole.begin(), whole.end(), 0.0f);
  const auto rows = (*bundle)->Bytes("rows");
  ASSERT_TRUE(rows) << rows.error().message;
  EXPECT_EQ(Elements<float>(*rows), whole);
  const auto columns = (*bundle)->Bytes("columns");
  ASSERT_TRUE(columns) << columns.error().message;
  for (float& value : whole) value += 100;
  EXPECT_EQ(Elements<float>(*columns), whole);
  EXPECT_EQ((*bundle)->Bytes("columns")->data(), columns->data()) << "made twice";

  std::vector<int32_t> far(300);
  std::iota(far.begin(), far.end(), 0);
  const auto parts = (*bundle)->Bytes("far");
  ASSERT_TRUE(parts) << parts.error().message;
  EXPECT_EQ(Elements<int32_t>(*parts), far);
  EXPECT_THAT((*bundle)->Describe("far")->shape, ElementsAre(300, 1));
  EXPECT_EQ((*bundle)->Bytes("none").error().code, ErrorCode::kNotFound);
}

TEST(Bundle, ReadsTheGraphOfObjects) {
  const auto bundle = Bundle::Open(kData / "tiny/variables/variables");
  ASSERT_TRUE(bundle) << bundle.error().message;
  const auto text = (*bundle)->String("_CHECKPOINTABLE_OBJECT_GRAPH");
  ASSERT_TRUE(text) << text.error().message;
  tensorflow::CheckpointedObjects objects;
  ASSERT_TRUE(objects.ParseFromString(*text));
  EXPECT_GT(objects.nodes_size(), 3);
}

// tensorflow/core/lib/strings/ordered_code_test.cc has these encodings of signed numbers.
TEST(Bundle, PartKeysSortAsNumbersDo) {
  std::string before;
  for (const int64_t start : {-70'000, -65, -64, -1, 0, 1, 63, 64, 8191, 8192, 1 << 30}) {
    const std::string key = SliceKey("name", {{start, 1}});
    EXPECT_LT(before, key) << start;
    before = key;
  }
  EXPECT_EQ(SliceKey("a", {{0, -1}}), std::string("\0a\0\1\1\1\x80\x7f", 8));
}

TEST(Bundle, ReadsPartsOfTensors) {
  const auto spec = ParseSliceSpec("100 8 10,50:-");
  ASSERT_TRUE(spec);
  EXPECT_THAT(spec->shape, ElementsAre(100, 8));
  EXPECT_EQ(spec->region, (Region{{10, 50}, {0, 8}}));
  for (const char* text : {"", "100", "100 8 10,50", "100 8 60,50:-", "100 -8 0,1:-", "1 0,1:0,1",
                           "9 0,99999999999999999999", "4 0;4"})
    EXPECT_FALSE(ParseSliceSpec(text)) << text;
}

class MadeBundle : public ::testing::Test {
 protected:
  static tensorflow::BundleEntry Entry(const std::string& data, std::vector<int64_t> shape) {
    tensorflow::BundleEntry entry;
    entry.set_dtype(1);
    for (const int64_t size : shape) entry.mutable_shape()->add_dim()->set_size(size);
    entry.set_size(static_cast<int64_t>(data.size()));
    entry.set_crc32c(MaskedCrc32c(AsBytes(data)));
    return entry;
  }

  std::string ErrorOf(const std::string& key) {
    tensorflow::BundleHeader header;
    header.set_num_shards(1);
    table_.entries[""] = header.SerializeAsString();
    const std::string index = table_.File();
    const auto bundle = Bundle::Parse(AsBytes(index), {AsBytes(data_)});
    if (!bundle) return bundle.error().message;
    const auto bytes = (*bundle)->Bytes(key);
    return bytes ? "" : bytes.error().message;
  }
  std::string ErrorOf(const tensorflow::BundleEntry& entry) {
    table_.entries["x"] = entry.SerializeAsString();
    return ErrorOf("x");
  }

  std::string data_ = std::string(16, 'd');
  TestTable table_;
};

TEST_F(MadeBundle, RefusesEntriesThatDoNotFit) {
  const auto sound = Entry(data_, {2, 2});
  EXPECT_EQ(ErrorOf(sound), "");
  auto entry = sound;
  entry.set_crc32c(1);
  EXPECT_THAT(ErrorOf(entry), HasSubstr("checksum"));
  for (const int64_t offset : {int64_t{1}, int64_t{-1}, INT64_MAX}) {
    entry = sound;
    entry.set_offset(offset);
    EXPECT_THAT(ErrorOf(entry), HasSubstr("outside"));
  }
  for (const int shard : {1, -1}) {
    entry = sound;
    entry.set_shard_id(shard);
    EXPECT_THAT(ErrorOf(entry), HasSubstr("lies in file"));
  }
  EXPECT_THAT(ErrorOf(Entry(data_, {2, 3})), HasSubstr("16 bytes for 6"));
  EXPECT_THAT(ErrorOf(Entry(data_, {-1, 4})), HasSubstr("impossible"));
  EXPECT_THAT(ErrorOf(Entry(data_, {1 << 30, 1 << 30, 1 << 30})), HasSubstr("impossible"));
  EXPECT_THAT(ErrorOf(Entry(data_, {1, 1, 1, 1, 1, 1, 1, 2, 2})), HasSubstr("9 dimensions"));
  entry = sound;
  entry.set_dtype(kTypeString);
  EXPECT_THAT(ErrorOf(entry), HasSubstr("DT_STRING"));
}

TEST_F(MadeBundle, RefusesPartsThatOverlapOrAreMissing) {
  tensorflow::BundleEntry whole = Entry(data_, {4, 1});
  const auto add = [&](int64_t start, int64_t length) {
    auto* slice = whole.add_slices();
    slice->add_extent()->set_start(start);
    slice->mutable_extent(0)->set_length(length);
    slice->add_extent();
    auto part = Entry(data_.substr(static_cast<size_t>(4 * start), static_cast<size_t>(4 * length)),
                      {length, 1});
    part.set_offset(4 * start);
    table_.entries[SliceKey("x", {{start, length}, {0, -1}})] = part.SerializeAsString();
  };
  add(0, 2);
  EXPECT_THAT(ErrorOf(whole), HasSubstr("all of its parts"));
  add(2, 2);
  EXPECT_EQ(ErrorOf(whole), "");
  add(1, 2);
  EXPECT_THAT(ErrorOf(whole), HasSubstr("overlap"));
  whole.mutable_slices()->RemoveLast();
  whole.mutable_slices(1)->mutable_extent(0)->set_length(3);
  EXPECT_THAT(ErrorOf(whole), HasSubstr("outside"));
  whole.mutable_slices(1)->mutable_extent(0)->set_length(1);
  EXPECT_THAT(ErrorOf(whole), HasSubstr("no tensor"));
}

TEST_F(MadeBundle, RefusesToMakeMuchOfFewBytes) {
  tensorflow::BundleEntry whole = Entry(data_, {8, 1});
  for (const int64_t start : {0, 4}) {
    auto* slice = whole.add_slices();
    slice->add_extent()->set_start(start);
    slice->mutable_extent(0)->set_length(4);
    slice->add_extent();
    // Both are the same 16 bytes.
    table_.entries[SliceKey("x", {{start, 4}, {0, -1}})] = Entry(data_, {4, 1}).SerializeAsString();
  }
  EXPECT_THAT(ErrorOf(whole), HasSubstr("are others, too"));
}

}  // namespace
}  // namespace millpower::import
