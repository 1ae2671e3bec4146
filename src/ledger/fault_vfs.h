// A disk for SQLite that fails when told to: full, syncs that fail, and power that goes away. For
// tests. It sits between SQLite and the system's files, which it really writes; syncs are only
// noted, so that many rounds take little time.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace millpower::ledger {

// Thread-safe. Outlives the databases that are opened by its name.
class FaultVfs {
 public:
  enum class Fault {
    kNone,
    kFull,        // writes fail with SQLITE_FULL
    kFailedSync,  // syncs fail with SQLITE_IOERR_FSYNC
    kPowerCut,    // nothing is written, synced or deleted any more
    kPowerCutAtSync,
  };

  FaultVfs();
  ~FaultVfs();
  FaultVfs(const FaultVfs&) = delete;
  FaultVfs& operator=(const FaultVfs&) = delete;

  // For SqliteOptions::vfs.
  const std::string& name() const { return name_; }

  // From the call number `first` on, counted from now and from 1: of writes, of syncs, of both, of
  // syncs.
  void Arm(Fault fault, int64_t first);
  void Disarm() { Arm(Fault::kNone, 0); }
  // Whether a call has failed since it was armed.
  bool has_failed() const;

  // When all databases are closed: what a disk without power has. Of the sectors written since
  // their file's last sync, each has the new bytes or those it had then, as `seed` wills.
  void LosePower(uint64_t seed);

 private:
  struct Methods;  // what SQLite calls
  // What is not on the disk yet.
  struct Unsynced {
    std::map<int64_t, std::string> sectors;  // by number: their bytes at the last sync
    int64_t size_bytes = 0;                  // the file's, then
  };
  struct File;  // an open one

  bool is_power_cut() const {
    return fault_ == Fault::kPowerCut || fault_ == Fault::kPowerCutAtSync;
  }
  // Whether a call of this kind fails now.
  bool Fails(bool is_sync);

  std::string name_;
  sqlite3_vfs vfs_{};
  sqlite3_vfs* real_ = nullptr;

  mutable std::mutex mutex_;
  Fault fault_ = Fault::kNone;
  int64_t first_ = 0, calls_ = 0;
  bool has_failed_ = false;
  std::map<std::string, Unsynced> files_;  // by path
};

}  // namespace millpower::ledger
