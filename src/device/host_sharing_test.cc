#include "device/host_sharing.h"

#include <gtest/gtest.h>

#include "isa/encoding.h"

namespace millpower::device {
namespace {

TEST(ProductParts, RowsAreCutWhereTheyKeepEveryThreadBusyAndTheWeightIsCached) {
  EXPECT_EQ(ProductParts(2, 15, 8, /*stay_cached=*/true), 1);
  EXPECT_EQ(ProductParts(2, 16, 8, /*stay_cached=*/true), 2);
  EXPECT_EQ(ProductParts(16, 100, 64, /*stay_cached=*/true), 1);
  EXPECT_EQ(ProductParts(16, 128, 64, /*stay_cached=*/true), 16);
}

TEST(ProductParts, AWeightFromMemoryIsReadOnceButForVeryManyRows) {
  EXPECT_EQ(ProductParts(2, 512, 8, /*stay_cached=*/false), 1);
  EXPECT_EQ(ProductParts(2, 768, 8, /*stay_cached=*/false), 8);
}

TEST(ProductParts, ANarrowWeightIsReadOftenerSoThatAllThreadsHaveSome) {
  EXPECT_EQ(ProductParts(4, 23, 1, /*stay_cached=*/false), 1);
  EXPECT_EQ(ProductParts(4, 48, 1, /*stay_cached=*/false), 2);
  EXPECT_EQ(ProductParts(4, 480, 1, /*stay_cached=*/false), 16);
  EXPECT_EQ(ProductParts(4, 480, 0, /*stay_cached=*/false), 16);
}

TEST(ProductParts, OneThreadCutsNothing) { EXPECT_EQ(ProductParts(1, 100'000, 8, true), 1); }

TEST(MatMulWeightBytes, CountsAWeightOnceHoweverOftenItIsMultipliedWith) {
  const auto program = isa::Parse(
      "program p\nregister rows 8\nsemaphores 0\nbuffer x input f32 rows [rows, 64]\n"
      "buffer w weight f32 packed [64, 64]\nbuffer table weight f32 table [100, 64]\n"
      "buffer y output f32 rows [rows, 64]\nstream compute\n"
      "  matmul x=x w=w y=y epilogue=none\n  matmul x=x w=w y=y epilogue=relu\n  end\n"
      "stream transfer\n  end\nstream link\n  end\n");
  ASSERT_TRUE(program) << program.error().message;
  EXPECT_EQ(MatMulWeightBytes(*program), 64 * 64 * 4);
}

}  // namespace
}  // namespace millpower::device
