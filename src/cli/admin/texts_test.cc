#include "cli/admin/texts.h"

#include <gtest/gtest.h>

#include "cli/admin/client.h"

namespace millpower::cli::admin {
namespace {

Json Object(const char* text) { return ParseJson(text).value(); }

TEST(Texts, DurationsHaveAUnit) {
  EXPECT_EQ(ParseDuration("45s").value(), 45);
  EXPECT_EQ(ParseDuration("30m").value(), 1800);
  EXPECT_EQ(ParseDuration("12h").value(), 43'200);
  EXPECT_EQ(ParseDuration("90d").value(), 7'776'000);
  EXPECT_EQ(ParseDuration("2w").value(), 1'209'600);
  for (const char* text : {"", "90", "d", "0d", "-1d", "1.5h", "1h30m", "1 h", "9y",
                           "9223372036854775807w", "99999999999999999999s"})
    EXPECT_FALSE(ParseDuration(text)) << text;
}

TEST(Texts, CapsAreAsTheApiTakesThem) {
  EXPECT_EQ(ParseCap("month:money:50.00").value(),
            Object(R"({"period": "month", "measure": "money", "limit": "50.00"})"));
  EXPECT_EQ(ParseCap("day:tokens:1000000").value(),
            Object(R"({"period": "day", "measure": "tokens", "limit": 1000000})"));
  for (const char* text : {"", "month", "month:money", "day:tokens:", "day:tokens:5x",
                           "day:tokens:1.5", "day:bytes:5"})
    EXPECT_FALSE(ParseCap(text)) << text;
}

TEST(Texts, SharesAreParts) {
  EXPECT_EQ(ParseShare("25%").value(), 0.25);
  EXPECT_EQ(ParseShare("0.25").value(), 0.25);
  for (const char* text : {"", "%", "x", "25 %", "25pct"}) EXPECT_FALSE(ParseShare(text)) << text;
}

TEST(Texts, BoundsAddOnlyWhatIsGiven) {
  Json body = Json::object();
  EXPECT_TRUE(AddBounds({}, body));
  EXPECT_EQ(body, Json::object());
  BoundsFlags flags;
  flags.caps = {"none"};
  flags.tokens_per_minute = 0;
  EXPECT_TRUE(AddBounds(flags, body));
  EXPECT_EQ(body, Object(R"({"caps": [], "limits": {"tokens_per_minute": 0}})"));
  flags.caps = {"none", "day:money:1"};  // one or the other
  EXPECT_FALSE(AddBounds(flags, body));
}

TEST(Texts, ReadAsPeopleSay) {
  EXPECT_EQ(FormatTime(Json(1'795'547'486)), "2026-11-24 19:11:26");
  EXPECT_EQ(FormatTime(Json()), "never");
  EXPECT_EQ(FormatCaps(Object(R"([{"period": "month", "measure": "money", "limit": "5.00"},
                                  {"period": "total", "measure": "tokens", "limit": 9}])")),
            "5.00 a month, 9 tokens in all");
  EXPECT_EQ(FormatCaps(Json::array()), "none");
  EXPECT_EQ(FormatLimits(Object(R"({"requests_per_minute": 60, "tokens_per_minute": null,
                                    "concurrent_requests": 8})")),
            "60 requests a minute, 8 at a time");
  EXPECT_EQ(FormatLimits(Json::object()), "none");
}

TEST(Texts, TablesAreAligned) {
  Table table({{"NAME"}, {"COUNT", true}, {"LAST"}});
  table.Add({"Müller", "5", "x"});
  table.Add({"a longer name", "12345678", ""});
  EXPECT_EQ(table.Text(),
            "NAME              COUNT  LAST\n"
            "Müller                5  x\n"
            "a longer name  12345678\n");
}

TEST(Texts, CellsShowWhatIsThere) {
  const Json object = Object(R"({"a": "x", "b": 5, "c": null, "d": true})");
  EXPECT_EQ(Cell(object, "a"), "x");
  EXPECT_EQ(Cell(object, "b"), "5");
  EXPECT_EQ(Cell(object, "c"), "-");
  EXPECT_EQ(Cell(object, "d"), "yes");
  EXPECT_EQ(Cell(object, "e"), "-");
}

TEST(Client, QueriesAreEncoded) {
  EXPECT_EQ(QueryOf({{"a", ""}}), "");
  EXPECT_EQ(QueryOf({{"a", ""}, {"b", "x y&z"}, {"c", "ü"}}), "?b=x%20y%26z&c=%C3%BC");
}

}  // namespace
}  // namespace millpower::cli::admin
