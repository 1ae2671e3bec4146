#include "ledger/reports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millpower::ledger {
namespace {

using testing::HasSubstr;
using testing::Not;

Directory MakeDirectory(const std::string& tenant_name = "Acme",
                        const std::string& project_name = "web") {
  return Directory("EUR", {{.number = 1, .id = "ten_1", .name = tenant_name, .bounds = {}}},
                   {{.number = 2, .id = "proj_1", .name = project_name, .tenant = 1, .bounds = {}}},
                   {{.number = 3,
                     .id = "key_1",
                     .name = "k",
                     .tenant = 1,
                     .project = 2,
                     .prefix = "p",
                     .hash = "h",
                     .models = {},
                     .endpoints = {},
                     .bounds = {}}},
                   {}, {});
}

UsageGroup MakeGroup() {
  return {.tenant = 1,
          .project = 2,
          .key = 3,
          .model = "qwen3",
          .tier = Tier::kBatch,
          .day = 20'000,
          .requests = 4,
          .quantities = {10, 20, 30, 0, 0, 1'500'000, 0, 250'000},
          .amount = 12'500'000,
          .energy_uj = 2'000'001,
          .co2e_ug = 5,
          .energy_origin = Origin::kModelled};
}

TEST(UsageReport, SaysIdsAndNamesInTheOrderAskedFor) {
  const UsageReport report{.group_by = {GroupBy::kDay, GroupBy::kTenant, GroupBy::kProject,
                                        GroupBy::kKey, GroupBy::kModel, GroupBy::kTier},
                           .groups = {MakeGroup()}};
  const Directory directory = MakeDirectory();
  EXPECT_EQ(
      DumpJson(UsageJson(report, directory)),
      R"({"object":"list","currency":"EUR","group_by":["day","tenant","project","key","model","tier"],)"
      R"("data":[{"day":"2024-10-04","tenant":"ten_1","tenant_name":"Acme","project":"proj_1",)"
      R"("project_name":"web","key":"key_1","key_name":"k","model":"qwen3","tier":"batch",)"
      R"("requests":4,"input_tokens":10,"cached_tokens":20,"output_tokens":30,"inferences":0,)"
      R"("candidates":0,"chip_seconds":1.5,"joules":0.0,"share_hours":0.25,"amount":"12.50",)"
      R"("energy_j":2.000001,"gco2e":5e-06,"energy_source":"modelled"}]})");
  EXPECT_EQ(UsageCsv(report, directory),
            "day,tenant,tenant_name,project,project_name,key,key_name,model,tier,requests,"
            "input_tokens,cached_tokens,output_tokens,inferences,candidates,chip_seconds,joules,"
            "share_hours,amount,currency,energy_j,gco2e,energy_source\r\n"
            "2024-10-04,ten_1,Acme,proj_1,web,key_1,k,qwen3,batch,4,10,20,30,0,0,1.5,0,0.25,12.50,"
            "EUR,2.000001,0.000005,modelled\r\n");
}

TEST(UsageReport, TotalsHaveNoNames) {
  const UsageReport report{.group_by = {}, .groups = {MakeGroup()}};
  const Json json = UsageJson(report, MakeDirectory());
  EXPECT_EQ(json["data"][0].begin().key(), "requests");
  EXPECT_THAT(UsageCsv(report, MakeDirectory()), testing::StartsWith("requests,input_tokens"));
  EXPECT_EQ(UsageJson({}, MakeDirectory())["data"], Json::array());
}

TEST(UsageReport, ALeaseHasNoProjectKeyOrModel) {
  UsageGroup lease = MakeGroup();
  lease.project = lease.key = 0;
  lease.model = "";
  lease.amount = -2'000'000;
  const UsageReport report{.group_by = {GroupBy::kProject, GroupBy::kKey, GroupBy::kModel},
                           .groups = {lease}};
  const Json row = UsageJson(report, MakeDirectory())["data"][0];
  for (const char* name : {"project", "project_name", "key", "key_name", "model"})
    EXPECT_TRUE(row[name].is_null()) << name;
  EXPECT_EQ(row["amount"], "-2.00");
  EXPECT_THAT(UsageCsv(report, MakeDirectory()), HasSubstr("\r\n,,,,,4,10,"));
  // Numbers may begin with a minus; they are no formulas.
  EXPECT_THAT(UsageCsv(report, MakeDirectory()), HasSubstr(",-2.00,EUR,"));
}

TEST(UsageReport, CsvQuotesAndDefusesFormulas) {
  const auto field = [](const std::string& name) {
    const UsageReport report{.group_by = {GroupBy::kTenant}, .groups = {MakeGroup()}};
    const std::string csv = UsageCsv(report, MakeDirectory(name));
    const size_t start = csv.find("ten_1,") + 6;
    return csv.substr(start, csv.rfind(",4,10,") - start);
  };
  EXPECT_EQ(field("plain"), "plain");
  EXPECT_EQ(field("a,b"), "\"a,b\"");
  EXPECT_EQ(field("say \"hi\""), "\"say \"\"hi\"\"\"");
  EXPECT_EQ(field("two\nlines"), "\"two\nlines\"");
  EXPECT_EQ(field("=HYPERLINK(\"http://x\",1)"), "\"'=HYPERLINK(\"\"http://x\"\",1)\"");
  EXPECT_EQ(field("+1"), "'+1");
  EXPECT_EQ(field("-1"), "'-1");
  EXPECT_EQ(field("@SUM(A1)"), "'@SUM(A1)");
  EXPECT_EQ(field("\t=1"), "'\t=1");
  EXPECT_EQ(field("\r=1"), "\"'\r=1\"");
  EXPECT_EQ(field("a=b"), "a=b");
}

TEST(UsageReport, KnowsItsGroupsByName) {
  for (const char* name : {"tenant", "project", "key", "model", "day", "tier"}) {
    ASSERT_TRUE(GroupByFromName(name)) << name;
    EXPECT_STREQ(Name(*GroupByFromName(name)), name);
  }
  EXPECT_FALSE(GroupByFromName("Tenant"));
  EXPECT_FALSE(GroupByFromName(""));
}

TEST(Reports, FormatsDaysAndQuantities) {
  EXPECT_EQ(FormatDay(0), "1970-01-01");
  EXPECT_EQ(FormatDay(19'782), "2024-02-29");
  EXPECT_EQ(FormatDay(-1), "1969-12-31");
  EXPECT_EQ(FormatDay(2'932'896), "9999-12-31");
  EXPECT_EQ(FormatDay(2'932'897), "2932897");
  EXPECT_EQ(FormatDay(INT64_MIN), "-9223372036854775808");
  EXPECT_EQ(FormatQuantity(Unit::kOutputToken, 1'000'000), "1000000");
  EXPECT_EQ(FormatQuantity(Unit::kShareHour, 1'000'000), "1");
  EXPECT_EQ(FormatQuantity(Unit::kShareHour, 100'000'000), "100");
  EXPECT_EQ(FormatQuantity(Unit::kChipSecond, 1), "0.000001");
  EXPECT_EQ(FormatQuantity(Unit::kJoule, -1'250'000), "-1.25");
}

TEST(Reports, ParsesMonths) {
  const auto november = ParseMonth("2026-11");
  ASSERT_TRUE(november);
  EXPECT_EQ(november->from, 1'793'491'200);
  EXPECT_EQ(november->to - november->from, 30 * 86400);
  EXPECT_EQ(ParseMonth("2024-02")->to - ParseMonth("2024-02")->from, 29 * 86400);
  EXPECT_EQ(ParseMonth("2100-02")->to - ParseMonth("2100-02")->from, 28 * 86400);
  EXPECT_EQ(ParseMonth("2025-12")->to, ParseMonth("2026-01")->from);
  EXPECT_EQ(ParseMonth("1970-01")->from, 0);
  EXPECT_TRUE(ParseMonth("9999-12"));
  for (const char* text : {"", "2026", "2026-1", "2026-00", "2026-13", "1969-12", "2026/11",
                           "2026-11-01", "-026-11", "2026-+1", " 2026-1", "20261-1"})
    EXPECT_FALSE(ParseMonth(text)) << text;
}

// ---- Invoices

Invoice MakeInvoice() {
  return {.number = "ten_1-2026-11",
          .tenant = {.number = 1, .id = "ten_1", .name = "Acme", .bounds = {}},
          .currency = "EUR",
          .from = ParseMonth("2026-11")->from,
          .to = ParseMonth("2026-11")->to,
          .lines = {{.project = 2,
                     .model = "qwen3",
                     .unit = Unit::kInputToken,
                     .price = 20,
                     .rate = 500'000,
                     .quantity = 1'234'567,
                     .amount = 617'284,
                     .requests = 12,
                     .first_request_id = "chatcmpl-a",
                     .last_request_id = "chatcmpl-b"},
                    {.project = 2,
                     .model = "qwen3",
                     .unit = Unit::kOutputToken,
                     .price = 21,
                     .rate = 2'000'000,
                     .quantity = 1,
                     .amount = 2,
                     .requests = 1,
                     .first_request_id = "chatcmpl-a",
                     .last_request_id = "chatcmpl-a"},
                    {.model = "",
                     .tier = Tier::kLease,
                     .unit = Unit::kShareHour,
                     .price = 22,
                     .rate = 4'000'000,
                     .quantity = 250'000,
                     .amount = 1'000'000,
                     .requests = 1,
                     .first_request_id = "lease_1",
                     .last_request_id = "lease_1"}},
          .total = 1'617'286};
}

TEST(Invoice, AsJson) {
  EXPECT_EQ(
      DumpJson(InvoiceJson(MakeInvoice(), MakeDirectory())),
      R"({"object":"invoice","id":"ten_1-2026-11","tenant":{"id":"ten_1","name":"Acme"},)"
      R"("month":"2026-11","from":1793491200,"to":1796083200,"status":"final","currency":"EUR",)"
      R"("lines":[{"project":"proj_1","project_name":"web","model":"qwen3","tier":"on_demand",)"
      R"("unit":"input_token","price":20,"rate":"0.50","rate_per":"million input tokens",)"
      R"("quantity":1234567,"amount":"0.617284","requests":12,"first_request_id":"chatcmpl-a",)"
      R"("last_request_id":"chatcmpl-b"},{"project":"proj_1","project_name":"web",)"
      R"("model":"qwen3","tier":"on_demand","unit":"output_token","price":21,"rate":"2.00",)"
      R"("rate_per":"million output tokens","quantity":1,"amount":"0.000002","requests":1,)"
      R"("first_request_id":"chatcmpl-a","last_request_id":"chatcmpl-a"},{"project":null,)"
      R"("project_name":null,"model":null,"tier":"lease","unit":"share_hour","price":22,)"
      R"("rate":"4.00","rate_per":"share-hour","quantity":0.25,"amount":"1.00","requests":1,)"
      R"("first_request_id":"lease_1","last_request_id":"lease_1"}],"total":"1.617286"})");
}

TEST(Invoice, AsText) {
  EXPECT_EQ(InvoiceText(MakeInvoice(), MakeDirectory()),
            R"(Invoice   ten_1-2026-11
Tenant    Acme (ten_1)
Period    2026-11-01 to 2026-11-30
Status    final
Currency  EUR

web (proj_1): qwen3, on demand
             1,234,567 input tokens                          0.617284
                       at 0.50 EUR per million input tokens; 12 requests: chatcmpl-a to chatcmpl-b
                     1 output tokens                         0.000002
                       at 2.00 EUR per million output tokens; 1 request: chatcmpl-a

capacity lease
                  0.25 share-hours                               1.00
                       at 4.00 EUR per share-hour; 1 request: lease_1

  Total                                                      1.617286 EUR

Each request's quantity is charged on its own, rounded up to a millionth of a unit of the currency. Times are UTC.
)");
}

TEST(Invoice, OfNothing) {
  Invoice invoice = MakeInvoice();
  invoice.lines.clear();
  invoice.total = 0;
  invoice.is_open = true;
  EXPECT_EQ(InvoiceJson(invoice, MakeDirectory())["status"], "open");
  EXPECT_THAT(InvoiceText(invoice, MakeDirectory()), HasSubstr("preliminary"));
  EXPECT_THAT(InvoiceText(invoice, MakeDirectory()), HasSubstr("Nothing was used."));
  EXPECT_THAT(InvoiceHtml(invoice, MakeDirectory()), HasSubstr("Nothing was used."));
}

TEST(Invoice, HtmlEscapesEverythingAndLoadsNothing) {
  const std::string evil = "<script>alert('x')</script>\"&\x1b[2J";
  Invoice invoice = MakeInvoice();
  invoice.number += evil;
  invoice.tenant.name = evil;
  invoice.currency = evil;
  for (InvoiceLine& line : invoice.lines) {
    line.first_request_id = line.last_request_id = evil;
    if (!line.model.empty()) line.model = evil;
  }
  const std::string html = InvoiceHtml(invoice, MakeDirectory(evil, evil));
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("alert('x')")));
  EXPECT_THAT(html, Not(HasSubstr("\x1b")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;?[2J"));
  for (const char* loads : {"src=", "href=", "url(", "@import", "http:", "https:"})
    EXPECT_THAT(html, Not(HasSubstr(loads))) << loads;
  const std::string plain = InvoiceHtml(MakeInvoice(), MakeDirectory());
  EXPECT_THAT(plain, HasSubstr("1,234,567 input tokens"));
  EXPECT_THAT(plain, HasSubstr("1.617286 EUR"));
  EXPECT_THAT(plain, HasSubstr("chatcmpl-a to chatcmpl-b"));
}

TEST(Invoice, NamesCantForgeLinesOfText) {
  Invoice invoice = MakeInvoice();
  invoice.tenant.name = "Acme\n\n  Total  0.00 EUR\r\x7f\xc2\x85 caf\xc3\xa9";
  const std::string text = InvoiceText(invoice, MakeDirectory());
  EXPECT_THAT(text, HasSubstr("Tenant    Acme??  Total  0.00 EUR??? caf\xc3\xa9 (ten_1)\n"));
}

}  // namespace
}  // namespace millpower::ledger
