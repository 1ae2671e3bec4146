// Makes decisions durable: one thread writes what is queued, all that has come meanwhile in one
// transaction, so that one flush of the disk serves many (group commit).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "ledger/records.h"
#include "ledger/store.h"

namespace millpower::ledger {

class Journal {
 public:
  // What is written, all or none. Functions are called on the writer's thread without a lock.
  struct Entry {
    std::vector<Record> records;  // none: `done` is called in its turn
    // Before the first try; may complete the records. An error keeps it from being written. Null:
    // nothing to do.
    std::function<Result<void>(Store&, std::vector<Record>&)> prepare;
    // Once, when it is durable, or with an error when it never will be (kUnavailable: given up).
    // What it adds to `instead` is written as soon as the store works again.
    std::function<void(const Result<void>&, std::vector<Entry>& instead)> done;
    // Tried until it is written; `done` comes only then, and not at all if the journal ends before.
    bool must = false;
  };
  struct Options {
    // How long a commit that fails is tried again before it is given up, by the clock; and how long
    // it waits in between, in real time, so that a clock that stands still blocks nothing.
    int64_t retry_ns = 0, retry_pause_ns = 0;
  };
  struct Stats {
    int64_t commits = 0, records = 0, failed_commits = 0;
    bool healthy = true;
  };

  // `store` and `clock` outlive it. `last_audit`: the end of the chain, which entries continue.
  Journal(Store& store, const Clock& clock, const Options& options, AuditEntry last_audit);
  // As Close.
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Entries are written in the order of the calls. Audit entries get their number and hash then.
  void Append(Entry entry);
  // Calls `answer` on the writer's thread, without waiting for its turn.
  void Answer(std::function<void()> answer);

  // Writes what is queued; what can't be written is given up after one more try. Callbacks may
  // still queue more until it returns.
  void Close();

  // The last commit's error, if it failed.
  Result<void> health() const;
  Stats stats() const;
  bool IsWriter() const { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  void Run();
  // The next batch, waiting for one; empty: there is none and there will be none.
  std::vector<Entry> TakeBatch();
  void WriteBatch(std::vector<Entry> batch);
  Result<void> Commit(std::vector<Record>& records, int64_t retry_ns);
  // Tells those of `batch` that it was given up, and keeps what must be written.
  void GiveUp(std::vector<Entry> batch, std::vector<Record> records, const Error& error);
  // Sleeps between tries, answering meanwhile, or until the store is closed.
  void Pause(std::unique_lock<std::mutex>& lock);
  void GiveAnswers(std::unique_lock<std::mutex>& lock);

  Store& store_;
  const Clock& clock_;
  const Options options_;

  // Of the writer's thread.
  std::deque<Entry> owed_;  // written before all others
  AuditEntry last_audit_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Entry> queue_;
  std::deque<std::function<void()>> answers_;
  bool is_closing_ = false;
  Result<void> health_;
  Stats stats_;

  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace millpower::ledger
