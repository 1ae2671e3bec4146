#include "ledger/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "ledger/audit.h"
#include "ledger/ledger_impl.h"

namespace millpower::ledger {
namespace {

// No request comes near it; with it sums of quantities can't overflow.
constexpr int64_t kMaxQuantity = int64_t{1} << 50;

// Whether a key may start work now. Errors: kForbidden.
Result<void> MayWork(const Directory& directory, const Key& key, int64_t now) {
  const auto fail = [&](const char* why) {
    return Fail(ErrorCode::kForbidden, fmt::format("key '{}' {}", key.name, why));
  };
  if (key.revoked_at != 0) return fail("was revoked");
  if (key.expires_at != 0 && now >= key.expires_at) return fail("has expired");
  const Tenant* tenant = directory.FindTenant(key.tenant);
  CHECK(tenant) << "tenant of key " << key.number;
  if (tenant->suspended)
    return Fail(ErrorCode::kForbidden, fmt::format("tenant '{}' is suspended", tenant->name));
  return {};
}

std::string CannotWrite(const Error& error) {
  return fmt::format("the ledger can't be written: {}", error.message);
}
std::string CannotRead(const Error& error) {
  return fmt::format("the ledger can't be read: {}", error.message);
}

}  // namespace

std::shared_ptr<LiveHold> Ledger::Impl::Find(const std::string& request_id) {
  const auto found = holds.find(request_id);
  return found == holds.end() ? nullptr : found->second;
}

void Ledger::Impl::Forget(LiveHold& live) {
  live.state = LiveHold::State::kGone;
  holds.erase(live.hold.request_id);  // may be the last owner of `live` but for the caller
}

void Ledger::Impl::Free(LiveHold& live) {
  book.Release(ChargeOf(live.hold));
  Forget(live);
}

Result<std::vector<std::shared_ptr<LiveHold>>> Ledger::Impl::Admit(
    const std::vector<HoldRequest>& requests) {
  CHECK(!requests.empty());
  if (const Result<void> health = journal.health(); !health)
    return Fail(ErrorCode::kUnavailable, CannotWrite(health.error()));
  const int64_t now = clock.UnixSeconds();
  std::vector<std::shared_ptr<LiveHold>> lives;
  std::vector<Charge> charges;
  for (const HoldRequest& request : requests) {
    const Key* key = directory->FindKey(request.key);
    if (!key) return Fail(ErrorCode::kForbidden, fmt::format("there is no key {}", request.key));
    TRY(MayWork(*directory, *key, now));
    const bool is_twice =
        std::ranges::count(requests, request.request_id, &HoldRequest::request_id) > 1;
    if (is_twice || holds.contains(request.request_id))
      return Fail(ErrorCode::kAlreadyExists,
                  fmt::format("request '{}' is under way already", request.request_id));
    for (const int64_t quantity : request.most)
      CHECK(quantity >= 0 && quantity <= kMaxQuantity) << request.request_id << ' ' << quantity;

    auto live = std::make_shared<LiveHold>();
    live->most = request.most;
    live->hold = {.request_id = request.request_id,
                  .tenant = key->tenant,
                  .project = key->project,
                  .key = key->number,
                  .model = request.model,
                  .endpoint = request.endpoint,
                  .tier = request.tier,
                  .admitted_at = now,
                  .amount = 0,
                  .tokens = TokensOf(request.most)};
    if (request.tier == Tier::kOnDemand && directory->FindLease(key->tenant, now))
      live->hold.tier = Tier::kLease;
    TRY_ASSIGN(live->tariff,
               Tariff::Find(*directory, request.model, live->hold.tier, now, request.most));
    live->hold.amount = live->tariff.MostOf(live->most);
    live->api_request_id = request.api_request_id;
    charges.push_back(ChargeOf(live->hold));
    CHECK(charges.back().tenant == charges.front().tenant) << request.request_id;
    lives.push_back(std::move(live));
  }
  TRY(book.Check(*directory, charges));
  for (size_t i = 0; i < lives.size(); ++i) {
    book.Reserve(charges[i]);
    holds.emplace(lives[i]->hold.request_id, lives[i]);
  }
  return lives;
}

void Ledger::Hold(std::vector<HoldRequest> requests, Done done) {
  const std::lock_guard lock(impl_->mutex);
  auto admitted = impl_->Admit(requests);
  if (!admitted) {
    impl_->journal.Answer([done = std::move(done), error = std::move(admitted).error()] {
      done(std::unexpected(error));
    });
    return;
  }
  Journal::Entry entry;
  for (const auto& live : *admitted) entry.records.push_back(HoldOpened{live->hold});
  entry.prepare = [](Store& store, std::vector<Record>& records) -> Result<void> {
    for (const Record& record : records) {
      const std::string& id = std::get<HoldOpened>(record).hold.request_id;
      const Result<bool> was_posted = store.WasPosted(id);
      if (!was_posted) return Fail(ErrorCode::kUnavailable, CannotRead(was_posted.error()));
      if (*was_posted)
        return Fail(ErrorCode::kAlreadyExists, fmt::format("request '{}' was posted before", id));
    }
    return {};
  };
  entry.done = [impl = impl_.get(), lives = std::move(*admitted), done = std::move(done)](
                   const Result<void>& written, std::vector<Journal::Entry>&) {
    if (!written) {
      const std::lock_guard freeing(impl->mutex);
      for (const auto& live : lives) impl->Free(*live);
    }
    done(written);
  };
  impl_->journal.Append(std::move(entry));
}

Result<Ledger::Impl::Slice> Ledger::Impl::Grow(LiveHold& live, int64_t wanted) {
  if (!live.tariff.charges(Unit::kOutputToken))
    return Fail(ErrorCode::kUnavailable,
                fmt::format("no price is set for {} of model '{}' at tier {}",
                            Name(Unit::kOutputToken), live.hold.model, Name(live.hold.tier)));
  constexpr auto kOutput = static_cast<size_t>(Unit::kOutputToken);
  const Charge held = ChargeOf(live.hold);
  // What `count` more cost: the whole less what is held, since a whole is rounded up but once.
  const auto charge_of = [&](int64_t count) {
    Quantities most = live.most;
    most[kOutput] += count;
    Charge more = held;
    more.most = {live.tariff.MostOf(most) - held.most.money, count};
    return more;
  };
  Totals room = book.Room(*directory, held);
  room.money = std::max<Micros>(room.money, 0);  // less after a cap or credit line was lowered
  int64_t count = std::min({wanted, kMaxQuantity - live.most[kOutput], room.tokens});
  if (charge_of(std::max<int64_t>(count, 0)).most.money > room.money) {
    // The cost grows with the count: the last that is covered is between what is and what isn't.
    int64_t uncovered = count;
    count = 0;
    while (uncovered - count > 1) {
      const int64_t middle = count + (uncovered - count) / 2;
      (charge_of(middle).most.money <= room.money ? count : uncovered) = middle;
    }
  }
  if (count < 1) {
    const Charge one = charge_of(1);
    TRY(book.Check(*directory, {&one, 1}));
    return Fail(ErrorCode::kQuotaExceeded, "the request is as long as any may be");
  }
  const Slice slice{count, charge_of(count).most};
  Charge more = held;
  more.most = slice.more;
  book.Reserve(more);
  live.most[kOutput] += count;
  live.hold.amount += slice.more.money;
  live.hold.tokens += slice.more.tokens;
  return slice;
}

void Ledger::Extend(const std::string& request_id, int64_t wanted, Granted granted) {
  CHECK(wanted >= 1) << request_id << ' ' << wanted;
  const std::lock_guard lock(impl_->mutex);
  const std::shared_ptr<LiveHold> live = impl_->Find(request_id);
  Result<Impl::Slice> slice =
      live && live->state == LiveHold::State::kOpen
          ? impl_->Grow(*live, wanted)
          : Fail(ErrorCode::kNotFound, fmt::format("no request '{}' is under way", request_id));
  if (!slice) {
    impl_->journal.Answer([granted = std::move(granted), error = std::move(slice).error()] {
      granted(std::unexpected(error));
    });
    return;
  }
  Journal::Entry entry;
  entry.records.push_back(HoldExtended{.request_id = request_id,
                                       .more = slice->more.money,
                                       .more_tokens = slice->more.tokens,
                                       .tenant = live->hold.tenant,
                                       .at = impl_->clock.UnixSeconds()});
  entry.prepare = [impl = impl_.get(), live](Store&, std::vector<Record>&) -> Result<void> {
    const std::lock_guard looking(impl->mutex);
    if (live->state == LiveHold::State::kGone)
      return Fail(ErrorCode::kUnavailable, "what was held before could not be written");
    return {};
  };
  entry.done = [impl = impl_.get(), live, slice = *slice, granted = std::move(granted)](
                   const Result<void>& written, std::vector<Journal::Entry>&) {
    if (written) return granted(slice.count);
    {
      const std::lock_guard taking_back(impl->mutex);
      // What is gone gave this back too.
      if (live->state != LiveHold::State::kGone) {
        Charge more = ChargeOf(live->hold);
        more.most = slice.more;
        impl->book.Release(more);
        live->most[static_cast<size_t>(Unit::kOutputToken)] -= slice.count;
        live->hold.amount -= slice.more.money;
        live->hold.tokens -= slice.more.tokens;
      }
    }
    granted(std::unexpected(written.error()));
  };
  impl_->journal.Append(std::move(entry));
}

Journal::Entry Ledger::Impl::OwedVoid(const std::shared_ptr<LiveHold>& live) {
  Journal::Entry entry;
  entry.records.push_back(HoldClosed{live->hold, std::nullopt, clock.UnixSeconds()});
  entry.done = [this, live](const Result<void>&, std::vector<Journal::Entry>&) {
    const std::lock_guard freeing(mutex);
    Free(*live);
  };
  entry.must = true;
  return entry;
}

void Ledger::Impl::Close(const std::shared_ptr<LiveHold>& live, std::optional<Usage> usage,
                         Done done) {
  live->state = LiveHold::State::kClosing;
  const Totals used = usage ? Totals{usage->amount, TokensOf(usage->quantities)} : Totals{};
  Journal::Entry entry;
  entry.records.push_back(HoldClosed{live->hold, std::move(usage), clock.UnixSeconds()});
  entry.prepare = [this, live](Store&, std::vector<Record>& records) -> Result<void> {
    const std::lock_guard looking(mutex);
    if (live->state == LiveHold::State::kGone)
      return Fail(ErrorCode::kUnavailable, "what was held for it could not be written");
    // An extension that was queued before this may have been taken back since.
    std::get<HoldClosed>(records[0]).hold = live->hold;
    return {};
  };
  entry.done = [this, live, used, done = std::move(done)](const Result<void>& written,
                                                          std::vector<Journal::Entry>& instead) {
    {
      const std::lock_guard settling(mutex);
      if (written) {
        book.Settle(ChargeOf(live->hold), used);
        Forget(*live);
      } else if (live->state != LiveHold::State::kGone) {
        instead.push_back(OwedVoid(live));
      }
    }
    done(written);
  };
  journal.Append(std::move(entry));
}

void Ledger::Post(const std::string& request_id, const Quantities& used, std::string reason,
                  Done done, const Energy& energy) {
  const std::lock_guard lock(impl_->mutex);
  const std::shared_ptr<LiveHold> live = impl_->Find(request_id);
  if (!live || live->state != LiveHold::State::kOpen) {
    // It is over, or about to be: what was queued before this decides.
    Journal::Entry question;
    question.done = [store = impl_->store.get(), request_id, done = std::move(done)](
                        const Result<void>&, std::vector<Journal::Entry>&) {
      const Result<bool> was_posted = store->WasPosted(request_id);
      if (!was_posted) return done(Fail(ErrorCode::kUnavailable, CannotRead(was_posted.error())));
      if (!*was_posted)
        return done(Fail(ErrorCode::kNotFound,
                         fmt::format("no request '{}' is under way or was posted", request_id)));
      done({});
    };
    impl_->journal.Append(std::move(question));
    return;
  }
  CHECK(live->tariff.IsWithin(used, live->most)) << request_id << " used more than was held";
  Usage usage{.request_id = request_id,
              .api_request_id = live->api_request_id,
              .tenant = live->hold.tenant,
              .project = live->hold.project,
              .key = live->hold.key,
              .model = live->hold.model,
              .endpoint = live->hold.endpoint,
              .tier = live->hold.tier,
              .admitted_at = live->hold.admitted_at,
              .posted_at = impl_->clock.UnixSeconds(),
              .quantities = used,
              .lines = live->tariff.Lines(used),
              .amount = 0,
              .reason = std::move(reason),
              .energy_uj = energy.uj,
              .co2e_ug = energy.co2e_ug,
              .energy_origin = energy.origin};
  for (const UsageLine& line : usage.lines) usage.amount += line.amount;
  impl_->Close(live, std::move(usage), std::move(done));
}

void Ledger::Void(const std::string& request_id, Done done) {
  const std::lock_guard lock(impl_->mutex);
  const std::shared_ptr<LiveHold> live = impl_->Find(request_id);
  if (live && live->state == LiveHold::State::kOpen)
    return impl_->Close(live, std::nullopt, std::move(done));
  impl_->journal.Append(
      {.records = {},
       .prepare = nullptr,
       .done = [done = std::move(done)](const Result<void>&,
                                        std::vector<Journal::Entry>&) { done({}); },
       .must = false});
}

// ---- From start to end.

Ledger::Ledger(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Ledger::~Ledger() { impl_->journal.Close(); }

Result<std::unique_ptr<Ledger>> Ledger::Open(std::unique_ptr<Store> store, const Clock& clock,
                                             const LedgerOptions& options) {
  TRY_ASSIGN(StoredState state, store->Load());
  TRY_ASSIGN(Book book, Book::Load(state));
  const int64_t now = clock.UnixSeconds();
  if (!state.holds.empty()) {
    // Nobody was given what these made: voided, not posted.
    std::vector<Record> records;
    for (const ledger::Hold& hold : state.holds) {
      records.push_back(HoldClosed{hold, std::nullopt, now});
      book.Release(ChargeOf(hold));
    }
    AuditEntry audit{.number = state.last_audit.number + 1,
                     .at = now,
                     .actor = "server",
                     .action = "ledger.recover",
                     .subject = "",
                     .details = DumpJson({{"voided_holds", state.holds.size()}}),
                     .hash = ""};
    audit.hash = AuditHash(state.last_audit.hash, audit);
    state.last_audit = audit;
    records.push_back(std::move(audit));
    TRY(store->Commit(records));
  }
  auto directory = std::make_shared<const Directory>(
      std::move(state.currency), std::move(state.tenants), std::move(state.projects),
      std::move(state.keys), std::move(state.prices), std::move(state.leases));
  auto impl = std::make_unique<Impl>(std::move(store), clock, options, std::move(book),
                                     std::move(directory), state.last_audit, state.next_number);
  impl->recovered_holds = static_cast<int64_t>(state.holds.size());
  return std::unique_ptr<Ledger>(new Ledger(std::move(impl)));
}

// ---- Looking.

std::shared_ptr<const Directory> Ledger::directory() const { return impl_->Current(); }

Micros Ledger::Balance(Account account) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->book.Balance(account);
}

std::vector<CapState> Ledger::Caps(Subject subject, Number number) const {
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Bounds* bounds = nullptr;
  if (subject == Subject::kTenant) {
    if (const Tenant* tenant = directory->FindTenant(number)) bounds = &tenant->bounds;
  } else if (subject == Subject::kProject) {
    if (const Project* project = directory->FindProject(number)) bounds = &project->bounds;
  } else if (const Key* key = directory->FindKey(number)) {
    bounds = &key->bounds;
  }
  std::vector<CapState> caps;
  if (!bounds) return caps;
  for (const Cap& cap : bounds->caps) {
    caps.push_back(SpentIn(subject, number, cap.period, cap.measure));
    caps.back().cap = cap;
  }
  return caps;
}

CapState Ledger::SpentIn(Subject subject, Number number, Period period, Measure measure) const {
  const std::lock_guard lock(impl_->mutex);
  const Book::State state =
      impl_->book.StateOf(subject, number, period, impl_->clock.UnixSeconds());
  const bool is_money = measure == Measure::kMoney;
  return {.cap = {.period = period, .measure = measure, .limit = 0},
          .used = is_money ? state.posted.money : state.posted.tokens,
          .held = is_money ? state.held.money : state.held.tokens};
}

LedgerStats Ledger::stats() const {
  const Journal::Stats journal = impl_->journal.stats();
  const std::lock_guard lock(impl_->mutex);
  return {.commits = journal.commits,
          .records = journal.records,
          .failed_commits = journal.failed_commits,
          .open_holds = static_cast<int64_t>(impl_->holds.size()),
          .recovered_holds = impl_->recovered_holds,
          .healthy = journal.healthy};
}

Result<Invoice> Ledger::MakeInvoice(Number number, const Month& month) const {
  const std::shared_ptr<const Directory> directory = impl_->Current();
  const Tenant* tenant = directory->FindTenant(number);
  if (!tenant) return Fail(ErrorCode::kNotFound, fmt::format("there is no tenant {}", number));
  const std::chrono::year_month_day date(std::chrono::floor<std::chrono::days>(
      std::chrono::sys_seconds(std::chrono::seconds(month.from))));
  Invoice invoice;
  invoice.number = fmt::format("{}-{:04}-{:02}", tenant->id, static_cast<int>(date.year()),
                               static_cast<unsigned>(date.month()));
  invoice.tenant = *tenant;
  invoice.currency = directory->currency();
  invoice.from = month.from;
  invoice.to = month.to;
  // What was posted in the last moments of a month may be tried to be written for a while.
  constexpr int64_t kLateSeconds = 600;
  invoice.is_open = impl_->clock.UnixSeconds() < month.to + kLateSeconds;
  TRY_ASSIGN(invoice.lines, impl_->store->ReadInvoiceLines(number, month.from, month.to));
  for (const InvoiceLine& line : invoice.lines) invoice.total += line.amount;
  return invoice;
}

Result<std::vector<std::string>> Ledger::Verify() const {
  return impl_->store->Verify([&](const std::string& request_id) {
    const std::lock_guard lock(impl_->mutex);
    return impl_->holds.contains(request_id);
  });
}

Store& Ledger::store() const { return *impl_->store; }

}  // namespace millpower::ledger
