// A bundle of tensors as TensorFlow's checkpoints have it: variables.index, a table of entries, and
// variables.data-00000-of-00001 ... with the bytes, which stay mapped and untouched.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "import/tensorflow/saved_model.pb.h"
#include "import/tensorflow/table.h"
#include "ir/weights.h"

namespace millpower::import {

// Part of a tensor, or all of it: per dimension where it begins and how long it is.
struct Extent {
  int64_t start = 0;
  int64_t length = 0;
  bool operator==(const Extent&) const = default;
};
using Region = std::vector<Extent>;

// "100 8 0,50:0,8": the whole tensor's shape, and per dimension start and length or "-", as
// checkpoints' readers name a part. Absent: the text says nothing of the kind.
struct SliceSpec {
  std::vector<int64_t> shape;
  Region region;
};
std::optional<SliceSpec> ParseSliceSpec(std::string_view text);

// Under which key a part of a partitioned tensor lies: its name and region in an encoding that
// sorts as they do (TensorFlow's core/lib/strings/ordered_code.h and EncodeTensorNameSlice).
std::string SliceKey(std::string_view name, const Region& region);

// A tensor of the bundle: its type and shape as the index says, checked.
struct BundleTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
};

// Thread-safe once open. Owns the mappings that its views point into.
class Bundle {
 public:
  // `prefix` is "…/variables/variables". Reads the index only; every entry is checked when asked
  // for. Errors: kNotFound, kIo, kCorrupt; kUnsupported for big-endian bundles.
  static Result<std::unique_ptr<Bundle>> Open(const std::filesystem::path& prefix);
  // The same of bytes in memory, for tests; `shards` must outlive the bundle.
  static Result<std::unique_ptr<Bundle>> Parse(std::span<const std::byte> index,
                                               std::vector<std::span<const std::byte>> shards);

  // Errors: kNotFound; kCorrupt; kUnsupported for types that tensors here cannot have.
  Result<BundleTensor> Describe(std::string_view key) const;
  // The bytes, row-major: of one part straight from the file; of several parts that do not lie one
  // behind the other, a copy in memory, made once. Checksums of parts of up to kMaxCheckedBytes
  // are verified, which reads them; larger ones are tables whose pages should stay where they are.
  // Errors: also kCorrupt when a checksum is wrong or parts are missing or overlap.
  Result<std::span<const std::byte>> Bytes(std::string_view key) const;
  static constexpr int64_t kMaxCheckedBytes = int64_t{64} << 20;

  // A single string. Errors: those of Describe; kCorrupt.
  Result<std::string> String(std::string_view key) const;

  std::vector<std::string> Keys() const;  // of tensors, not of their parts
  void Release(std::span<const std::byte> bytes) const { DropResident(files_, bytes); }

 private:
  struct Part {
    Region region;
    std::span<const std::byte> bytes;
  };

  static Result<std::unique_ptr<Bundle>> FromTable(SortedTable table);
  Result<tensorflow::BundleEntry> Entry(std::string_view key) const;
  Result<std::span<const std::byte>> PartBytes(const tensorflow::BundleEntry& entry,
                                               const std::vector<int64_t>& shape,
                                               DType dtype) const;
  Result<std::vector<Part>> Parts(std::string_view key, const tensorflow::BundleEntry& entry,
                                  const BundleTensor& tensor) const;
  Result<std::span<const std::byte>> Assembled(std::string_view key, const BundleTensor& tensor,
                                               std::vector<Part> parts) const;

  SortedTable table_;
  int32_t shard_count_ = 0;
  std::vector<MappedFile> files_;
  std::vector<std::span<const std::byte>> shards_;
  mutable std::mutex mutex_;  // of what follows
  mutable std::map<std::string, std::vector<std::byte>, std::less<>> assembled_;
  mutable size_t assembled_bytes_ = 0;  // no more than the files have
};

}  // namespace millpower::import
