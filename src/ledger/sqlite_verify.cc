#include "ledger/sqlite_verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "ledger/audit.h"
#include "ledger/key_secret.h"
#include "ledger/money.h"
#include "ledger/schema.h"
#include "ledger/sqlite_reader.h"

namespace millpower::ledger {
namespace {

using Sum = __int128;  // of rows that may be anything

std::string Money(Sum amount) {
  return FormatMoney(static_cast<Micros>(std::clamp<Sum>(amount, INT64_MIN, INT64_MAX)));
}

// Which account each kind of posting leaves and reaches.
struct Sides {
  const char* name;
  AccountKind from, to;
};
constexpr Sides kSides[] = {
    {"payment", AccountKind::kPayments, AccountKind::kCredit},
    {"hold", AccountKind::kCredit, AccountKind::kHeld},
    {"extend", AccountKind::kCredit, AccountKind::kHeld},
    {"post", AccountKind::kHeld, AccountKind::kRevenue},
    {"release", AccountKind::kHeld, AccountKind::kCredit},
    {"lease", AccountKind::kCredit, AccountKind::kRevenue},
    {"refund", AccountKind::kRevenue, AccountKind::kCredit},
};
static_assert(std::size(kSides) == static_cast<size_t>(PostingKind::kRefund) + 1);
constexpr const char* kAccountNames[] = {"credit", "held", "revenue", "payments"};

bool IsOurs(AccountKind kind) {
  return kind == AccountKind::kRevenue || kind == AccountKind::kPayments;
}

class Verifier {
 public:
  Verifier(Database& database, const std::function<bool(const std::string&)>& is_live)
      : database_(database), is_live_(is_live) {}

  Result<std::vector<std::string>> Run() {
    {
      TRY_ASSIGN(const Snapshot snapshot, Snapshot::Take(database_));
      // The snapshot is of the first thing read, so that must be readable.
      TRY(database_.Execute("SELECT 1 FROM sqlite_schema"));
      Try("the file", [&] { return CheckFile(); });
      Try("tenants", [&] { return ReadTenants(); });
      Try("balances", [&] { return CheckBalances(); });
      Try("requests", [&] { return CheckRequests(); });
      Try("usage", [&] { return CheckUsage(); });
      Try("spent", [&] { return CheckSpent(); });
      Try("payments", [&] { return CheckPayments(); });
      Try("audit", [&] { return CheckAudit(); });
      Try("holds", [&] { return FindDeadHolds(); });
    }
    Try("holds", [&] { return CheckOrphans(); });
    return std::move(faults_);
  }

 private:
  template <typename Check>
  void Try(const char* what, Check check) {
    const Result<void> done = check();
    if (!done) Fault("{} can't be checked: {}", what, done.error().message);
  }

  template <typename... Args>
  void Fault(fmt::format_string<Args...> format, Args&&... args) {
    if (faults_.size() < kMaxFaults)
      faults_.push_back(fmt::format(format, std::forward<Args>(args)...));
    else if (faults_.size() == kMaxFaults)
      faults_.emplace_back("there are more faults than are listed here");
  }

  template <typename Each>
  Result<void> ForEach(const char* sql, Each each) {
    TRY_ASSIGN(Statement row, database_.Prepare(sql));
    return ForEachRow(row, [&]() -> Result<void> {
      each(row);
      return {};
    });
  }

  std::string TenantName(Number number) const {
    const auto found = tenants_.find(number);
    return found == tenants_.end() ? fmt::format("tenant {}", number) : found->second;
  }
  std::string NameOf(int64_t account_number) const {
    const Account account = AccountOfNumber(account_number);
    const char* kind = kAccountNames[static_cast<size_t>(account.kind)];
    return account.tenant ? fmt::format("{} of {}", kind, TenantName(account.tenant)) : kind;
  }

  Result<void> CheckFile() {
    TRY(ForEach("PRAGMA integrity_check", [&](const Statement& row) {
      if (row.Text(0) != "ok") Fault("the file is damaged: {}", row.Text(0));
    }));
    return ForEach("PRAGMA foreign_key_check", [&](const Statement& row) {
      Fault("row {} of {} names a row of {} that does not exist", row.IsNull(1) ? "?" : row.Text(1),
            row.Text(0), row.Text(2));
    });
  }

  Result<void> ReadTenants() {
    return ForEach("SELECT number, id FROM tenants",
                   [&](const Statement& row) { tenants_[row.Int(0)] = row.Text(1); });
  }

  // Every posting is well-formed; every account's balance is the sum of its postings; all of them
  // are zero together; what is held is the sum of holds, what was earned that of usage.
  Result<void> CheckBalances() {
    std::map<int64_t, Sum> posted, balances;
    TRY(ForEach("SELECT number, kind, source, target, amount, request, payment FROM postings",
                [&](const Statement& row) {
                  const int64_t source = row.Int(2), target = row.Int(3), amount = row.Int(4);
                  posted[source] -= amount;
                  posted[target] += amount;
                  CheckPosting(row);
                }));
    TRY(ForEach("SELECT account, amount FROM balances",
                [&](const Statement& row) { balances[row.Int(0)] = row.Int(1); }));
    for (const auto& [account, amount] : posted) balances.try_emplace(account, 0);
    Sum total = 0;
    for (const auto& [account, balance] : balances) {
      total += balance;
      if (balance != posted[account])
        Fault("{}: the balance is {}, but its postings add up to {}", NameOf(account),
              Money(balance), Money(posted[account]));
    }
    if (total != 0) Fault("all accounts add up to {}, not to {}", Money(total), Money(0));

    std::map<Number, Sum> held;
    TRY(ForEach("SELECT tenant, amount FROM holds",
                [&](const Statement& row) { held[row.Int(0)] += row.Int(1); }));
    for (const auto& [account, balance] : balances) {
      if (AccountOfNumber(account).kind == AccountKind::kHeld)
        held.try_emplace(AccountOfNumber(account).tenant, 0);
    }
    for (const auto& [tenant, amount] : held) {
      const Sum balance = balances[AccountNumber({AccountKind::kHeld, tenant})];
      if (balance != amount)
        Fault("held of {}: the balance is {}, but its open holds add up to {}", TenantName(tenant),
              Money(balance), Money(amount));
    }
    Sum earned = 0;
    TRY(ForEach("SELECT amount FROM usage", [&](const Statement& row) { earned += row.Int(0); }));
    const Sum revenue = balances[AccountNumber({AccountKind::kRevenue, 0})];
    if (revenue != earned)
      Fault("revenue: the balance is {}, but all usage adds up to {}", Money(revenue),
            Money(earned));
    return {};
  }

  void CheckPosting(const Statement& row) {
    const int64_t number = row.Int(0), kind = row.Int(1);
    Account from = AccountOfNumber(row.Int(2)), to = AccountOfNumber(row.Int(3));
    if (row.Int(4) <= 0)
      Fault("posting {} moves {}, not more than 0.00", number, Money(row.Int(4)));
    if (kind < 0 || kind >= static_cast<int64_t>(std::size(kSides))) {
      Fault("posting {} is of kind {}, which there is not", number, kind);
      return;
    }
    const Sides& sides = kSides[kind];
    const bool is_payment = static_cast<PostingKind>(kind) == PostingKind::kPayment;
    if (is_payment && to.kind == sides.from) std::swap(from, to);  // paid back
    const auto is_sound = [](const Account& account, AccountKind wanted) {
      return account.kind == wanted && (account.tenant > 0) != IsOurs(wanted);
    };
    const bool crosses = !IsOurs(from.kind) && !IsOurs(to.kind) && from.tenant != to.tenant;
    if (!is_sound(from, sides.from) || !is_sound(to, sides.to) || crosses)
      Fault("posting {} ({}) goes from {} to {}", number, sides.name, NameOf(row.Int(2)),
            NameOf(row.Int(3)));
    if (row.IsNull(is_payment ? 6 : 5) || !row.IsNull(is_payment ? 5 : 6))
      Fault("posting {} ({}) does not name its {}", number, sides.name,
            is_payment ? "payment" : "request");
  }

  // What the postings of each request leave held is its open hold; what they earned, its usage.
  Result<void> CheckRequests() {
    TRY(ForEach(
        "WITH posted AS ("
        " SELECT request, SUM((target & 3 = 1) * amount - (source & 3 = 1) * amount) AS held,"
        "  SUM((target = 2) * amount - (source = 2) * amount) AS earned,"
        "  MIN(max(source, target) >> 2) AS low, MAX(max(source, target) >> 2) AS high"
        " FROM postings WHERE request IS NOT NULL GROUP BY request)"
        "SELECT request_id, posted.held, posted.earned, low, high, holds.amount, holds.tenant,"
        " usage.amount, usage.tenant"
        " FROM requests LEFT JOIN posted ON posted.request = requests.number"
        " LEFT JOIN holds ON holds.request = requests.number"
        " LEFT JOIN usage ON usage.request = requests.number",
        [&](const Statement& row) {
          const std::string id = row.Text(0);
          const Micros held = row.Int(1), earned = row.Int(2);
          if (row.IsNull(5) && held != 0)
            Fault("request {}: its postings leave {} held, but its hold is closed (0.00)", id,
                  Money(held));
          else if (held != row.Int(5))
            Fault("request {}: its postings leave {} held, but its hold is {}", id, Money(held),
                  Money(row.Int(5)));
          if (row.IsNull(7) && earned != 0)
            Fault("request {}: {} was posted, but there is no usage (0.00)", id, Money(earned));
          else if (earned != row.Int(7))
            Fault("request {}: {} was posted, but its usage is {}", id, Money(earned),
                  Money(row.Int(7)));
          if (row.IsNull(3)) return;  // no postings: nothing was charged
          for (const int column : {6, 8}) {
            const Number tenant = row.Int(column);
            if (!row.IsNull(column) && (row.Int(3) != tenant || row.Int(4) != tenant))
              Fault("request {}: its {} is of {}, but there are postings of {}", id,
                    column == 6 ? "hold" : "usage", TenantName(tenant),
                    TenantName(row.Int(3) != tenant ? row.Int(3) : row.Int(4)));
          }
        }));
    TRY(ForEach("SELECT request_id, COUNT(*) FROM requests GROUP BY request_id HAVING COUNT(*) > 1",
                [&](const Statement& row) {
                  Fault("request {} is there {} times, not once", row.Text(0), row.Int(1));
                }));
    return ForEach(
        "SELECT (SELECT request_id FROM requests WHERE number = request), COUNT(*) FROM usage"
        " GROUP BY request HAVING COUNT(*) > 1",
        [&](const Statement& row) {
          Fault("request {} was posted {} times, not once", row.Text(0), row.Int(1));
        });
  }

  // Each usage is the sum of its lines, each line what its price says. A lease (no key) is charged
  // by time that is left, so its lines are only added up.
  Result<void> CheckUsage() {
    struct Current {
      Number number = 0;
      std::string request_id;
      Micros amount = 0;
      Sum lines = 0;
    };
    std::optional<Current> usage;
    const auto finish = [&] {
      if (usage && usage->amount != usage->lines)
        Fault("usage {} (request {}): the amount is {}, but its lines add up to {}", usage->number,
              usage->request_id, Money(usage->amount), Money(usage->lines));
    };
    TRY(ForEach(
        "SELECT usage.number, request_id, usage.amount, key, position, usage_lines.unit, quantity,"
        " usage_lines.amount, price, rate, usage.tier"
        " FROM usage LEFT JOIN requests ON requests.number = usage.request"
        " LEFT JOIN usage_lines ON usage_lines.usage = usage.number"
        " LEFT JOIN prices ON prices.number = price ORDER BY usage.number",
        [&](const Statement& row) {
          if (!usage || usage->number != row.Int(0)) {
            finish();
            usage = {row.Int(0), row.Text(1), row.Int(2), 0};
            if (row.Int(10) < 0 || row.Int(10) >= kTierCount)
              Fault("usage {} (request {}) is of tier {}, which there is not", usage->number,
                    usage->request_id, row.Int(10));
          }
          if (row.IsNull(4)) return;  // no lines
          const Micros amount = row.Int(7);
          usage->lines += amount;
          const int64_t unit = row.Int(5), quantity = row.Int(6), rate = row.Int(9);
          const bool is_unit = unit >= 0 && unit < kUnitCount;
          if (!is_unit || row.IsNull(9) || rate < 0 || (row.Int(3) != 0 && quantity < 0)) {
            Fault("usage {} (request {}): line {} of {} at price {} makes no sense (unit {})",
                  usage->number, usage->request_id, row.Int(4), quantity, row.Int(8), unit);
          } else if (row.Int(3) != 0 && amount != CostOf(quantity, rate)) {
            Fault("usage {} (request {}): {} {} at price {} are charged {}, but cost {}",
                  usage->number, usage->request_id, quantity, Name(static_cast<Unit>(unit)),
                  row.Int(8), Money(amount), Money(CostOf(quantity, rate)));
          }
        }));
    finish();
    return {};
  }

  Result<void> CheckSpent() {
    using Totals = std::pair<Sum, Sum>;  // money, tokens
    std::map<std::pair<Number, int64_t>, Totals> used, spent;
    TRY(
        ForEach("SELECT key, admitted_at / 86400, amount,"
                " input_tokens, cached_tokens, output_tokens FROM usage WHERE key <> 0",
                [&](const Statement& row) {
                  Totals& totals = used[{row.Int(0), row.Int(1)}];
                  totals.first += row.Int(2);
                  for (const int column : {3, 4, 5}) totals.second += row.Int(column);
                }));
    TRY(ForEach("SELECT key, day, money, tokens FROM spent", [&](const Statement& row) {
      spent[{row.Int(0), row.Int(1)}] = {row.Int(2), row.Int(3)};
    }));
    std::map<Number, std::string> keys;
    TRY(ForEach("SELECT number, id FROM keys",
                [&](const Statement& row) { keys[row.Int(0)] = row.Text(1); }));
    for (const auto& [of, totals] : used) spent.try_emplace(of);
    for (const auto& [of, totals] : spent) {
      const auto [money, tokens] = used[of];
      const auto key = keys.find(of.first);
      const std::string name =
          fmt::format("{} on day {}",
                      key == keys.end() ? fmt::format("key {}", of.first) : key->second, of.second);
      if (totals.first != money)
        Fault("spent by {}: {}, but its usage adds up to {}", name, Money(totals.first),
              Money(money));
      if (totals.second != tokens)
        Fault("spent by {}: {} tokens, but its usage adds up to {} tokens", name,
              static_cast<int64_t>(totals.second), static_cast<int64_t>(tokens));
    }
    return {};
  }

  Result<void> CheckPayments() {
    TRY(
        ForEach("WITH posted AS ("
                " SELECT payment, SUM((source = 3) * amount - (target = 3) * amount) AS paid,"
                "  MAX(max(source, target) >> 2) AS tenant"
                " FROM postings WHERE payment IS NOT NULL GROUP BY payment)"
                "SELECT reference, amount, paid, payments.tenant, posted.tenant"
                " FROM payments LEFT JOIN posted ON posted.payment = payments.number",
                [&](const Statement& row) {
                  if (row.Int(1) != row.Int(2))
                    Fault("payment {} is of {}, but {} was posted", row.Text(0), Money(row.Int(1)),
                          Money(row.Int(2)));
                  if (!row.IsNull(4) && row.Int(3) != row.Int(4))
                    Fault("payment {} is of {}, but was posted to {}", row.Text(0),
                          TenantName(row.Int(3)), TenantName(row.Int(4)));
                }));
    return ForEach(
        "SELECT reference, COUNT(*) FROM payments GROUP BY reference HAVING COUNT(*) > 1",
        [&](const Statement& row) {
          Fault("payment {} was told {} times, but may count once", row.Text(0), row.Int(1));
        });
  }

  Result<void> CheckAudit() {
    std::string previous;
    Number expected = 1;
    return ForEach(
        "SELECT number, at, actor, action, subject, details, hash FROM audit"
        " ORDER BY number",
        [&](const Statement& row) {
          const AuditEntry entry{.number = row.Int(0),
                                 .at = row.Int(1),
                                 .actor = row.Text(2),
                                 .action = row.Text(3),
                                 .subject = row.Text(4),
                                 .details = row.Text(5),
                                 .hash = row.Blob(6)};
          if (entry.number != expected)
            Fault("audit: entry {} is there where entry {} should be", entry.number, expected);
          const std::string hash = AuditHash(previous, entry);
          if (entry.hash != hash)
            Fault("audit: entry {} has the hash {}, but it and those before give {}", entry.number,
                  HexOf(entry.hash), HexOf(hash));
          previous = entry.hash;
          expected = entry.number + 1;
        });
  }

  Result<void> FindDeadHolds() {
    return ForEach("SELECT request_id FROM holds JOIN requests ON requests.number = request",
                   [&](const Statement& row) {
                     std::string id = row.Text(0);
                     if (!is_live_(id)) dead_.push_back(std::move(id));
                   });
  }

  // A request may have ended since the snapshot; then its hold is gone by now. One that was not
  // under way before this look and still holds is nobody's.
  Result<void> CheckOrphans() {
    TRY_ASSIGN(Statement row,
               database_.Prepare("SELECT tenant, amount FROM holds WHERE request ="
                                 " (SELECT number FROM requests WHERE request_id = ?)"));
    for (const std::string& id : dead_) {
      TRY_ASSIGN(const bool is_held, row.Bind(1, id).Step());
      if (is_held)
        Fault("orphan: {} of {} are held for request {}, which is not under way (0.00)",
              Money(row.Int(1)), TenantName(row.Int(0)), id);
      row.Reset();
    }
    return {};
  }

  Database& database_;
  const std::function<bool(const std::string&)>& is_live_;
  std::map<Number, std::string> tenants_;  // ids
  std::vector<std::string> dead_;          // holds whose requests were not under way
  std::vector<std::string> faults_;
};

}  // namespace

Result<std::vector<std::string>> VerifyBooks(
    Database& database, const std::function<bool(const std::string& request_id)>& is_live) {
  return Verifier(database, is_live).Run();
}

}  // namespace millpower::ledger
