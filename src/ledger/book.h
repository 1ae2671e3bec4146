// Balances, and what was spent and is held by whom in which period, in memory: what decisions are
// made from. It decides for the Ledger and is told what became durable. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <unordered_map>

#include "base/result.h"
#include "ledger/directory.h"
#include "ledger/records.h"
#include "ledger/store.h"

namespace millpower::ledger {

struct Totals {
  Micros money = 0;
  int64_t tokens = 0;
  bool operator==(const Totals&) const = default;
};

// An amount that is held, or is to be, and whose caps it counts to.
struct Charge {
  Number tenant = 0, project = 0, key = 0;  // project and key 0: the tenant's own (a lease)
  int64_t at = 0;                           // counts to the periods of this time
  Totals most;
};
Charge ChargeOf(const Hold& hold);

// The number of the day or month (UTC, proleptic Gregorian) that a time is in; kTotal: 0. Going up.
int64_t PeriodIndex(Period period, int64_t at);

const char* Name(Period period);    // "day"
const char* Name(Subject subject);  // "tenant"

class Book {
 public:
  // Errors: kCorrupt, naming what does not add up.
  static Result<Book> Load(const StoredState& state);

  // Whether caps and credit cover all of them together, as the directory has them now. They share
  // one tenant and one time. Errors: kQuotaExceeded, naming the first that does not.
  Result<void> Check(const Directory& directory, std::span<const Charge> charges) const;
  // The most that caps and credit leave for a charge's owner at its time; INT64_MAX: no bound.
  Totals Room(const Directory& directory, const Charge& charge) const;

  // credit -> held.
  void Reserve(const Charge& charge);
  // held -> credit: all of `charge`.
  void Release(const Charge& charge);
  // held -> revenue: `used`, and held -> credit: the rest of `charge`. `used` is not more.
  void Settle(const Charge& charge, const Totals& used);
  // payments -> credit, or back.
  void Pay(Number tenant, Micros amount);
  // revenue -> credit, taken off what was spent at the charge's time.
  void Refund(const Charge& charge);

  // What `key` spends counts to the caps of `root` from now on, and asking for either tells of
  // both.
  void CountTogether(Number key, Number root) { roots_[key] = root; }

  Micros Balance(Account account) const;
  struct State {
    Totals posted, held;
  };
  State StateOf(Subject subject, Number number, Period period, int64_t at) const;

 private:
  struct Place {
    Subject subject;
    Period period;
    Number number;
    int64_t index;  // PeriodIndex
    bool operator==(const Place&) const = default;
  };
  struct PlaceHash {
    size_t operator()(const Place& place) const;
  };

  Place PlaceOf(Subject subject, Number number, Period period, int64_t at) const;
  void Move(Account from, Account to, Micros amount);
  // Adds to the counters of every subject of the charge, in every period.
  void Count(const Charge& charge, const Totals& posted, const Totals& held);

  std::map<Account, Micros> balances_;
  std::unordered_map<Number, Number> roots_;  // of keys that were rotated
  // Every period since the start, so that none is forgotten when the clock jumps.
  std::unordered_map<Place, State, PlaceHash> states_;
};

}  // namespace millpower::ledger
