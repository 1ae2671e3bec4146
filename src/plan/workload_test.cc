#include "plan/workload.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace millpower::plan {
namespace {

class Trace : public testing::Test {
 protected:
  Result<Workload> Read(const std::string& text) {
    const auto path = std::filesystem::path(testing::TempDir()) / "trace.csv";
    std::ofstream(path) << text;
    return ReadTrace(path);
  }
};

TEST_F(Trace, IsSortedByTime) {
  const auto workload =
      Read("at_s,input,output,prefix_group,prefix_tokens\n2,10,5,1,4\n0.5,7,3,-1,0\n");
  ASSERT_TRUE(workload) << workload.error().message;
  ASSERT_EQ(workload->requests.size(), 2u);
  EXPECT_EQ(workload->concurrency, 0);
  EXPECT_DOUBLE_EQ(workload->requests[0].at_s, 0.5);
  EXPECT_EQ(workload->requests[0].prefix_group, -1);
  EXPECT_EQ(workload->requests[1].input, 10);
  EXPECT_EQ(workload->requests[1].prefix_tokens, 4);
}

TEST_F(Trace, NamesLineAndColumn) {
  const auto message = [&](const std::string& text) {
    const auto workload = Read(text);
    return workload ? std::string() : workload.error().message;
  };
  EXPECT_NE(message("at_s,input\n1,2\n").find("no column 'output'"), std::string::npos);
  EXPECT_NE(message("at_s,input,output\n1,2,3\n1,x,3\n").find(":3: input is 'x'"),
            std::string::npos);
  EXPECT_NE(message("at_s,input,output\n-1,2,3\n").find("at_s is '-1'"), std::string::npos);
  EXPECT_NE(message("at_s,input,output\nnan,2,3\n").find("at_s is 'nan'"), std::string::npos);
  EXPECT_NE(message("at_s,input,output\n1,2\n").find("output is ''"), std::string::npos);
  EXPECT_NE(message("").find("header"), std::string::npos);
  EXPECT_NE(message("at_s,input,output\n").find("no requests"), std::string::npos);
}

TEST(Workload, PoissonGapsHaveTheirMean) {
  const Workload workload = PoissonArrivals(50, 20000, 8, 8, 3);
  EXPECT_NEAR(workload.requests.back().at_s, 20000 / 50.0, 0.05 * 400);
  for (size_t i = 1; i < workload.requests.size(); ++i)
    EXPECT_GE(workload.requests[i].at_s, workload.requests[i - 1].at_s);
}

}  // namespace
}  // namespace millpower::plan
