// Invoices as JSON, text and HTML.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "ledger/reports.h"

namespace millpower::ledger {
namespace {

constexpr int64_t kSecondsPerDay = 86400;
constexpr const char* kRoundingNote =
    "Each request's quantity is charged on its own, rounded up to a millionth of a unit of the "
    "currency. Times are UTC.";

// A line as it is read: names, quantities and rates as text.
struct LineText {
  std::string project, work, quantity, unit, rate, amount, requests, trace;
};

// Control characters would let a name forge lines or drive a terminal.
std::string Printable(std::string_view text) {
  std::string printable;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool is_c1 = byte == 0xc2 && i + 1 < text.size() &&
                       static_cast<unsigned char>(text[i + 1]) < 0xa0;  // U+0080 to U+009F
    if (byte < 0x20 || byte == 0x7f || is_c1)
      printable += '?';
    else
      printable += text[i];
    if (is_c1) ++i;
  }
  return printable;
}

// "1234567.25" as "1,234,567.25".
std::string Grouped(std::string number) {
  size_t end = number.find('.');
  if (end == number.npos) end = number.size();
  const size_t start = number.starts_with('-') ? 1 : 0;
  for (; end > start + 3; end -= 3) number.insert(end - 3, ",");
  return number;
}

std::string IdAndName(const std::string& id, const std::string& name) {
  return name.empty() ? Printable(id) : fmt::format("{} ({})", Printable(name), Printable(id));
}

std::string ProjectOf(const InvoiceLine& line, const Directory& directory) {
  if (line.project == 0) return "";
  const Project* project = directory.FindProject(line.project);
  return project ? IdAndName(project->id, project->name) : std::to_string(line.project);
}

std::string TierText(Tier tier) {
  std::string text = Name(tier);
  std::ranges::replace(text, '_', ' ');
  return text;
}

LineText TextOf(const InvoiceLine& line, const std::string& currency, const Directory& directory) {
  return {.project = ProjectOf(line, directory),
          .work = line.model.empty()
                      ? "capacity lease"
                      : fmt::format("{}, {}", Printable(line.model), TierText(line.tier)),
          .quantity = Grouped(FormatQuantity(line.unit, line.quantity)),
          .unit = PluralOf(line.unit),
          .rate = fmt::format("{} {} per {}", Grouped(FormatMoney(line.rate)), Printable(currency),
                              RateBasisOf(line.unit)),
          .amount = Grouped(FormatMoney(line.amount)),
          .requests = Grouped(std::to_string(line.requests)),
          .trace = line.first_request_id == line.last_request_id
                       ? Printable(line.first_request_id)
                       : fmt::format("{} to {}", Printable(line.first_request_id),
                                     Printable(line.last_request_id))};
}

// The first and the last day of what it is for.
std::string FirstDay(const Invoice& invoice) { return FormatDay(invoice.from / kSecondsPerDay); }
std::string LastDay(const Invoice& invoice) { return FormatDay((invoice.to - 1) / kSecondsPerDay); }

std::string Status(const Invoice& invoice) {
  return invoice.is_open ? "preliminary: the month is not over" : "final";
}

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

// {0} number, {1} tenant, {2} period, {3} status, {4} currency, {5} rows, {6} total, {7} the note
constexpr const char* kPage = R"html(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Invoice {0}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; }}
dt {{ color: #555; }}
dd {{ margin: 0; }}
table {{ border-collapse: collapse; width: 100%; margin: 1.5rem 0; }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #ccc; overflow-wrap: anywhere; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.trace {{ color: #555; font-size: .85em; }}
tfoot th, tfoot td {{ border-bottom: 0; border-top: 2px solid #111; font-weight: bold; }}
tr {{ break-inside: avoid; }}
@page {{ margin: 15mm; }}
</style>
</head>
<body>
<h1>Invoice {0}</h1>
<dl>
<dt>Tenant</dt><dd>{1}</dd>
<dt>Period</dt><dd>{2}</dd>
<dt>Status</dt><dd>{3}</dd>
<dt>Currency</dt><dd>{4}</dd>
</dl>
<table>
<thead><tr><th scope="col">Project</th><th scope="col">Work</th><th scope="col" class="number">Quantity</th><th scope="col">Rate</th><th scope="col" class="number">Requests</th><th scope="col" class="number">Amount</th></tr></thead>
<tbody>
{5}</tbody>
<tfoot><tr><th scope="row" colspan="5">Total</th><td class="number">{6} {4}</td></tr></tfoot>
</table>
<p class="trace">{7}</p>
</body>
</html>
)html";

}  // namespace

Json InvoiceJson(const Invoice& invoice, const Directory& directory) {
  Json lines = Json::array();
  for (const InvoiceLine& line : invoice.lines) {
    const Project* project = directory.FindProject(line.project);
    const bool is_counted = QuantaOf(line.unit) == 1;
    Json quantity = line.quantity;
    if (!is_counted) quantity = static_cast<double>(line.quantity) / kMicrosPerUnit;
    lines.push_back({{"project", project ? Json(project->id) : Json(nullptr)},
                     {"project_name", project ? Json(project->name) : Json(nullptr)},
                     {"model", line.model.empty() ? Json(nullptr) : Json(line.model)},
                     {"tier", Name(line.tier)},
                     {"unit", Name(line.unit)},
                     {"price", line.price},
                     {"rate", FormatMoney(line.rate)},
                     {"rate_per", RateBasisOf(line.unit)},
                     {"quantity", std::move(quantity)},
                     {"amount", FormatMoney(line.amount)},
                     {"requests", line.requests},
                     {"first_request_id", line.first_request_id},
                     {"last_request_id", line.last_request_id}});
  }
  return {{"object", "invoice"},
          {"id", invoice.number},
          {"tenant", {{"id", invoice.tenant.id}, {"name", invoice.tenant.name}}},
          {"month", FirstDay(invoice).substr(0, 7)},
          {"from", invoice.from},
          {"to", invoice.to},
          {"status", invoice.is_open ? "open" : "final"},
          {"currency", invoice.currency},
          {"lines", std::move(lines)},
          {"total", FormatMoney(invoice.total)}};
}

std::string InvoiceText(const Invoice& invoice, const Directory& directory) {
  std::string text = fmt::format(
      "Invoice   {}\nTenant    {}\nPeriod    {} to {}\nStatus    {}\nCurrency  {}\n",
      Printable(invoice.number), IdAndName(invoice.tenant.id, invoice.tenant.name),
      FirstDay(invoice), LastDay(invoice), Status(invoice), Printable(invoice.currency));
  std::string heading;
  for (const InvoiceLine& line : invoice.lines) {
    const LineText shown = TextOf(line, invoice.currency, directory);
    const std::string above =
        shown.project.empty() ? shown.work : fmt::format("{}: {}", shown.project, shown.work);
    if (above != heading) text += fmt::format("\n{}\n", above);
    heading = above;
    text += fmt::format("  {:>20} {:<15} {:>30}\n", shown.quantity, shown.unit, shown.amount);
    text += fmt::format("  {:>20} at {}; {} {}: {}\n", "", shown.rate, shown.requests,
                        line.requests == 1 ? "request" : "requests", shown.trace);
  }
  if (invoice.lines.empty()) text += "\nNothing was used.\n";
  text += fmt::format("\n  {:<36} {:>30} {}\n\n{}\n", "Total", Grouped(FormatMoney(invoice.total)),
                      Printable(invoice.currency), kRoundingNote);
  return text;
}

std::string InvoiceHtml(const Invoice& invoice, const Directory& directory) {
  std::string rows;
  for (const InvoiceLine& line : invoice.lines) {
    const LineText shown = TextOf(line, invoice.currency, directory);
    rows += fmt::format(
        "<tr><td>{}</td><td>{}<br><span class=\"trace\">{}</span></td>"
        "<td class=\"number\">{} {}</td><td>{}</td><td class=\"number\">{}</td>"
        "<td class=\"number\">{}</td></tr>\n",
        Escaped(shown.project), Escaped(shown.work), Escaped(shown.trace), shown.quantity,
        shown.unit, Escaped(shown.rate), shown.requests, shown.amount);
  }
  if (rows.empty()) rows = "<tr><td colspan=\"6\">Nothing was used.</td></tr>\n";
  return fmt::format(kPage, Escaped(Printable(invoice.number)),
                     Escaped(IdAndName(invoice.tenant.id, invoice.tenant.name)),
                     fmt::format("{} to {}", FirstDay(invoice), LastDay(invoice)),
                     Escaped(Status(invoice)), Escaped(Printable(invoice.currency)), rows,
                     Grouped(FormatMoney(invoice.total)), kRoundingNote);
}

}  // namespace millpower::ledger
