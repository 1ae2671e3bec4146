// The Ledger's administration: tenants, projects, keys, prices, leases and payments.
#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "ledger/key_secret.h"
#include "ledger/ledger.h"
#include "ledger/ledger_impl.h"
#include "ledger/terms.h"

namespace millpower::ledger {
namespace {

// A day more than a quarter: enough to roll a key out everywhere.
constexpr int64_t kMaxOverlapSeconds = int64_t{93} * 86'400;

std::unexpected<Error> NotFound(const char* what, Number number) {
  return Fail(ErrorCode::kNotFound, fmt::format("there is no {} {}", what, number));
}

std::unexpected<Error> NameTaken(const char* what, const std::string& name) {
  return Fail(ErrorCode::kAlreadyExists, fmt::format("there is a {} '{}' already", what, name),
              "name");
}

// Names that begin like an id could be taken for one where either may be given.
Result<void> CheckNotId(const std::string& name, std::string_view start) {
  if (!name.starts_with(start)) return {};
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("name must not begin with '{}', as ids do", start), "name");
}

Result<void> CheckTenant(const Directory& directory, const Tenant& tenant) {
  TRY(CheckName(tenant.name));
  TRY(CheckNotId(tenant.name, "ten_"));
  TRY(CheckBounds(tenant.bounds));
  const Micros line = tenant.credit_line.value_or(0);
  if (line < 0 || line > kMaxMicros)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("credit_line must be 0 to {}", FormatMoney(kMaxMicros)), "credit_line");
  for (const Tenant& other : directory.tenants()) {
    if (other.name == tenant.name && other.number != tenant.number)
      return NameTaken("tenant", tenant.name);
  }
  return {};
}

Result<void> CheckProject(const Directory& directory, const Project& project) {
  TRY(CheckName(project.name));
  TRY(CheckNotId(project.name, "proj_"));
  TRY(CheckBounds(project.bounds));
  for (const Project& other : directory.projects()) {
    if (other.tenant == project.tenant && other.name == project.name &&
        other.number != project.number)
      return NameTaken("project", project.name);
  }
  return {};
}

Result<void> CheckKey(const Key& key) {
  TRY(CheckName(key.name));
  TRY(CheckNotId(key.name, "key_"));
  TRY(CheckScopes(key.models, key.endpoints));
  TRY(CheckBounds(key.bounds));
  if (key.expires_at < 0)
    return Fail(ErrorCode::kInvalidArgument, "expires_at must not be negative", "expires_at");
  return {};
}

Json Told(const Bounds& bounds) {
  Json caps = Json::array();
  for (const Cap& cap : bounds.caps) {
    const bool is_money = cap.measure == Measure::kMoney;
    caps.push_back({{"period", Name(cap.period)},
                    {"measure", is_money ? "money" : "tokens"},
                    {"limit", is_money ? Json(FormatMoney(cap.limit)) : Json(cap.limit)}});
  }
  return {{"caps", std::move(caps)},
          {"limits",
           {{"requests_per_minute", bounds.limits.requests_per_minute},
            {"tokens_per_minute", bounds.limits.tokens_per_minute},
            {"concurrent_requests", bounds.limits.concurrent_requests}}}};
}

Json Told(const Tenant& tenant) {
  Json told = {
      {"name", tenant.name},
      {"suspended", tenant.suspended},
      {"credit_line", tenant.credit_line ? Json(FormatMoney(*tenant.credit_line)) : Json()}};
  told.update(Told(tenant.bounds));
  return told;
}

Json Told(const Project& project, const std::string& tenant) {
  Json told = {{"tenant", tenant}, {"name", project.name}};
  told.update(Told(project.bounds));
  return told;
}

Json Told(const Key& key, const std::string& project) {
  Json told = {{"project", project},   {"name", key.name},
               {"prefix", key.prefix}, {"expires_at", key.expires_at},
               {"models", key.models}, {"endpoints", key.endpoints}};
  told.update(Told(key.bounds));
  return told;
}

// The element of a number, which is there.
template <typename T>
T& At(std::vector<T>& all, Number number) {
  const auto found = std::ranges::find(all, number, &T::number);
  CHECK(found != all.end()) << number;
  return *found;
}

// A usage row of a lease: `quantity` share-hours for `amount`, both negative to give back.
Usage LeaseUsage(const Lease& lease, const std::string& request_id, int64_t quantity, Number price,
                 Micros amount, const char* reason, int64_t now) {
  Usage usage{.request_id = request_id,
              .api_request_id = lease.id,
              .tenant = lease.tenant,
              .model = "",
              .endpoint = "lease",
              .tier = Tier::kLease,
              .admitted_at = lease.created_at,
              .posted_at = now,
              .lines = {{Unit::kShareHour, quantity, price, amount}},
              .amount = amount,
              .reason = reason};
  usage.quantities[static_cast<size_t>(Unit::kShareHour)] = quantity;
  return usage;
}

// The price that a lease was made at. Numbers are of one sequence, so that what is above the
// lease's was made after it.
Number PriceOf(const Directory& directory, const Lease& lease) {
  const Price* best = nullptr;
  for (const Price& price : directory.prices()) {
    if (price.unit == Unit::kShareHour && price.number < lease.number &&
        price.effective_at <= lease.created_at &&
        (!best || price.effective_at >= best->effective_at))
      best = &price;
  }
  CHECK(best && best->rate == lease.rate) << "of lease " << lease.id;
  return best->number;
}

}  // namespace

std::shared_ptr<const Directory> Ledger::Impl::Current() const {
  const std::lock_guard lock(mutex);
  return directory;
}

void Ledger::Impl::Replace(const std::function<void(Lists&)>& change) {
  const std::shared_ptr<const Directory> old = Current();
  Lists lists{old->tenants(), old->projects(), old->keys(), old->prices(), old->leases()};
  change(lists);
  auto made = std::make_shared<const Directory>(old->currency(), std::move(lists.tenants),
                                                std::move(lists.projects), std::move(lists.keys),
                                                std::move(lists.prices), std::move(lists.leases));
  const std::lock_guard lock(mutex);
  directory = std::move(made);
}

AuditEntry Ledger::Impl::Audit(const std::string& actor, const char* action,
                               const std::string& subject, const Json& details) const {
  return {.number = 0,  // the journal gives number and hash
          .at = clock.UnixSeconds(),
          .actor = actor,
          .action = action,
          .subject = subject,
          .details = DumpJson(details),
          .hash = ""};
}

Result<void> Ledger::Impl::Write(std::vector<Record> records,
                                 std::function<Result<void>(Store&)> prepare) {
  CHECK(!journal.IsWriter()) << "administration waits for the thread that it would be on";
  std::promise<Result<void>> written;
  std::future<Result<void>> result = written.get_future();
  Journal::Entry entry;
  entry.records = std::move(records);
  if (prepare) {
    entry.prepare = [prepare = std::move(prepare)](Store& store_, std::vector<Record>&) {
      return prepare(store_);
    };
  }
  entry.done = [&written](const Result<void>& outcome, std::vector<Journal::Entry>&) {
    written.set_value(outcome);
  };
  journal.Append(std::move(entry));
  return result.get();
}

// ---- Tenants and projects.

Result<Tenant> Ledger::CreateTenant(const std::string& actor, Tenant tenant) {
  const std::lock_guard administration(impl_->administration);
  tenant.number = 0;
  TRY(CheckTenant(*impl_->Current(), tenant));
  tenant.number = impl_->next_number++;
  tenant.id = NewRecordId("ten_");
  tenant.created_at = impl_->clock.UnixSeconds();
  TRY(impl_->Write({tenant, impl_->Audit(actor, "tenant.create", tenant.id, Told(tenant))}));
  impl_->Replace([&](Impl::Lists& lists) { lists.tenants.push_back(tenant); });
  return tenant;
}

Result<Tenant> Ledger::UpdateTenant(const std::string& actor, const Tenant& tenant) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Tenant* old = directory->FindTenant(tenant.number);
  if (!old) return NotFound("tenant", tenant.number);
  TRY(CheckTenant(*directory, tenant));
  Tenant made = tenant;
  made.id = old->id;
  made.created_at = old->created_at;
  TRY(impl_->Write({made, impl_->Audit(actor, "tenant.update", made.id, Told(made))}));
  impl_->Replace([&](Impl::Lists& lists) { At(lists.tenants, made.number) = made; });
  return made;
}

Result<Project> Ledger::CreateProject(const std::string& actor, Project project) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Tenant* tenant = directory->FindTenant(project.tenant);
  if (!tenant) return NotFound("tenant", project.tenant);
  project.number = 0;
  TRY(CheckProject(*directory, project));
  project.number = impl_->next_number++;
  project.id = NewRecordId("proj_");
  project.created_at = impl_->clock.UnixSeconds();
  TRY(impl_->Write(
      {project, impl_->Audit(actor, "project.create", project.id, Told(project, tenant->id))}));
  impl_->Replace([&](Impl::Lists& lists) { lists.projects.push_back(project); });
  return project;
}

Result<Project> Ledger::UpdateProject(const std::string& actor, const Project& project) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Project* old = directory->FindProject(project.number);
  if (!old) return NotFound("project", project.number);
  Project made = project;
  made.id = old->id;
  made.tenant = old->tenant;
  made.created_at = old->created_at;
  TRY(CheckProject(*directory, made));
  const std::string& tenant = directory->FindTenant(made.tenant)->id;
  TRY(impl_->Write({made, impl_->Audit(actor, "project.update", made.id, Told(made, tenant))}));
  impl_->Replace([&](Impl::Lists& lists) { At(lists.projects, made.number) = made; });
  return made;
}

// ---- Keys.

Result<Ledger::MadeKey> Ledger::CreateKey(const std::string& actor, Key key) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Project* project = directory->FindProject(key.project);
  if (!project) return NotFound("project", key.project);
  TRY(CheckKey(key));
  const int64_t now = impl_->clock.UnixSeconds();
  if (key.expires_at != 0 && key.expires_at <= now)
    return Fail(ErrorCode::kInvalidArgument, "expires_at must not be past", "expires_at");
  TRY_ASSIGN(NewSecret secret, MakeSecret());
  key.number = impl_->next_number++;
  key.id = NewRecordId("key_");
  key.tenant = project->tenant;
  key.prefix = std::move(secret.prefix);
  key.hash = std::move(secret.hash);
  key.created_at = now;
  key.revoked_at = 0;
  TRY(impl_->Write({key, impl_->Audit(actor, "key.create", key.id, Told(key, project->id))}));
  impl_->Replace([&](Impl::Lists& lists) { lists.keys.push_back(key); });
  return MadeKey{std::move(key), std::move(secret.secret)};
}

Result<Key> Ledger::UpdateKey(const std::string& actor, const Key& key) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Key* old = directory->FindKey(key.number);
  if (!old) return NotFound("key", key.number);
  TRY(CheckKey(key));
  Key made = *old;
  made.name = key.name;
  made.expires_at = key.expires_at;
  made.models = key.models;
  made.endpoints = key.endpoints;
  made.bounds = key.bounds;
  const std::string& project = directory->FindProject(made.project)->id;
  TRY(impl_->Write({made, impl_->Audit(actor, "key.update", made.id, Told(made, project))}));
  impl_->Replace([&](Impl::Lists& lists) { At(lists.keys, made.number) = made; });
  return made;
}

Result<Key> Ledger::RevokeKey(const std::string& actor, Number key) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Key* old = directory->FindKey(key);
  if (!old) return NotFound("key", key);
  if (old->revoked_at != 0) return *old;
  Key made = *old;
  made.revoked_at = impl_->clock.UnixSeconds();
  TRY(impl_->Write({made, impl_->Audit(actor, "key.revoke", made.id, Json::object())}));
  impl_->Replace([&](Impl::Lists& lists) { At(lists.keys, key) = made; });
  return made;
}

Result<Ledger::MadeKey> Ledger::RotateKey(const std::string& actor, Number key, int64_t overlap_s) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Key* found = directory->FindKey(key);
  if (!found) return NotFound("key", key);
  if (overlap_s < 0 || overlap_s > kMaxOverlapSeconds)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("overlap_s must be 0 to {}", kMaxOverlapSeconds), "overlap_s");
  const int64_t now = impl_->clock.UnixSeconds();
  Key old = *found;
  if (old.revoked_at != 0 || (old.expires_at != 0 && old.expires_at <= now))
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("key '{}' is over; make a new one", old.name), "key");
  TRY_ASSIGN(NewSecret secret, MakeSecret());
  Key made = old;
  made.number = impl_->next_number++;
  made.root = RootOf(old);
  made.id = NewRecordId("key_");
  made.prefix = std::move(secret.prefix);
  made.hash = std::move(secret.hash);
  made.created_at = now;
  const int64_t ends_at = now + overlap_s;
  old.expires_at = old.expires_at == 0 ? ends_at : std::min(old.expires_at, ends_at);
  const Json details = {{"new_key", made.id}, {"prefix", made.prefix}, {"ends_at", old.expires_at}};
  TRY(impl_->Write({old, made, impl_->Audit(actor, "key.rotate", old.id, details)}));
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->book.CountTogether(made.number, made.root);
  }
  impl_->Replace([&](Impl::Lists& lists) {
    At(lists.keys, key) = old;
    lists.keys.push_back(made);
  });
  return MadeKey{std::move(made), std::move(secret.secret)};
}

// ---- Prices, leases, payments.

Result<Price> Ledger::AddPrice(const std::string& actor, Price price) {
  const std::lock_guard administration(impl_->administration);
  const int64_t now = impl_->clock.UnixSeconds();
  if (price.effective_at == 0) price.effective_at = now;
  TRY(CheckPrice(price, now));
  price.number = impl_->next_number++;
  price.created_at = now;
  const Json details = {{"tier", Name(price.tier)},
                        {"unit", Name(price.unit)},
                        {"rate", FormatMoney(price.rate)},
                        {"effective_at", price.effective_at}};
  TRY(impl_->Write({price, impl_->Audit(actor, "price.add", price.model, details)}));
  impl_->Replace([&](Impl::Lists& lists) { lists.prices.push_back(price); });
  return price;
}

Result<Lease> Ledger::CreateLease(const std::string& actor, Lease lease) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Tenant* tenant = directory->FindTenant(lease.tenant);
  if (!tenant) return NotFound("tenant", lease.tenant);
  if (tenant->suspended)
    return Fail(ErrorCode::kForbidden, fmt::format("tenant '{}' is suspended", tenant->name));
  const int64_t now = impl_->clock.UnixSeconds();
  TRY(CheckLease(lease, now));
  TRY(CheckShares(directory->leases(), lease));
  const Price* price = directory->FindPrice("*", Tier::kLease, Unit::kShareHour, now);
  if (!price)
    return Fail(ErrorCode::kUnavailable,
                "no price is set for share_hour of model '*' at tier lease");
  const int64_t quantity = ShareHours(lease.share_ppm, lease.ends_at - lease.starts_at);
  lease.number = impl_->next_number++;
  lease.id = NewRecordId("lease_");
  lease.created_at = now;
  lease.cancelled_at = 0;
  lease.rate = price->rate;
  lease.amount = CostOf(quantity, price->rate);

  const Charge charge{lease.tenant, 0, 0, now, {lease.amount, 0}};
  {
    const std::lock_guard lock(impl_->mutex);
    TRY(impl_->book.Check(*impl_->directory, {&charge, 1}));
    impl_->book.Reserve(charge);
  }
  const Json details = {{"tenant", tenant->id},
                        {"share_ppm", lease.share_ppm},
                        {"starts_at", lease.starts_at},
                        {"ends_at", lease.ends_at},
                        {"amount", FormatMoney(lease.amount)}};
  const Result<void> written =
      impl_->Write({LeaseCharged{lease, LeaseUsage(lease, lease.id, quantity, price->number,
                                                   lease.amount, "leased", now)},
                    impl_->Audit(actor, "lease.create", lease.id, details)});
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->book.Settle(charge, written ? charge.most : Totals{});
  }
  TRY(written);
  impl_->Replace([&](Impl::Lists& lists) { lists.leases.push_back(lease); });
  return lease;
}

Result<Lease> Ledger::CancelLease(const std::string& actor, Number number) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const auto found = std::ranges::find(directory->leases(), number, &Lease::number);
  if (found == directory->leases().end()) return NotFound("lease", number);
  Lease lease = *found;
  if (lease.cancelled_at != 0) return lease;
  const int64_t now = impl_->clock.UnixSeconds();
  if (now >= lease.ends_at)
    return Fail(ErrorCode::kInvalidArgument, fmt::format("lease {} is over", lease.id), "lease");
  const int64_t whole = ShareHours(lease.share_ppm, lease.ends_at - lease.starts_at);
  const int64_t used = ShareHours(lease.share_ppm, std::max<int64_t>(now - lease.starts_at, 0));
  const Micros back = lease.amount - CostOf(used, lease.rate);
  lease.cancelled_at = now;
  lease.amount -= back;
  const Number price = PriceOf(*directory, lease);
  const Json details = {{"given_back", FormatMoney(back)}};
  TRY(impl_->Write({LeaseCharged{lease, LeaseUsage(lease, lease.id + "-cancelled", used - whole,
                                                   price, -back, "cancelled", now)},
                    impl_->Audit(actor, "lease.cancel", lease.id, details)}));
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->book.Refund({lease.tenant, 0, 0, lease.created_at, {back, 0}});
  }
  impl_->Replace([&](Impl::Lists& lists) { At(lists.leases, number) = lease; });
  return lease;
}

Result<Micros> Ledger::AddCredit(const std::string& actor, Number number, Micros amount,
                                 const std::string& reference) {
  const std::lock_guard administration(impl_->administration);
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Tenant* tenant = directory->FindTenant(number);
  if (!tenant) return NotFound("tenant", number);
  TRY(CheckName(reference, "reference"));
  if (amount == 0 || amount > kMaxMicros || amount < -kMaxMicros)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("amount must not be 0 nor beyond {}", FormatMoney(kMaxMicros)),
                "amount");
  const Account credit{AccountKind::kCredit, number};
  {
    const std::lock_guard lock(impl_->mutex);
    const Micros balance = impl_->book.Balance(credit);
    if (amount > 0 && balance > kMaxMicros - amount)
      return Fail(ErrorCode::kInvalidArgument, "amount is more than a balance can be", "amount");
    // Paying back takes, so it counts at once.
    if (amount < 0) {
      const Micros left = balance + tenant->credit_line.value_or(kMaxMicros);
      if (left + amount < 0)
        return Fail(ErrorCode::kInvalidArgument,
                    fmt::format("tenant '{}' has only {} to pay back", tenant->name,
                                FormatMoney(std::max<Micros>(left, 0))),
                    "amount");
      impl_->book.Pay(number, amount);
    }
  }
  const int64_t now = impl_->clock.UnixSeconds();
  const Json details = {{"amount", FormatMoney(amount)}, {"reference", reference}};
  bool was_paid = false;
  const Result<void> written =
      impl_->Write({Payment{number, amount, reference, now},
                    impl_->Audit(actor, "credit.add", tenant->id, details)},
                   [&](Store& store) -> Result<void> {
                     TRY_ASSIGN(was_paid, store.WasPaid(reference));
                     if (!was_paid) return {};
                     return Fail(ErrorCode::kAlreadyExists, "it was paid already");
                   });
  const std::lock_guard lock(impl_->mutex);
  if (written && amount > 0) impl_->book.Pay(number, amount);
  if (!written && amount < 0) impl_->book.Pay(number, -amount);
  if (!written && !was_paid) return std::unexpected(written.error());
  return impl_->book.Balance(credit);
}

}  // namespace millpower::ledger
