#include "ledger/journal.h"

#include <fmt/format.h>

#include <chrono>
#include <iterator>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/json.h"
#include "ledger/audit.h"

namespace millpower::ledger {
namespace {

// Bounds how long a transaction takes, and so how long the first of a batch waits for the last.
constexpr size_t kMaxBatchRecords = 4096;

// What the audit log says of a batch that was given up: what was lost.
std::string Loss(const std::vector<Record>& records, const Error& error) {
  int64_t holds = 0, extensions = 0, posts = 0, others = 0;
  Micros unbilled = 0;
  for (const Record& record : records) {
    if (std::holds_alternative<HoldOpened>(record)) {
      ++holds;
    } else if (std::holds_alternative<HoldExtended>(record)) {
      ++extensions;
    } else if (const auto* closed = std::get_if<HoldClosed>(&record)) {
      if (closed->usage) ++posts, unbilled += closed->usage->amount;
    } else {
      ++others;
    }
  }
  return DumpJson({{"error", error.message},
                   {"holds", holds},
                   {"extensions", extensions},
                   {"posts", posts},
                   {"unbilled", FormatMoney(unbilled)},
                   {"other_records", others}});
}

}  // namespace

Journal::Journal(Store& store, const Clock& clock, const Options& options, AuditEntry last_audit)
    : store_(store),
      clock_(clock),
      options_(options),
      last_audit_(std::move(last_audit)),
      thread_([this] { Run(); }) {}

Journal::~Journal() { Close(); }

void Journal::Close() {
  {
    const std::lock_guard lock(mutex_);
    is_closing_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Journal::Append(Entry entry) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(entry));
  }
  wake_.notify_one();
}

void Journal::Answer(std::function<void()> answer) {
  {
    const std::lock_guard lock(mutex_);
    answers_.push_back(std::move(answer));
  }
  wake_.notify_all();
}

Result<void> Journal::health() const {
  const std::lock_guard lock(mutex_);
  return health_;
}

Journal::Stats Journal::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void Journal::Run() {
  for (;;) {
    std::vector<Entry> batch = TakeBatch();
    if (batch.empty()) return;
    WriteBatch(std::move(batch));
  }
}

std::vector<Journal::Entry> Journal::TakeBatch() {
  std::unique_lock lock(mutex_);
  // What is owed can't wait for something else to come, but only for the store.
  if (!owed_.empty() && !stats_.healthy && queue_.empty()) Pause(lock);
  for (;;) {
    GiveAnswers(lock);
    if (!queue_.empty() || !owed_.empty() || is_closing_) break;
    wake_.wait(lock);
  }
  std::vector<Entry> batch;
  size_t records = 0;
  for (std::deque<Entry>* from : {&owed_, &queue_}) {
    while (!from->empty() && (batch.empty() || records < kMaxBatchRecords)) {
      records += from->front().records.size();
      batch.push_back(std::move(from->front()));
      from->pop_front();
    }
  }
  return batch;
}

void Journal::WriteBatch(std::vector<Entry> batch) {
  std::vector<Record> records;
  std::vector<Entry> written;
  written.reserve(batch.size());
  bool may_give_up = false;
  for (Entry& entry : batch) {
    if (entry.prepare) {
      if (Result<void> prepared = entry.prepare(store_, entry.records); !prepared) {
        std::vector<Entry> instead;
        entry.done(prepared, instead);
        CHECK(instead.empty()) << "an entry that was not written leaves nothing behind";
        continue;
      }
      entry.prepare = nullptr;  // once
    }
    may_give_up |= !entry.must && !entry.records.empty();
    // What is owed is kept where it is, for the next try.
    if (entry.must) {
      records.insert(records.end(), entry.records.begin(), entry.records.end());
    } else {
      std::move(entry.records.begin(), entry.records.end(), std::back_inserter(records));
    }
    written.push_back(std::move(entry));
  }
  const Result<void> result =
      records.empty() ? Result<void>{} : Commit(records, may_give_up ? options_.retry_ns : 0);
  if (!result) return GiveUp(std::move(written), std::move(records), result.error());
  for (Entry& entry : written) {
    std::vector<Entry> instead;
    entry.done(result, instead);
    CHECK(instead.empty()) << "an entry that was written needs no other";
  }
}

Result<void> Journal::Commit(std::vector<Record>& records, int64_t retry_ns) {
  AuditEntry last = last_audit_;
  for (Record& record : records) {
    auto* entry = std::get_if<AuditEntry>(&record);
    if (!entry) continue;
    entry->number = last.number + 1;
    entry->hash = AuditHash(last.hash, *entry);
    last = *entry;
  }
  const int64_t start_ns = clock_.NowNs();
  for (bool was_closing = false;;) {
    Result<void> committed = store_.Commit(records);
    std::unique_lock lock(mutex_);
    stats_.healthy = committed.has_value();
    health_ = committed;
    if (committed) {
      ++stats_.commits;
      stats_.records += static_cast<int64_t>(records.size());
      last_audit_ = std::move(last);
      return {};
    }
    ++stats_.failed_commits;
    if (was_closing || clock_.NowNs() - start_ns >= retry_ns) return committed;
    was_closing = is_closing_;
    Pause(lock);
  }
}

void Journal::GiveUp(std::vector<Entry> batch, std::vector<Record> records, const Error& error) {
  const Result<void> failed =
      Fail(ErrorCode::kUnavailable, fmt::format("the ledger can't be written: {}", error.message));
  std::deque<Entry> owed;
  bool lost = false;
  for (Entry& entry : batch) {
    if (entry.must) {
      owed.push_back(std::move(entry));
      continue;
    }
    lost = true;
    std::vector<Entry> instead;
    entry.done(failed, instead);
    std::move(instead.begin(), instead.end(), std::back_inserter(owed));
  }
  // Besides telling the operator it tries the store out, so that holds are taken again when it
  // works.
  if (lost) {
    AuditEntry audit{.number = 0,
                     .at = clock_.UnixSeconds(),
                     .actor = "server",
                     .action = "ledger.give_up",
                     .subject = "",
                     .details = Loss(records, error),
                     .hash = ""};
    owed.push_back({.records = {std::move(audit)},
                    .prepare = nullptr,
                    .done = [](const Result<void>&, std::vector<Entry>&) {},
                    .must = true});
  }
  std::move(owed_.begin(), owed_.end(), std::back_inserter(owed));
  owed_ = std::move(owed);

  const std::lock_guard lock(mutex_);
  // What is owed is written if a last try succeeds, and otherwise at the next start.
  if (is_closing_ && queue_.empty() && !lost) owed_.clear();
}

void Journal::Pause(std::unique_lock<std::mutex>& lock) {
  const auto until =
      std::chrono::steady_clock::now() + std::chrono::nanoseconds(options_.retry_pause_ns);
  while (!is_closing_) {
    GiveAnswers(lock);
    if (is_closing_ ||
        !wake_.wait_until(lock, until, [&] { return is_closing_ || !answers_.empty(); }))
      return;
  }
}

void Journal::GiveAnswers(std::unique_lock<std::mutex>& lock) {
  while (!answers_.empty()) {
    const std::function<void()> answer = std::move(answers_.front());
    answers_.pop_front();
    lock.unlock();
    answer();
    lock.lock();
  }
}

}  // namespace millpower::ledger
