#include "serve/inference/compression.h"

#include <gtest/gtest.h>

namespace millpower::serve {
namespace {

TEST(CompressionTest, IsUndone) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += std::to_string(i * 7919 % 1000);
  for (const Coding coding : {Coding::kGzip, Coding::kDeflate})
    for (const std::string& each : {text, std::string(), std::string("x")}) {
      const std::string packed = Compress(each, coding);
      EXPECT_EQ(Decompress(packed, coding, text.size()).value(), each) << Name(coding);
    }
  EXPECT_LT(Compress(text, Coding::kGzip).size(), text.size() / 2);
}

TEST(CompressionTest, IsBounded) {
  const std::string bomb = Compress(std::string(64 << 20, '\0'), Coding::kGzip);
  EXPECT_LT(bomb.size(), 1u << 20);
  EXPECT_EQ(Decompress(bomb, Coding::kGzip, 1 << 20).error().code, ErrorCode::kOutOfRange);
  const std::string exact = Compress(std::string(1000, 'x'), Coding::kDeflate);
  EXPECT_TRUE(Decompress(exact, Coding::kDeflate, 1000));
  EXPECT_FALSE(Decompress(exact, Coding::kDeflate, 999));
}

TEST(CompressionTest, RefusesWhatIsBroken) {
  const std::string packed = Compress(std::string(1000, 'x'), Coding::kGzip);
  const auto fails = [](std::string bytes, Coding coding = Coding::kGzip) {
    const auto unpacked = Decompress(bytes, coding, 1 << 20);
    return !unpacked && unpacked.error().code == ErrorCode::kInvalidArgument;
  };
  EXPECT_TRUE(fails(""));
  EXPECT_TRUE(fails("nonsense"));
  EXPECT_TRUE(fails(packed, Coding::kDeflate));
  EXPECT_TRUE(fails(packed + "more"));
  for (size_t size = 0; size < packed.size(); ++size) EXPECT_TRUE(fails(packed.substr(0, size)));
}

TEST(CompressionTest, ReadsHeaders) {
  EXPECT_EQ(ReadCoding("").value(), Coding::kIdentity);
  EXPECT_EQ(ReadCoding(" GZip ").value(), Coding::kGzip);
  EXPECT_EQ(ReadCoding("deflate").value(), Coding::kDeflate);
  EXPECT_FALSE(ReadCoding("br"));
  EXPECT_FALSE(ReadCoding("gzip, gzip"));
  EXPECT_EQ(ChooseCoding(""), Coding::kIdentity);
  EXPECT_EQ(ChooseCoding("br, deflate"), Coding::kDeflate);
  EXPECT_EQ(ChooseCoding("deflate,gzip;q=0.5"), Coding::kGzip);
  EXPECT_EQ(ChooseCoding("gzip;q=0, deflate;q=1"), Coding::kDeflate);
  EXPECT_EQ(ChooseCoding("identity;q=1, *;q=0"), Coding::kIdentity);
}

}  // namespace
}  // namespace millpower::serve
