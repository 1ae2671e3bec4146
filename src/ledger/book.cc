#include "ledger/book.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <iterator>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/rng.h"

namespace millpower::ledger {
namespace {

constexpr Period kPeriods[] = {Period::kDay, Period::kMonth, Period::kTotal};
constexpr int64_t kSecondsPerDay = 86'400;
constexpr Account kRevenue{AccountKind::kRevenue, 0};
constexpr Account kPayments{AccountKind::kPayments, 0};

Account Credit(Number tenant) { return {AccountKind::kCredit, tenant}; }
Account Held(Number tenant) { return {AccountKind::kHeld, tenant}; }

int64_t Of(const Totals& totals, Measure measure) {
  return measure == Measure::kMoney ? totals.money : totals.tokens;
}

Totals Sum(const Totals& a, const Totals& b) { return {a.money + b.money, a.tokens + b.tokens}; }
Totals Minus(const Totals& a) { return {-a.money, -a.tokens}; }

// A subject as decisions see it.
struct Bounded {
  Subject subject;
  Number number;
  const std::string* name;
  const Bounds* bounds;
};

// Those whose caps a charge counts to, the narrowest first.
std::vector<Bounded> BoundedBy(const Directory& directory, const Charge& charge) {
  std::vector<Bounded> all;
  if (const Key* key = directory.FindKey(charge.key))
    all.push_back({Subject::kKey, key->number, &key->name, &key->bounds});
  if (const Project* project = directory.FindProject(charge.project))
    all.push_back({Subject::kProject, project->number, &project->name, &project->bounds});
  const Tenant* tenant = directory.FindTenant(charge.tenant);
  CHECK(tenant) << "tenant " << charge.tenant;
  all.push_back({Subject::kTenant, tenant->number, &tenant->name, &tenant->bounds});
  return all;
}

// How far below zero the credit may go. Without a bound it may by the largest amount there is, so
// that sums of balances fit their type.
Micros LineOf(const Tenant& tenant) { return tenant.credit_line.value_or(kMaxMicros); }

std::string Told(Measure measure, int64_t value) {
  return measure == Measure::kMoney ? FormatMoney(value) : fmt::format("{}", value);
}

std::unexpected<Error> CapExceeded(const Bounded& who, const Cap& cap, int64_t left, int64_t needed,
                                   const std::string& currency) {
  const bool is_money = cap.measure == Measure::kMoney;
  return Fail(
      ErrorCode::kQuotaExceeded,
      fmt::format("the {} cap of {} '{}' ({} {}) has {} left; this request needs {}",
                  Name(cap.period), Name(who.subject), *who.name, Told(cap.measure, cap.limit),
                  is_money ? currency : "tokens", Told(cap.measure, std::max<int64_t>(left, 0)),
                  Told(cap.measure, needed)));
}

std::unexpected<Error> Corrupt(std::string what) {
  return Fail(ErrorCode::kCorrupt, "the ledger's books do not add up: " + std::move(what));
}

const char* Name(AccountKind kind) {
  constexpr const char* kNames[] = {"credit", "held", "revenue", "payments"};
  return kNames[static_cast<size_t>(kind)];
}

template <typename T>
std::set<Number> NumbersOf(const std::vector<T>& all) {
  std::set<Number> numbers;
  for (const T& one : all) numbers.insert(one.number);
  return numbers;
}

// That every balance is somebody's, that all together are zero, and that each tenant's held account
// is the sum of its holds.
Result<void> CheckBalances(const StoredState& state) {
  const std::set<Number> tenants = NumbersOf(state.tenants);
  __int128 sum = 0;
  for (const auto& [account, amount] : state.balances) {
    const bool is_ours =
        account.kind == AccountKind::kRevenue || account.kind == AccountKind::kPayments;
    if (is_ours != (account.tenant == 0) || (!is_ours && !tenants.contains(account.tenant)))
      return Corrupt(fmt::format("there is a balance of the {} account of tenant {}, which is none",
                                 Name(account.kind), account.tenant));
    sum += amount;
  }
  if (sum != 0)
    return Corrupt(fmt::format("the balances of all accounts add up to {}, not to 0",
                               FormatMoney(static_cast<Micros>(sum))));
  std::map<Number, Micros> held;
  for (const Hold& hold : state.holds) held[hold.tenant] += hold.amount;
  for (const Number tenant : tenants) {
    const auto found = state.balances.find(Held(tenant));
    const Micros balance = found == state.balances.end() ? 0 : found->second;
    if (balance != held[tenant])
      return Corrupt(fmt::format("the held account of tenant {} has {}, its open holds have {}",
                                 tenant, FormatMoney(balance), FormatMoney(held[tenant])));
  }
  return {};
}

}  // namespace

const char* Name(Period period) {
  constexpr const char* kNames[] = {"day", "month", "total"};
  return kNames[static_cast<size_t>(period)];
}

const char* Name(Subject subject) {
  constexpr const char* kNames[] = {"tenant", "project", "key"};
  return kNames[static_cast<size_t>(subject)];
}

Charge ChargeOf(const Hold& hold) {
  return {hold.tenant, hold.project, hold.key, hold.admitted_at, {hold.amount, hold.tokens}};
}

int64_t PeriodIndex(Period period, int64_t at) {
  if (period == Period::kTotal) return 0;
  const std::chrono::sys_days day =
      std::chrono::floor<std::chrono::days>(std::chrono::sys_seconds(std::chrono::seconds(at)));
  if (period == Period::kDay) return day.time_since_epoch().count();
  const std::chrono::year_month_day date(day);
  return static_cast<int>(date.year()) * int64_t{12} + static_cast<unsigned>(date.month()) - 1;
}

size_t Book::PlaceHash::operator()(const Place& place) const {
  const uint64_t kinds = static_cast<uint64_t>(place.subject) * std::size(kPeriods) +
                         static_cast<uint64_t>(place.period);
  return RandomBits(static_cast<uint64_t>(place.number) * 16 + kinds,
                    static_cast<uint64_t>(place.index));
}

Result<Book> Book::Load(const StoredState& state) {
  const std::set<Number> tenants = NumbersOf(state.tenants);
  std::map<Number, const Key*> keys;
  for (const Key& key : state.keys) keys[key.number] = &key;
  std::set<std::string_view> requests;
  for (const Hold& hold : state.holds) {
    const auto key = keys.find(hold.key);
    if (key == keys.end() || key->second->project != hold.project ||
        key->second->tenant != hold.tenant)
      return Corrupt(fmt::format("the hold of request '{}' is of key {}, project {}, tenant {}",
                                 hold.request_id, hold.key, hold.project, hold.tenant));
    if (hold.amount < 0 || hold.tokens < 0 || !requests.insert(hold.request_id).second)
      return Corrupt(
          fmt::format("the hold of request '{}' is negative, or there twice", hold.request_id));
  }
  TRY(CheckBalances(state));

  Book book;
  book.balances_ = state.balances;
  for (const Key& key : state.keys)
    if (key.root != 0) book.CountTogether(key.number, key.root);
  for (const Hold& hold : state.holds) book.Count(ChargeOf(hold), {}, {hold.amount, hold.tokens});
  Micros earned = 0;
  for (const Spent& spent : state.spent) {
    if (spent.key == 0) continue;  // leases, which follow
    const auto found = keys.find(spent.key);
    if (found == keys.end())
      return Corrupt(
          fmt::format("key {} spent on day {}, but there is none", spent.key, spent.day));
    const Key& key = *found->second;
    const Charge charge{key.tenant, key.project, key.number, spent.day * kSecondsPerDay, {}};
    book.Count(charge, {spent.money, spent.tokens}, {});
    earned += spent.money;
  }
  for (const Lease& lease : state.leases) {
    if (!tenants.contains(lease.tenant))
      return Corrupt(
          fmt::format("lease {} is of tenant {}, which is none", lease.id, lease.tenant));
    book.Count({lease.tenant, 0, 0, lease.created_at, {}}, {lease.amount, 0}, {});
    earned += lease.amount;
  }
  if (book.Balance(kRevenue) != earned)
    return Corrupt(fmt::format("the revenue account has {}, but keys and leases spent {}",
                               FormatMoney(book.Balance(kRevenue)), FormatMoney(earned)));
  return book;
}

Result<void> Book::Check(const Directory& directory, std::span<const Charge> charges) const {
  struct Need {
    Bounded who;
    Totals totals;
  };
  std::vector<Need> needs;
  Totals all;
  for (const Charge& charge : charges) {
    CHECK(charge.tenant == charges[0].tenant && charge.at == charges[0].at);
    all = Sum(all, charge.most);
    for (const Bounded& who : BoundedBy(directory, charge)) {
      const auto found = std::ranges::find_if(needs, [&](const Need& need) {
        return need.who.subject == who.subject && need.who.number == who.number;
      });
      if (found == needs.end()) {
        needs.push_back({who, charge.most});
      } else {
        found->totals = Sum(found->totals, charge.most);
      }
    }
  }
  for (const Need& need : needs) {
    for (const Cap& cap : need.who.bounds->caps) {
      const State state = StateOf(need.who.subject, need.who.number, cap.period, charges[0].at);
      const int64_t left = cap.limit - Of(state.posted, cap.measure) - Of(state.held, cap.measure);
      const int64_t needed = Of(need.totals, cap.measure);
      if (needed > 0 && needed > left)
        return CapExceeded(need.who, cap, left, needed, directory.currency());
    }
  }
  const Tenant& tenant = *directory.FindTenant(charges[0].tenant);
  const Micros left = Balance(Credit(tenant.number)) + LineOf(tenant);
  if (all.money > 0 && all.money > left)
    return Fail(ErrorCode::kQuotaExceeded,
                fmt::format("the credit of tenant '{}' has {} {} left; this request needs {}",
                            tenant.name, FormatMoney(std::max<Micros>(left, 0)),
                            directory.currency(), FormatMoney(all.money)));
  return {};
}

Totals Book::Room(const Directory& directory, const Charge& charge) const {
  const Tenant* tenant = directory.FindTenant(charge.tenant);
  CHECK(tenant) << "tenant " << charge.tenant;
  Totals room{Balance(Credit(tenant->number)) + LineOf(*tenant), INT64_MAX};
  for (const Bounded& who : BoundedBy(directory, charge)) {
    for (const Cap& cap : who.bounds->caps) {
      const State state = StateOf(who.subject, who.number, cap.period, charge.at);
      const int64_t left = cap.limit - Of(state.posted, cap.measure) - Of(state.held, cap.measure);
      int64_t& least = cap.measure == Measure::kMoney ? room.money : room.tokens;
      least = std::min(least, left);
    }
  }
  return room;
}

void Book::Reserve(const Charge& charge) {
  Move(Credit(charge.tenant), Held(charge.tenant), charge.most.money);
  Count(charge, {}, charge.most);
}

void Book::Release(const Charge& charge) { Settle(charge, {}); }

void Book::Settle(const Charge& charge, const Totals& used) {
  CHECK(used.money <= charge.most.money && used.tokens <= charge.most.tokens)
      << used.money << " of " << charge.most.money << ", " << used.tokens << " tokens of "
      << charge.most.tokens;
  Move(Held(charge.tenant), kRevenue, used.money);
  Move(Held(charge.tenant), Credit(charge.tenant), charge.most.money - used.money);
  Count(charge, used, Minus(charge.most));
}

void Book::Pay(Number tenant, Micros amount) { Move(kPayments, Credit(tenant), amount); }

void Book::Refund(const Charge& charge) {
  Move(kRevenue, Credit(charge.tenant), charge.most.money);
  Count(charge, Minus(charge.most), {});
}

Micros Book::Balance(Account account) const {
  const auto found = balances_.find(account);
  return found == balances_.end() ? 0 : found->second;
}

Book::State Book::StateOf(Subject subject, Number number, Period period, int64_t at) const {
  const auto found = states_.find(PlaceOf(subject, number, period, at));
  return found == states_.end() ? State{} : found->second;
}

Book::Place Book::PlaceOf(Subject subject, Number number, Period period, int64_t at) const {
  const auto root = subject == Subject::kKey ? roots_.find(number) : roots_.end();
  return {subject, period, root == roots_.end() ? number : root->second, PeriodIndex(period, at)};
}

void Book::Move(Account from, Account to, Micros amount) {
  balances_[from] -= amount;
  balances_[to] += amount;
}

void Book::Count(const Charge& charge, const Totals& posted, const Totals& held) {
  const std::pair<Subject, Number> subjects[] = {{Subject::kKey, charge.key},
                                                 {Subject::kProject, charge.project},
                                                 {Subject::kTenant, charge.tenant}};
  for (const Period period : kPeriods) {
    for (const auto& [subject, number] : subjects) {
      if (number == 0) continue;
      State& state = states_[PlaceOf(subject, number, period, charge.at)];
      state.posted = Sum(state.posted, posted);
      state.held = Sum(state.held, held);
      CHECK(state.held.money >= 0 && state.held.tokens >= 0)
          << Name(subject) << ' ' << number << " holds " << state.held.money;
    }
  }
}

}  // namespace millpower::ledger
