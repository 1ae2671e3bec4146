// Zip archives in memory, as torch writes them: records by name, those that are stored as they lie
// and compressed ones inflated. minizip reads the directory (and knows where a record's bytes are,
// which libzip and libarchive do not tell); nothing is ever written, and names are only looked up.
//
// The file is not trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millpower::import::torch {

inline constexpr size_t kMaxZipRecords = 1'000'000;
inline constexpr size_t kMaxZipNameBytes = 4096;
// What all compressed records of an archive may come to: this often the archive's size, and a
// little, so that a small file cannot fill the memory. Deflate alone reaches 1032.
inline constexpr size_t kMaxZipRatio = 100;
inline constexpr size_t kMaxZipSlackBytes = size_t{1} << 20;

// Immutable. The bytes that it was read from must outlive it.
class ZipArchive {
 public:
  // Reads the directory only. Errors: kCorrupt: not a zip archive, truncated, more than
  // kMaxZipRecords, a record twice, or one that does not lie in the archive; kUnsupported: a
  // record that is encrypted or compressed by something else than deflate.
  static Result<ZipArchive> Open(std::span<const std::byte> archive);

  // A record's bytes: inside the archive when it is stored there, else in `inflated`, which takes
  // them. Checksums are tested of what is inflated; torch may leave them out of what is stored.
  // Errors: kNotFound; kCorrupt: checksum or size; kOutOfRange: more than kMaxZipRatio allows.
  struct Bytes {
    std::span<const std::byte> view;
    std::vector<std::byte> inflated;  // view lies here unless this is empty
  };
  Result<Bytes> Read(std::string_view name) const;

  bool Has(std::string_view name) const { return records_.contains(name); }
  // In order of their names.
  std::vector<std::string> Names() const;

 private:
  struct Record {
    uint64_t directory_offset = 0;  // of its entry in the directory
    uint64_t number = 0;            // of the entry
    std::span<const std::byte> stored;
    uint64_t size_bytes = 0;
    bool is_stored = true;
  };

  std::span<const std::byte> archive_;
  std::map<std::string, Record, std::less<>> records_;
};

}  // namespace millpower::import::torch
