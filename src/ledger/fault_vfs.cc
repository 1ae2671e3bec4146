#include "ledger/fault_vfs.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <new>

#include "base/check.h"
#include "base/rng.h"
#include "ledger/key_secret.h"

namespace millpower::ledger {
namespace {

constexpr int64_t kSectorSize = 512;

}  // namespace

// Begins like sqlite3_file; the real file's bytes follow.
struct FaultVfs::File {
  sqlite3_file base;
  FaultVfs* vfs;
  Unsynced* unsynced;  // null: a temporary file

  static File& Of(sqlite3_file* file) { return *reinterpret_cast<File*>(file); }
  static sqlite3_file* Real(sqlite3_file* file) {
    return reinterpret_cast<sqlite3_file*>(reinterpret_cast<std::byte*>(file) + kSize);
  }
  static const size_t kSize;

  // Keeps what sectors of [from, to) had at the last sync. Under the lock.
  void Keep(sqlite3_file* real, int64_t from, int64_t to) {
    if (!unsynced) return;
    for (int64_t sector = from / kSectorSize; sector * kSectorSize < to; ++sector) {
      if (unsynced->sectors.contains(sector)) continue;
      std::string bytes(kSectorSize, '\0');  // past the end: zeros
      real->pMethods->xRead(real, bytes.data(), kSectorSize, sector * kSectorSize);
      unsynced->sectors.emplace(sector, std::move(bytes));
    }
  }
};
const size_t FaultVfs::File::kSize = (sizeof(File) + 15) / 16 * 16;

struct FaultVfs::Methods {
  static FaultVfs& Of(sqlite3_vfs* vfs) { return *static_cast<FaultVfs*>(vfs->pAppData); }

  // ---- Files

  static int Close(sqlite3_file* file) {
    sqlite3_file* real = File::Real(file);
    return real->pMethods ? real->pMethods->xClose(real) : SQLITE_OK;
  }
  static int Write(sqlite3_file* file, const void* bytes, int count, sqlite3_int64 offset) {
    File& ours = File::Of(file);
    sqlite3_file* real = File::Real(file);
    const std::lock_guard lock(ours.vfs->mutex_);
    const bool was_cut = ours.vfs->has_failed_;
    const bool fails = ours.vfs->Fails(false);
    const bool is_cut = ours.vfs->is_power_cut();
    if (fails && !is_cut) return SQLITE_FULL;
    if (fails && was_cut) return SQLITE_IOERR_WRITE;
    // The power goes while these bytes are written: LosePower says how many of them there are.
    ours.Keep(real, offset, offset + count);
    const int rc = real->pMethods->xWrite(real, bytes, count, offset);
    return fails ? SQLITE_IOERR_WRITE : rc;
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) {
    File& ours = File::Of(file);
    sqlite3_file* real = File::Real(file);
    const std::lock_guard lock(ours.vfs->mutex_);
    if (ours.vfs->Fails(false)) return SQLITE_IOERR_TRUNCATE;
    sqlite3_int64 now = 0;
    real->pMethods->xFileSize(real, &now);
    ours.Keep(real, size, now);
    return real->pMethods->xTruncate(real, size);
  }
  static int Sync(sqlite3_file* file, int) {
    File& ours = File::Of(file);
    sqlite3_file* real = File::Real(file);
    const std::lock_guard lock(ours.vfs->mutex_);
    if (ours.vfs->Fails(true)) return SQLITE_IOERR_FSYNC;
    if (!ours.unsynced) return SQLITE_OK;
    sqlite3_int64 size = 0;
    real->pMethods->xFileSize(real, &size);
    *ours.unsynced = {.sectors = {}, .size_bytes = size};
    return SQLITE_OK;
  }

  // The rest goes through as it is.
  static int Read(sqlite3_file* file, void* bytes, int count, sqlite3_int64 offset) {
    return File::Real(file)->pMethods->xRead(File::Real(file), bytes, count, offset);
  }
  static int FileSize(sqlite3_file* file, sqlite3_int64* size) {
    return File::Real(file)->pMethods->xFileSize(File::Real(file), size);
  }
  static int Lock(sqlite3_file* file, int level) {
    return File::Real(file)->pMethods->xLock(File::Real(file), level);
  }
  static int Unlock(sqlite3_file* file, int level) {
    return File::Real(file)->pMethods->xUnlock(File::Real(file), level);
  }
  static int CheckReservedLock(sqlite3_file* file, int* is_locked) {
    return File::Real(file)->pMethods->xCheckReservedLock(File::Real(file), is_locked);
  }
  static int FileControl(sqlite3_file* file, int operation, void* argument) {
    return File::Real(file)->pMethods->xFileControl(File::Real(file), operation, argument);
  }
  static int SectorSize(sqlite3_file*) { return kSectorSize; }
  static int DeviceCharacteristics(sqlite3_file* file) {
    return File::Real(file)->pMethods->xDeviceCharacteristics(File::Real(file));
  }
  static int ShmMap(sqlite3_file* file, int page, int size, int extend, void volatile** at) {
    return File::Real(file)->pMethods->xShmMap(File::Real(file), page, size, extend, at);
  }
  static int ShmLock(sqlite3_file* file, int offset, int count, int flags) {
    return File::Real(file)->pMethods->xShmLock(File::Real(file), offset, count, flags);
  }
  static void ShmBarrier(sqlite3_file* file) {
    File::Real(file)->pMethods->xShmBarrier(File::Real(file));
  }
  static int ShmUnmap(sqlite3_file* file, int remove) {
    return File::Real(file)->pMethods->xShmUnmap(File::Real(file), remove);
  }

  static constexpr sqlite3_io_methods kFile = {.iVersion = 2,  // without memory mapping
                                               .xClose = Close,
                                               .xRead = Read,
                                               .xWrite = Write,
                                               .xTruncate = Truncate,
                                               .xSync = Sync,
                                               .xFileSize = FileSize,
                                               .xLock = Lock,
                                               .xUnlock = Unlock,
                                               .xCheckReservedLock = CheckReservedLock,
                                               .xFileControl = FileControl,
                                               .xSectorSize = SectorSize,
                                               .xDeviceCharacteristics = DeviceCharacteristics,
                                               .xShmMap = ShmMap,
                                               .xShmLock = ShmLock,
                                               .xShmBarrier = ShmBarrier,
                                               .xShmUnmap = ShmUnmap,
                                               .xFetch = nullptr,
                                               .xUnfetch = nullptr};

  // ---- The file system

  static int Open(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags,
                  int* out_flags) {
    FaultVfs& self = Of(vfs);
    File& ours = *new (file) File{};
    ours.vfs = &self;
    sqlite3_file* real = File::Real(file);
    const int rc = self.real_->xOpen(self.real_, path, real, flags, out_flags);
    // Set where opening failed, too, for then SQLite closes it if there are methods.
    ours.base.pMethods = real->pMethods ? &kFile : nullptr;
    if (rc != SQLITE_OK || !path) return rc;
    sqlite3_int64 size = 0;
    real->pMethods->xFileSize(real, &size);
    const std::lock_guard lock(self.mutex_);
    const auto [place, is_new] = self.files_.try_emplace(path);
    if (is_new) place->second.size_bytes = size;
    ours.unsynced = &place->second;
    return SQLITE_OK;
  }
  static int Delete(sqlite3_vfs* vfs, const char* path, int) {
    FaultVfs& self = Of(vfs);
    const std::lock_guard lock(self.mutex_);
    if (self.is_power_cut() && self.has_failed_) return SQLITE_IOERR_DELETE;
    if (const auto found = self.files_.find(path); found != self.files_.end()) found->second = {};
    return self.real_->xDelete(self.real_, path, /*syncDir=*/0);
  }
  static int Access(sqlite3_vfs* vfs, const char* path, int flags, int* result) {
    return Of(vfs).real_->xAccess(Of(vfs).real_, path, flags, result);
  }
  static int FullPathname(sqlite3_vfs* vfs, const char* path, int size, char* out) {
    return Of(vfs).real_->xFullPathname(Of(vfs).real_, path, size, out);
  }
  static int Randomness(sqlite3_vfs* vfs, int size, char* out) {
    return Of(vfs).real_->xRandomness(Of(vfs).real_, size, out);
  }
  static int Sleep(sqlite3_vfs* vfs, int microseconds) {
    return Of(vfs).real_->xSleep(Of(vfs).real_, microseconds);
  }
  static int CurrentTime(sqlite3_vfs* vfs, double* time) {
    return Of(vfs).real_->xCurrentTime(Of(vfs).real_, time);
  }
  static int GetLastError(sqlite3_vfs* vfs, int size, char* out) {
    return Of(vfs).real_->xGetLastError(Of(vfs).real_, size, out);
  }
};

FaultVfs::FaultVfs() : name_(NewRecordId("fault_")), real_(sqlite3_vfs_find(nullptr)) {
  CHECK(real_);
  vfs_.iVersion = 1;
  vfs_.szOsFile = static_cast<int>(File::kSize) + real_->szOsFile;
  vfs_.mxPathname = real_->mxPathname;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = Methods::Open;
  vfs_.xDelete = Methods::Delete;
  vfs_.xAccess = Methods::Access;
  vfs_.xFullPathname = Methods::FullPathname;
  vfs_.xRandomness = Methods::Randomness;
  vfs_.xSleep = Methods::Sleep;
  vfs_.xCurrentTime = Methods::CurrentTime;
  vfs_.xGetLastError = Methods::GetLastError;
  CHECK(sqlite3_vfs_register(&vfs_, /*makeDflt=*/0) == SQLITE_OK);
}

FaultVfs::~FaultVfs() { sqlite3_vfs_unregister(&vfs_); }

void FaultVfs::Arm(Fault fault, int64_t first) {
  const std::lock_guard lock(mutex_);
  fault_ = fault;
  first_ = first;
  calls_ = 0;
  has_failed_ = false;
}

bool FaultVfs::has_failed() const {
  const std::lock_guard lock(mutex_);
  return has_failed_;
}

bool FaultVfs::Fails(bool is_sync) {
  if (is_power_cut() && has_failed_) return true;
  const bool counts = fault_ == Fault::kPowerCut || (fault_ == Fault::kFull && !is_sync) ||
                      (fault_ == Fault::kFailedSync && is_sync) ||
                      (fault_ == Fault::kPowerCutAtSync && is_sync);
  if (!counts || ++calls_ < first_) return false;
  has_failed_ = true;
  return true;
}

void FaultVfs::LosePower(uint64_t seed) {
  const std::lock_guard lock(mutex_);
  Rng rng(seed);
  // None of them, all of them, or some.
  const uint64_t kept_of_two = rng.Below(3);
  for (const auto& [path, unsynced] : files_) {
    if (!std::filesystem::exists(path)) continue;
    const auto now = static_cast<int64_t>(std::filesystem::file_size(path));
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    int64_t size = std::min(now, unsynced.size_bytes);
    for (const auto& [sector, before] : unsynced.sectors) {
      const int64_t start = sector * kSectorSize;
      if (kept_of_two == 2 || (kept_of_two == 1 && rng.Below(2) == 0)) {
        size = std::max(size, std::min(now, start + kSectorSize));
        continue;
      }
      file.seekp(start);
      file.write(before.data(), kSectorSize);
      if (start < unsynced.size_bytes)
        size = std::max(size, std::min(unsynced.size_bytes, start + kSectorSize));
    }
    file.close();
    std::filesystem::resize_file(path, static_cast<uintmax_t>(size));
  }
  // The wal-index is memory that has a file's name.
  for (const auto& [path, unsynced] : files_) std::filesystem::remove(path + "-shm");
  files_.clear();  // others may write them before they are opened here again
}

}  // namespace millpower::ledger
