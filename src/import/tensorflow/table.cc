#include "import/tensorflow/table.h"

#include <snappy.h>

#include <boost/crc.hpp>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

namespace millpower::import {
namespace {

// A footer is two block handles (two varints each), padded to 40 bytes, and a magic number.
constexpr size_t kFooterBytes = 48;
constexpr size_t kHandlesBytes = 40;
constexpr uint64_t kMagic = 0xdb4775248b80fb57;
constexpr size_t kTrailerBytes = 5;  // of a block: its compression, and the checksum of both
constexpr size_t kMaxBlockBytes = 64 << 20;
// Snappy's densest element makes 64 bytes of 3, and keys leave out what they share with the one
// before. Real indexes stay below a tenth of this.
constexpr size_t kMaxGrowth = 256;
constexpr size_t kFreeBytes = 64 << 10;

using Crc32c = boost::crc_optimal<32, 0x1edc6f41, 0xffffffff, 0xffffffff, true, true>;

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

uint32_t Mask(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

template <typename T>
T LittleEndian(std::span<const std::byte> bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(bytes[i]) << (8 * i);
  return value;
}

// Reads from the front of bytes; a failed read is remembered and gives zeros.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (bytes_.empty()) break;
      const auto byte = static_cast<uint64_t>(bytes_[0]);
      bytes_ = bytes_.subspan(1);
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    ok_ = false;
    return 0;
  }

  std::string_view Take(uint64_t size) {
    if (size > bytes_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view taken(reinterpret_cast<const char*>(bytes_.data()), size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }

  bool ok() const { return ok_; }
  bool done() const { return bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

struct Handle {
  uint64_t offset = 0;
  uint64_t size = 0;
};

std::optional<Handle> ReadHandle(Reader& reader) {
  const uint64_t offset = reader.Varint();
  const uint64_t size = reader.Varint();
  if (!reader.ok()) return std::nullopt;
  return Handle{offset, size};
}

Result<std::vector<std::byte>> Uncompress(std::span<const std::byte> block) {
  const auto* data = reinterpret_cast<const char*>(block.data());
  size_t size = 0;
  if (!snappy::GetUncompressedLength(data, block.size(), &size) || size > kMaxBlockBytes ||
      size > block.size() * kMaxGrowth)
    return Corrupt("a compressed block says that it is too large");
  std::vector<std::byte> bytes(size);
  if (!snappy::RawUncompress(data, block.size(), reinterpret_cast<char*>(bytes.data())))
    return Corrupt("a compressed block is damaged");
  return bytes;
}

// The contents of a block without its trailer.
Result<std::vector<std::byte>> ReadBlock(std::span<const std::byte> file, Handle handle) {
  if (handle.size > kMaxBlockBytes || handle.offset > file.size() ||
      file.size() - handle.offset < handle.size + kTrailerBytes)
    return Corrupt("a block lies outside of the file");
  const auto block = file.subspan(handle.offset, handle.size);
  const auto trailer = file.subspan(handle.offset + handle.size, kTrailerBytes);
  if (LittleEndian<uint32_t>(trailer.subspan(1)) != MaskedCrc32c(block, trailer[0]))
    return Corrupt("the checksum of the block at " + std::to_string(handle.offset) +
                   " is not that of its bytes");
  switch (static_cast<int>(trailer[0])) {
    case 0:
      return std::vector<std::byte>(block.begin(), block.end());
    case 1:
      return Uncompress(block);
    default:
      return Corrupt("the block at " + std::to_string(handle.offset) +
                     " is compressed in an unknown way");
  }
}

// The entries without the list of restart points behind them, which only searches need.
Result<std::span<const std::byte>> EntriesOf(std::span<const std::byte> block) {
  constexpr size_t kWord = sizeof(uint32_t);
  if (block.size() < kWord) return Corrupt("a block is too short");
  const uint64_t restarts = LittleEndian<uint32_t>(block.last(kWord));
  if (restarts > (block.size() - kWord) / kWord)
    return Corrupt("a block has more restart points than bytes");
  return block.first(block.size() - kWord - restarts * kWord);
}

// Calls `use(key, value)` for each entry; its error ends the walk.
template <typename T>
Result<void> ForEachEntry(std::span<const std::byte> block, T use) {
  TRY_ASSIGN(const std::span<const std::byte> entries, EntriesOf(block));
  Reader reader(entries);
  std::string key;
  while (!reader.done()) {
    const uint64_t shared = reader.Varint();
    const uint64_t unshared = reader.Varint();
    const uint64_t value_size = reader.Varint();
    const std::string_view rest = reader.Take(unshared);
    const std::string_view value = reader.Take(value_size);
    if (!reader.ok() || shared > key.size()) return Corrupt("an entry of a block is damaged");
    key.resize(shared);
    key += rest;
    TRY(use(key, value));
  }
  return {};
}

class TableReader {
 public:
  explicit TableReader(std::span<const std::byte> file)
      : file_(file), left_bytes_(file.size() * kMaxGrowth + kFreeBytes) {}

  Result<SortedTable> Read() {
    TRY_ASSIGN(const Handle index_handle, IndexHandle());
    TRY_ASSIGN(const std::vector<std::byte> index, ReadBlock(file_, index_handle));
    TRY(ForEachEntry(
        index, [this](std::string_view, std::string_view handle) { return AddBlock(handle); }));
    return std::move(table_);
  }

 private:
  Result<Handle> IndexHandle() const {
    if (file_.size() < kFooterBytes) return Corrupt("is too short for a table");
    const auto footer = file_.last(kFooterBytes);
    if (LittleEndian<uint64_t>(footer.subspan(kHandlesBytes)) != kMagic)
      return Corrupt("is not a table of LevelDB's format");
    Reader reader(footer.first(kHandlesBytes));
    ReadHandle(reader);  // of the meta index: filters, none here
    const auto handle = ReadHandle(reader);
    if (!handle) return Corrupt("the footer is damaged");
    return *handle;
  }

  Result<void> AddBlock(std::string_view encoded) {
    Reader reader(std::as_bytes(std::span(encoded)));
    const auto handle = ReadHandle(reader);
    if (!handle) return Corrupt("an entry of the index is damaged");
    // Blocks do not overlap, so together they are no larger than the file.
    if (handle->offset < next_offset_) return Corrupt("blocks are not in order");
    TRY_ASSIGN(const std::vector<std::byte> block, ReadBlock(file_, *handle));
    next_offset_ = handle->offset + handle->size;
    return ForEachEntry(
        block, [this](const std::string& key, std::string_view value) { return Add(key, value); });
  }

  Result<void> Add(const std::string& key, std::string_view value) {
    if (!table_.empty() && key <= table_.rbegin()->first)
      return Corrupt("keys are not in ascending order");
    const size_t size = key.size() + value.size() + 1;
    if (size > left_bytes_) return Corrupt("keys are too long for the file's size");
    left_bytes_ -= size;
    table_.emplace_hint(table_.end(), key, value);
    return {};
  }

  std::span<const std::byte> file_;
  SortedTable table_;
  size_t left_bytes_;
  uint64_t next_offset_ = 0;
};

}  // namespace

uint32_t MaskedCrc32c(std::span<const std::byte> bytes) {
  Crc32c crc;
  crc.process_bytes(bytes.data(), bytes.size());
  return Mask(static_cast<uint32_t>(crc.checksum()));
}

uint32_t MaskedCrc32c(std::span<const std::byte> bytes, std::byte last) {
  Crc32c crc;
  crc.process_bytes(bytes.data(), bytes.size());
  crc.process_byte(static_cast<unsigned char>(last));
  return Mask(static_cast<uint32_t>(crc.checksum()));
}

Result<SortedTable> ReadTable(std::span<const std::byte> file) { return TableReader(file).Read(); }

}  // namespace millpower::import
