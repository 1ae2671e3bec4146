// The ledger's records in one SQLite file: write-ahead log, synchronous=FULL, so that a commit is
// on the disk when it returns. docs/ledger.md has the tables.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/result.h"
#include "ledger/store.h"

namespace millpower::ledger {

struct SqliteOptions {
  std::string currency = "USD";  // of a new file; one that exists keeps its own
  bool create = true;            // if there is none
  bool read_only = false;
  std::string vfs = {};  // "": the system's; tests put theirs in between
  // Pages (4 KiB) of the log from which on a commit moves them into the file: 16 MiB.
  int checkpoint_pages = 4000;
};

// Takes a lock that is held as long as the store lives: one server for one ledger.
// Errors: kNotFound, kIo, kCorrupt (not ours, or a version that is not known), kUnavailable (in use
// by another process).
Result<std::unique_ptr<Store>> OpenSqliteStore(const std::filesystem::path& file,
                                               const SqliteOptions& options = {});

}  // namespace millpower::ledger
