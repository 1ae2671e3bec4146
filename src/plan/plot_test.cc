#include "plan/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace millpower::plan {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Plot, EscapesTextsAndLeavesOutWhatHasNoPlace) {
  Plot plot{"a < b & \"c\"", "", "x", "y", {}};
  plot.lines.push_back({"one", {{1, 2, 1, 2, 1, 2, "first"}, {0, 2, 0, 2, 0, 2, "zero"}}});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  plot.lines.push_back({"none", {{nan, 1, 1, 1, 1, 1, "nan"}}});
  const std::string svg = ToSvg(plot);
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; &quot;c&quot;"));
  EXPECT_THAT(svg, HasSubstr("<title>first</title>"));
  for (const char* absent : {"zero", ">none<", "nan\"", "<polygon"})
    EXPECT_THAT(svg, Not(HasSubstr(absent)));
}

TEST(Plot, ShadesRanges) {
  Plot plot{"", "", "", "", {}};
  plot.lines.push_back({"one", {{1, 2, 0.5, 1, 2, 4, ""}, {2, 4, 1, 2, 4, 8, ""}}});
  EXPECT_THAT(ToSvg(plot), HasSubstr("<polygon"));
  EXPECT_THAT(ToSvg({}), HasSubstr("nothing to show"));
}

}  // namespace
}  // namespace millpower::plan
