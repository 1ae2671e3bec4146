#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "cli/admin/menu.h"
#include "cli/admin/texts.h"

namespace millpower::cli::admin {
namespace {

const std::string kInvoices = "/admin/v1/invoices";

struct Flags {
  std::string tenant, month, format = "text", output;
};

std::string List(const Json& answer) {
  Table table({{"TENANT"}, {"MONTH"}, {"TOTAL", true}, {"STATE"}, {"NUMBER"}});
  for (const Json& invoice : answer.value("data", Json::array()))
    table.Add({Cell(invoice, "tenant_name"), Cell(invoice, "month"),
               Cell(invoice, "total") + " " + Cell(invoice, "currency"),
               invoice.value("open", false) ? "open" : "closed", Cell(invoice, "number")});
  return table.Text();
}

Result<void> Show(const Menu::Call& call, const Flags& flags) {
  if (flags.tenant.empty() || flags.month.empty())
    return Fail(ErrorCode::kInvalidArgument,
                "give a tenant and a month, such as acme 2026-11, or 'list'", "month");
  TRY_ASSIGN(const std::string text,
             call.client.GetText(kInvoices + "/" + PercentEncoded(flags.tenant) + "/" +
                                 PercentEncoded(flags.month) +
                                 QueryOf({{"format", call.as_json ? "json" : flags.format}})));
  const char* end = text.ends_with('\n') ? "" : "\n";
  if (flags.output.empty()) {
    fmt::print("{}{}", text, end);
    return {};
  }
  std::ofstream file(flags.output, std::ios::binary | std::ios::trunc);
  file << text << end;
  file.close();
  if (!file) return Fail(ErrorCode::kIo, flags.output + " can't be written");
  return {};
}

}  // namespace

void AddInvoices(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* invoice = menu.app->add_subcommand(
      "invoice", "A tenant's bill of a month: invoice TENANT YYYY-MM; or: invoice list [TENANT]");
  invoice->fallthrough();
  menu.MakeCommand(invoice, [flags](const Menu::Call& call) { return Show(call, *flags); });
  invoice->add_option("tenant", flags->tenant, "The tenant's name or id");
  invoice->add_option("month", flags->month, "Such as 2026-11; one that is not over says so");
  invoice->add_option("--format", flags->format, "What to print")
      ->check(CLI::IsMember({"text", "json", "html"}))
      ->capture_default_str();
  invoice->add_option("-o,--output", flags->output, "File to write it to");

  const auto of = std::make_shared<std::string>();
  CLI::App* list = menu.AddCommand(
      invoice, "list", "The months there are bills of",
      [of](const Menu::Call& call) -> Result<void> {
        TRY_ASSIGN(const Json answer, call.client.Get(kInvoices + QueryOf({{"tenant", *of}})));
        Print(call, answer, List);
        return {};
      });
  list->add_option("tenant", *of, "Only of this one");
}

}  // namespace millpower::cli::admin
