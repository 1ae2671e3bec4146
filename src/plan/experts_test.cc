#include "plan/experts.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace millpower::plan {
namespace {

class ExpertsFile : public testing::Test {
 protected:
  Result<std::vector<double>> Read(const std::string& text) {
    std::ofstream(path_) << text;
    return ReadExpertShares(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("experts_test" + std::to_string(::getpid()));
};

// Of layers whose most popular experts are different ones.
TEST_F(ExpertsFile, SharesAreByPopularity) {
  const auto shares = Read(RecordedExperts({{10, 30, 0, 60}, {50, 0, 50, 0}}));
  ASSERT_TRUE(shares) << shares.error().message;
  ASSERT_EQ(shares->size(), 4u);
  EXPECT_DOUBLE_EQ((*shares)[0], 0.55);
  EXPECT_DOUBLE_EQ((*shares)[1], 0.4);
  EXPECT_DOUBLE_EQ((*shares)[2], 0.05);
  EXPECT_DOUBLE_EQ((*shares)[3], 0);
}

TEST_F(ExpertsFile, RefusesWhatIsNone) {
  for (const char* text :
       {"", "[]", "{}", R"({"experts": []})", R"({"experts": [[]]})", R"({"experts": [[0, 0]]})",
        R"({"experts": [[1, -1]]})", R"({"experts": [[1, "x"]]})", R"({"experts": [[1, 2], [1]]})",
        R"({"experts": 3})"}) {
    const auto shares = Read(text);
    ASSERT_FALSE(shares) << text;
    EXPECT_NE(shares.error().message.find("--record-experts"), std::string::npos) << text;
  }
  std::filesystem::remove(path_);
  EXPECT_FALSE(ReadExpertShares(path_));
}

}  // namespace
}  // namespace millpower::plan
