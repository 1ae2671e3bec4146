// A read-only memory mapping of a whole file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "base/result.h"

namespace millpower {

// Movable owner; the bytes stay valid and constant in address until destroyed. A file truncated by
// somebody else while mapped raises SIGBUS, as with every mmap: model files are expected to be
// replaced by rename, not rewritten in place.
class MappedFile {
 public:
  // Errors: kNotFound, kIo; kInvalidArgument for a directory. An empty file maps to an empty span.
  static Result<MappedFile> Open(const std::filesystem::path& path);

  // The same in memory that may be written: a page that is written becomes our own copy, the file
  // stays as it is. Pages that are not written can leave memory again as those of Open.
  static Result<MappedFile> OpenCopyOnWrite(const std::filesystem::path& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }
  const std::filesystem::path& path() const { return path_; }

  // Of OpenCopyOnWrite only.
  std::span<std::byte> writable_bytes() const {
    return {const_cast<std::byte*>(data_), size_bytes_};
  }

  // For a file whose bytes will be read here and there: moves the mapping to where a fault maps few
  // pages. From Linux 6.18 on a fault maps all of a folio of the page cache, up to the 2 MiB of one
  // page table, unless it would lie in two; so the mapping begins one page after such a boundary.
  // bytes() changes. Where it cannot be moved it stays.
  void MoveForRandomReads();

  // Tells the kernel that [offset, offset + size) will not be read again soon, so that a packed
  // copy and its source are not both resident.
  void DropResident(size_t offset_bytes, size_t size_bytes) const;

 private:
  static Result<MappedFile> Map(const std::filesystem::path& path, int protection, int flags);

  const std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  std::filesystem::path path_;
};

// DropResident of `bytes` in that of the files that holds them; nothing when none does.
void DropResident(std::span<const MappedFile> files, std::span<const std::byte> bytes);

// Reads a whole file of at most `limit_bytes`. Errors: kNotFound, kIo, kOutOfRange (too large).
Result<std::string> ReadFile(const std::filesystem::path& path, size_t limit_bytes);

}  // namespace millpower
