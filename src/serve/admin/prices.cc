// The price book: a new price is a new version, old ones stay for the invoices they made.
#include <fmt/format.h>

#include "serve/admin/endpoints.h"
#include "serve/admin/inputs.h"
#include "serve/admin/outputs.h"

namespace millpower::serve::admin {
namespace {

// What a rate is for, as people say it: a price is for a million quanta (ledger/units.h).
const char* PerOf(ledger::Unit unit) {
  switch (unit) {
    case ledger::Unit::kChipSecond:
      return "chip-second";
    case ledger::Unit::kJoule:
      return "joule";
    case ledger::Unit::kShareHour:
      return "share-hour";
    default:
      return "million";
  }
}

const char* StateOf(const ledger::Directory& directory, const ledger::Price& price, int64_t now) {
  if (price.effective_at > now) return "upcoming";
  return directory.FindPrice(price.model, price.tier, price.unit, now) == &price ? "current"
                                                                                 : "past";
}

Json PriceJson(const ledger::Directory& directory, const ledger::Price& price, int64_t now) {
  return {{"number", price.number},
          {"object", "price"},
          {"model", price.model},
          {"tier", Name(price.tier)},
          {"unit", Name(price.unit)},
          {"rate", ledger::FormatMoney(price.rate)},
          {"per", PerOf(price.unit)},
          {"currency", directory.currency()},
          {"state", StateOf(directory, price, now)},
          {"effective_at", price.effective_at},
          {"created_at", price.created_at}};
}

Answer ListPrices(Context& context, const Request& request) {
  TRY(CheckQuery(request.query, {"all", "model"}));
  TRY_ASSIGN(const int64_t all, ReadInteger(request.query, "all", 0, 0, 1));
  const std::string* model = request.query.Find("model");
  const auto directory = context.ledger->directory();
  const int64_t now = context.clock.UnixSeconds();
  Json data = Json::array();
  for (const ledger::Price& price : directory->prices()) {
    if (model != nullptr && price.model != *model) continue;
    Json json = PriceJson(*directory, price, now);
    if (all == 1 || json["state"] != "past") data.push_back(std::move(json));
  }
  return ListResponse(std::move(data));
}

Answer AddPrice(Context& context, const Request& request) {
  Fields fields(request.body, {"model", "tier", "unit", "rate", "effective_at"});
  ledger::Price price;
  std::string tier = Name(ledger::Tier::kOnDemand), unit;
  for (const char* name : {"model", "unit", "rate"}) fields.Require(name);
  fields.ReadText("model", price.model);
  fields.Read("tier", tier);
  fields.Read("unit", unit);
  if (const auto found = ledger::TierFromName(tier))
    price.tier = *found;
  else
    fields.Refuse("tier", "must be one of on_demand, priority, batch, lease");
  if (const auto found = ledger::UnitFromName(unit))
    price.unit = *found;
  else
    fields.Refuse("unit",
                  "must be one of input_token, cached_token, output_token, inference, "
                  "candidate, chip_second, joule, share_hour");
  fields.ReadMoney("rate", price.rate, 0, ledger::kMaxMicros);
  fields.ReadTime("effective_at", price.effective_at);
  TRY(fields.status());
  std::lock_guard lock(context.changing);
  TRY_ASSIGN(const ledger::Price made, context.ledger->AddPrice(kActor, std::move(price)));
  const auto directory = context.ledger->directory();
  const ledger::Price* kept = directory->FindPrice(made.number);
  return JsonResponse(
      PriceJson(*directory, kept == nullptr ? made : *kept, context.clock.UnixSeconds()), 201);
}

constexpr Endpoint kEndpoints[] = {
    {.method = "GET", .pattern = "/admin/v1/prices", .answer = ListPrices},
    {.method = "POST", .pattern = "/admin/v1/prices", .answer = AddPrice, .has_body = true},
};

}  // namespace

std::span<const Endpoint> PriceEndpoints() { return kEndpoints; }

}  // namespace millpower::serve::admin
