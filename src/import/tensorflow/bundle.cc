#include "import/tensorflow/bundle.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>

#include "import/tensorflow/tensor_proto.h"

namespace millpower::import {
namespace {

namespace fs = std::filesystem;

constexpr int32_t kMaxShards = 4096;
constexpr int kMaxParts = 4096;  // compared pairwise

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

template <typename Message>
Result<Message> ParseMessage(std::string_view bytes, const std::string& what) {
  Message message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return Corrupt(what + " is damaged");
  return message;
}

// ---- the encoding of part keys ----

// Length, then the bytes of the number, the highest first and zeros in front left out.
void AppendNumber(std::string& key, uint64_t value) {
  const int size = (std::bit_width(value) + 7) / 8;
  key += static_cast<char>(size);
  for (int i = size - 1; i >= 0; --i) key += static_cast<char>(value >> (8 * i));
}

void AppendString(std::string& key, std::string_view text) {
  for (const char c : text) {
    key += c;
    if (c == '\0') key += '\xff';
    if (c == '\xff') key += '\0';
  }
  key += std::string_view("\0\1", 2);
}

// As many leading ones as the encoding has bytes, then the number in what is left: 6 bits in one
// byte, and 7 more with each further byte; negative numbers have all bits turned over.
void AppendSigned(std::string& key, int64_t value) {
  const uint64_t magnitude = static_cast<uint64_t>(value < 0 ? ~value : value);
  const int size = std::bit_width(magnitude) / 7 + 1;
  std::string bytes(static_cast<size_t>(size), '\0');
  for (int i = 0; i < size && i < 8; ++i)
    bytes[static_cast<size_t>(size - 1 - i)] = static_cast<char>(magnitude >> (8 * i));
  for (int bit = 0; bit < size; ++bit)
    bytes[static_cast<size_t>(bit / 8)] |= static_cast<char>(0x80 >> (bit % 8));
  if (value < 0)
    for (char& c : bytes) c = static_cast<char>(~c);
  key += bytes;
}

std::optional<int64_t> ParseNatural(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

std::vector<std::string_view> SplitText(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::optional<Extent> ParseExtent(std::string_view text, int64_t dim) {
  if (text == "-") return Extent{0, dim};
  const size_t comma = text.find(',');
  if (comma == std::string_view::npos) return std::nullopt;
  const auto start = ParseNatural(text.substr(0, comma));
  const auto length = ParseNatural(text.substr(comma + 1));
  if (!start || !length || *start > dim || *length > dim - *start) return std::nullopt;
  return Extent{*start, *length};
}

// ---- assembling ----

// Where a part's bytes go in the tensor, as one run per row of the part's last dimensions.
struct Placement {
  int64_t element_bytes;
  const std::vector<int64_t>& shape;
};

void CopyRegion(const Placement& to, const Region& region, std::span<const std::byte> from,
                std::span<std::byte> whole) {
  const size_t rank = to.shape.size();
  const int64_t run_bytes = region[rank - 1].length * to.element_bytes;
  if (run_bytes == 0) return;
  std::vector<int64_t> at(rank, 0);
  for (size_t done = 0; done < from.size(); done += static_cast<size_t>(run_bytes)) {
    int64_t element = 0;
    for (size_t i = 0; i < rank; ++i) element = element * to.shape[i] + region[i].start + at[i];
    std::memcpy(whole.data() + element * to.element_bytes, from.data() + done,
                static_cast<size_t>(run_bytes));
    for (size_t i = rank - 1; i-- > 0;) {
      if (++at[i] < region[i].length) break;
      at[i] = 0;
    }
  }
}

bool Overlap(const Region& a, const Region& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].start >= b[i].start + b[i].length || b[i].start >= a[i].start + a[i].length)
      return false;
  return true;
}

int64_t SizeOf(const Region& region) {
  int64_t size = 1;
  for (const Extent& extent : region) size *= extent.length;
  return size;
}

Result<Region> RegionOf(const tensorflow::BundleSlice& slice, const std::vector<int64_t>& shape) {
  if (slice.extent_size() != static_cast<int>(shape.size()) || shape.empty())
    return Corrupt("a part does not have the tensor's rank");
  Region region;
  for (size_t i = 0; i < shape.size(); ++i) {
    const auto& extent = slice.extent(static_cast<int>(i));
    const bool whole =
        extent.has_length_case() == tensorflow::BundleSlice::Extent::HAS_LENGTH_NOT_SET;
    const Extent part{extent.start(), whole ? shape[i] : extent.length()};
    if (part.start < 0 || part.length < 0 || part.start > shape[i] ||
        part.length > shape[i] - part.start)
      return Corrupt("a part lies outside of the tensor");
    region.push_back(part);
  }
  return region;
}

// In a key, a dimension that is taken whole has the length -1.
Region KeyRegion(const tensorflow::BundleSlice& slice) {
  Region region;
  for (const auto& extent : slice.extent())
    region.push_back({extent.start(), extent.has_length_case() == extent.HAS_LENGTH_NOT_SET
                                          ? -1
                                          : extent.length()});
  return region;
}

}  // namespace

std::optional<SliceSpec> ParseSliceSpec(std::string_view text) {
  std::vector<std::string_view> words = SplitText(text, ' ');
  const std::vector<std::string_view> extents = SplitText(words.back(), ':');
  words.pop_back();
  if (extents.size() != words.size()) return std::nullopt;
  SliceSpec spec;
  for (size_t i = 0; i < words.size(); ++i) {
    const auto dim = ParseNatural(words[i]);
    if (!dim) return std::nullopt;
    const auto extent = ParseExtent(extents[i], *dim);
    if (!extent) return std::nullopt;
    spec.shape.push_back(*dim);
    spec.region.push_back(*extent);
  }
  return spec;
}

std::string SliceKey(std::string_view name, const Region& region) {
  std::string key;
  AppendNumber(key, 0);
  AppendString(key, name);
  AppendNumber(key, region.size());
  for (const Extent& extent : region) {
    AppendSigned(key, extent.start);
    AppendSigned(key, extent.length);
  }
  return key;
}

Result<std::unique_ptr<Bundle>> Bundle::FromTable(SortedTable table) {
  const auto header_entry = table.find("");
  if (header_entry == table.end()) return Corrupt("has no header");
  TRY_ASSIGN(const auto header,
             ParseMessage<tensorflow::BundleHeader>(header_entry->second, "the header"));
  if (header.endianness() != 0) return Fail(ErrorCode::kUnsupported, "holds big-endian numbers");
  if (header.num_shards() < 1 || header.num_shards() > kMaxShards)
    return Corrupt(fmt::format("says that it has {} files of data", header.num_shards()));
  auto bundle = std::make_unique<Bundle>();
  bundle->table_ = std::move(table);
  bundle->shard_count_ = header.num_shards();
  return bundle;
}

Result<std::unique_ptr<Bundle>> Bundle::Open(const fs::path& prefix) {
  const fs::path index_path = prefix.string() + ".index";
  TRY_ASSIGN(const MappedFile index, MappedFile::Open(index_path));
  auto table = ReadTable(index.bytes());
  if (!table) return FailAt(index_path.string(), std::move(table).error());
  auto bundle = FromTable(*std::move(table));
  if (!bundle) return FailAt(index_path.string(), std::move(bundle).error());
  const int32_t count = (*bundle)->shard_count_;
  for (int32_t i = 0; i < count; ++i) {
    TRY_ASSIGN(MappedFile shard,
               MappedFile::Open(fmt::format("{}.data-{:05}-of-{:05}", prefix.string(), i, count)));
    (*bundle)->files_.push_back(std::move(shard));
  }
  for (const MappedFile& file : (*bundle)->files_) (*bundle)->shards_.push_back(file.bytes());
  return bundle;
}

Result<std::unique_ptr<Bundle>> Bundle::Parse(std::span<const std::byte> index,
                                              std::vector<std::span<const std::byte>> shards) {
  TRY_ASSIGN(SortedTable table, ReadTable(index));
  TRY_ASSIGN(auto bundle, FromTable(std::move(table)));
  bundle->shards_ = std::move(shards);
  return bundle;
}

Result<tensorflow::BundleEntry> Bundle::Entry(std::string_view key) const {
  const auto found = table_.find(key);
  if (key.empty() || found == table_.end())
    return Fail(ErrorCode::kNotFound, fmt::format("no tensor '{}' among the variables", key));
  return ParseMessage<tensorflow::BundleEntry>(found->second, fmt::format("entry '{}'", key));
}

Result<BundleTensor> Bundle::Describe(std::string_view key) const {
  TRY_ASSIGN(const auto entry, Entry(key));
  const auto dtype = DTypeOf(entry.dtype());
  if (!dtype)
    return Fail(ErrorCode::kUnsupported,
                fmt::format("variable '{}' of type {}", key, TypeName(entry.dtype())));
  auto shape = ConstantShape(entry.shape());
  if (!shape) return FailAt(fmt::format("variable '{}'", key), std::move(shape).error());
  return BundleTensor{*dtype, *std::move(shape)};
}

Result<std::span<const std::byte>> Bundle::PartBytes(const tensorflow::BundleEntry& entry,
                                                     const std::vector<int64_t>& shape,
                                                     DType dtype) const {
  if (entry.shard_id() < 0 || static_cast<size_t>(entry.shard_id()) >= shards_.size())
    return Corrupt(fmt::format("lies in file {} of {}", entry.shard_id(), shards_.size()));
  const auto shard = shards_[static_cast<size_t>(entry.shard_id())];
  TRY_ASSIGN(const int64_t elements, ElementCount(shape));
  if (entry.size() != elements * SizeBytes(dtype))
    return Corrupt(
        fmt::format("has {} bytes for {} elements of {}", entry.size(), elements, Name(dtype)));
  const auto size = static_cast<uint64_t>(entry.size());
  if (entry.offset() < 0 || static_cast<uint64_t>(entry.offset()) > shard.size() ||
      size > shard.size() - static_cast<uint64_t>(entry.offset()))
    return Corrupt("lies outside of its file");
  const auto bytes = shard.subspan(static_cast<size_t>(entry.offset()), size);
  if (entry.size() <= kMaxCheckedBytes && MaskedCrc32c(bytes) != entry.crc32c())
    return Corrupt("has another checksum than its bytes");
  return bytes;
}

Result<std::vector<Bundle::Part>> Bundle::Parts(std::string_view key,
                                                const tensorflow::BundleEntry& entry,
                                                const BundleTensor& tensor) const {
  if (entry.slices_size() == 0) {
    TRY_ASSIGN(const auto bytes, PartBytes(entry, tensor.shape, tensor.dtype));
    return std::vector<Part>{{{}, bytes}};
  }
  if (entry.slices_size() > kMaxParts) return Corrupt("has too many parts");
  std::vector<Part> parts;
  for (const auto& slice : entry.slices()) {
    TRY_ASSIGN(Region region, RegionOf(slice, tensor.shape));
    TRY_ASSIGN(const auto part, Entry(SliceKey(key, KeyRegion(slice))));
    if (part.dtype() != entry.dtype()) return Corrupt("has parts of different types");
    std::vector<int64_t> shape;
    for (const Extent& extent : region) shape.push_back(extent.length);
    TRY_ASSIGN(const auto bytes, PartBytes(part, shape, tensor.dtype));
    parts.push_back({std::move(region), bytes});
  }
  return parts;
}

Result<std::span<const std::byte>> Bundle::Bytes(std::string_view key) const {
  TRY_ASSIGN(const BundleTensor tensor, Describe(key));
  TRY_ASSIGN(const auto entry, Entry(key));
  auto parts = Parts(key, entry, tensor);
  if (!parts) return FailAt(fmt::format("variable '{}'", key), std::move(parts).error());
  if (parts->size() == 1 && parts->front().region.empty()) return parts->front().bytes;
  auto bytes = Assembled(key, tensor, *std::move(parts));
  if (!bytes) return FailAt(fmt::format("variable '{}'", key), std::move(bytes).error());
  return bytes;
}

Result<std::span<const std::byte>> Bundle::Assembled(std::string_view key,
                                                     const BundleTensor& tensor,
                                                     std::vector<Part> parts) const {
  std::ranges::sort(parts, {}, [](const Part& part) { return part.region.front().start; });
  TRY_ASSIGN(const int64_t elements, ElementCount(tensor.shape));
  int64_t covered = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    covered += SizeOf(parts[i].region);
    for (size_t j = i + 1; j < parts.size(); ++j) {
      const Extent& first = parts[i].region.front();
      if (parts[j].region.front().start >= first.start + first.length) break;  // nor any later
      if (Overlap(parts[i].region, parts[j].region)) return Corrupt("has parts that overlap");
    }
  }
  if (covered != elements) return Corrupt("does not have all of its parts");

  // Blocks of rows that lie one behind the other are already whole.
  bool in_order = true;
  const std::byte* end = parts.front().bytes.data();
  for (const Part& part : parts) {
    for (size_t i = 1; i < part.region.size(); ++i)
      in_order = in_order && part.region[i].length == tensor.shape[i];
    in_order = in_order && part.bytes.data() == end;
    end = part.bytes.data() + part.bytes.size();
  }
  const auto size = static_cast<size_t>(elements * SizeBytes(tensor.dtype));
  if (in_order) return std::span(parts.front().bytes.data(), size);

  const std::lock_guard lock(mutex_);
  const auto found = assembled_.find(key);
  if (found != assembled_.end()) return std::span<const std::byte>(found->second);
  // Else a small file, whose parts all are the same bytes, would come to any size.
  size_t stored = 0;
  for (const auto shard : shards_) stored += shard.size();
  if (size > stored - assembled_bytes_) return Corrupt("has parts that are others, too");
  assembled_bytes_ += size;
  std::vector<std::byte>& whole = assembled_[std::string(key)];
  whole.resize(size);
  for (const Part& part : parts)
    CopyRegion({SizeBytes(tensor.dtype), tensor.shape}, part.region, part.bytes, whole);
  return std::span<const std::byte>(whole);
}

// Its length as a varint, a checksum of the length as 4 bytes, and the string. The entry's checksum
// is of the length as 4 bytes, the first checksum and the string (tensorflow/core/util/
// tensor_bundle/tensor_bundle.cc, WriteStringTensor).
Result<std::string> Bundle::String(std::string_view key) const {
  TRY_ASSIGN(const auto entry, Entry(key));
  const auto damaged = [&] { return Corrupt(fmt::format("the string '{}' is damaged", key)); };
  const bool is_scalar = entry.dtype() == kTypeString && entry.shape().dim_size() == 0;
  if (!is_scalar || entry.slices_size() != 0 || entry.shard_id() < 0 ||
      static_cast<size_t>(entry.shard_id()) >= shards_.size() || entry.offset() < 0 ||
      entry.size() < 0)
    return damaged();
  const auto shard = shards_[static_cast<size_t>(entry.shard_id())];
  const auto offset = static_cast<uint64_t>(entry.offset());
  const auto size = static_cast<uint64_t>(entry.size());
  if (offset > shard.size() || size > shard.size() - offset) return damaged();
  auto bytes = shard.subspan(offset, size);
  uint64_t length = 0;
  for (int shift = 0;; shift += 7) {
    if (bytes.empty() || shift > 28) return damaged();
    const auto byte = static_cast<uint64_t>(bytes[0]);
    bytes = bytes.subspan(1);
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  if (length > UINT32_MAX || bytes.size() != length + 4) return damaged();
  std::vector<std::byte> checked;
  for (int i = 0; i < 4; ++i) checked.push_back(static_cast<std::byte>(length >> (8 * i)));
  checked.insert(checked.end(), bytes.begin(), bytes.end());
  if (MaskedCrc32c(checked) != entry.crc32c()) return damaged();
  return std::string(reinterpret_cast<const char*>(bytes.data()) + 4, length);
}

std::vector<std::string> Bundle::Keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, entry] : table_)
    if (!key.empty() && key[0] != '\0') keys.push_back(key);
  return keys;
}

}  // namespace millpower::import
