// What ledger.cc (work) and administration.cc share.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ledger/book.h"
#include "ledger/journal.h"
#include "ledger/ledger.h"
#include "ledger/tariff.h"

namespace millpower::ledger {

// A request under way.
struct LiveHold {
  // Its own record is queued, so that memory has taken what it holds; what came after waits for it.
  Hold hold;
  Tariff tariff;
  Quantities most{};  // held
  std::string api_request_id;
  // kClosing: posting or voiding it is queued. kGone: forgotten; those who still have it must leave
  // the book alone.
  enum class State { kOpen, kClosing, kGone } state = State::kOpen;
};

struct Ledger::Impl {
  Impl(std::unique_ptr<Store> store_, const Clock& clock_, const LedgerOptions& options, Book book_,
       std::shared_ptr<const Directory> directory_, const AuditEntry& last_audit,
       Number next_number_)
      : store(std::move(store_)),
        clock(clock_),
        book(std::move(book_)),
        directory(std::move(directory_)),
        next_number(next_number_),
        journal(*store, clock_,
                {.retry_ns = options.retry_ns, .retry_pause_ns = options.retry_pause_ns},
                last_audit) {}

  // ---- Work.
  Result<std::vector<std::shared_ptr<LiveHold>>> Admit(const std::vector<HoldRequest>& requests);
  // The most output tokens up to `wanted` that caps and credit leave, and holds them.
  // Returns what was held for them.
  struct Slice {
    int64_t count = 0;
    Totals more;
  };
  Result<Slice> Grow(LiveHold& live, int64_t wanted);
  std::shared_ptr<LiveHold> Find(const std::string& request_id);
  void Forget(LiveHold& live);
  // Gives back all of it, and forgets it.
  void Free(LiveHold& live);
  // Queues the end of a hold: a posting, or without a usage a void.
  void Close(const std::shared_ptr<LiveHold>& live, std::optional<Usage> usage, Done done);
  // A void that is written as soon as the store can be, and that nobody waits for.
  Journal::Entry OwedVoid(const std::shared_ptr<LiveHold>& live);

  // ---- Administration (with `administration` locked).
  // Writes and waits. `prepare` as the journal's, may be null.
  Result<void> Write(std::vector<Record> records,
                     std::function<Result<void>(Store&)> prepare = nullptr);
  AuditEntry Audit(const std::string& actor, const char* action, const std::string& subject,
                   const Json& details) const;
  std::shared_ptr<const Directory> Current() const;
  // A new picture, in which `change` changed copies of the lists.
  struct Lists {
    std::vector<Tenant> tenants;
    std::vector<Project> projects;
    std::vector<Key> keys;
    std::vector<Price> prices;
    std::vector<Lease> leases;
  };
  void Replace(const std::function<void(Lists&)>& change);

  const std::unique_ptr<Store> store;
  const Clock& clock;

  mutable std::mutex mutex;  // of all that follows, up to the next lock
  Book book;
  std::shared_ptr<const Directory> directory;
  std::unordered_map<std::string, std::shared_ptr<LiveHold>> holds;
  int64_t recovered_holds = 0;

  // Held by a call of administration from start to end: one at a time, so that what it found still
  // is so when it is written. Taken before `mutex`.
  std::mutex administration;
  Number next_number;

  Journal journal;  // last: its thread ends before the rest goes
};

}  // namespace millpower::ledger
