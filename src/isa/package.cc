// File: header | sections, each aligned to 4,096 bytes. The header:
//   0   8  magic "MILLPOWR"
//   8   4  format version
//   12  4  section count
//   16  8  hash of the section table
//   24     section table: per section name (16 bytes, zero padded), offset, size, hash (8 each)
// Sections: "program" (encoding.h); "weights"; "weights.index" (per weight buffer: i32 buffer,
// u64 offset in "weights", u64 size, u64 hash); and one "text.NAME" per text.
#include "isa/package.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/check.h"
#include "isa/bytes.h"
#include "isa/encoding.h"
#include "isa/verify.h"

namespace millpower::isa {
namespace {

constexpr char kMagic[8] = {'M', 'I', 'L', 'L', 'P', 'O', 'W', 'R'};
constexpr size_t kNameBytes = 16;
constexpr size_t kEntryBytes = kNameBytes + 24;
constexpr size_t kHeaderBytes = 24;
constexpr size_t kMaxSections = 64;
constexpr size_t kSectionAlignment = 4096;
constexpr size_t kWeightAlignment = kLineBytes;
constexpr size_t kIndexEntryBytes = 28;
constexpr size_t kMaxTextBytes = size_t{256} << 20;
constexpr char kTextPrefix[] = "text.";

struct Section {
  std::string name;
  uint64_t offset = 0, size = 0, hash = 0;
};

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

std::span<const std::byte> AsBytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A file being written under a temporary name; removed unless committed.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path)
      : path_(path), temporary_(path.string() + ".tmp" + std::to_string(::getpid())) {}
  ~OutputFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!committed_) ::unlink(temporary_.c_str());
  }
  Result<void> Open() {
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return fd_ >= 0 ? Result<void>() : Failed("cannot create");
  }
  Result<void> Write(uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t wrote = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) return Failed("cannot write");
      offset += static_cast<uint64_t>(wrote);
      bytes = bytes.subspan(static_cast<size_t>(wrote));
    }
    return {};
  }
  // Grows the file to `size_bytes`, with zeros.
  Result<void> Extend(uint64_t size_bytes) {
    if (::ftruncate(fd_, static_cast<off_t>(size_bytes)) != 0) return Failed("cannot extend");
    return {};
  }
  Result<void> Commit() {
    if (::fsync(fd_) != 0) return Failed("cannot sync");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return Failed("cannot rename");
    committed_ = true;
    return {};
  }

 private:
  std::unexpected<Error> Failed(const char* what) const {
    return Fail(ErrorCode::kIo, path_.string() + ": " + what + ": " + std::strerror(errno));
  }
  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
  bool committed_ = false;
};

// Where each weight lies: in buffer order, aligned.
struct WeightEntry {
  int32_t buffer = 0;
  uint64_t offset = 0, size = 0, hash = 0;
};

std::vector<WeightEntry> PlaceWeights(const Program& program) {
  std::vector<WeightEntry> entries;
  uint64_t end = 0;
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const Buffer& buffer = program.buffers[i];
    if (buffer.kind != BufferKind::kWeight) continue;
    const auto size = static_cast<uint64_t>(BufferBytes(buffer, buffer.rows.size));
    entries.push_back({static_cast<int32_t>(i), AlignUp(end, kWeightAlignment), size, 0});
    end = entries.back().offset + size;
  }
  return entries;
}

std::vector<std::byte> EncodeIndex(const std::vector<WeightEntry>& entries) {
  ByteWriter out;
  for (const WeightEntry& entry : entries) {
    out.Put(entry.buffer);
    out.Put(entry.offset);
    out.Put(entry.size);
    out.Put(entry.hash);
  }
  return out.Take();
}

std::vector<std::byte> EncodeHeader(const std::vector<Section>& sections) {
  ByteWriter table;
  for (const Section& section : sections) {
    char name[kNameBytes] = {};
    std::memcpy(name, section.name.data(), section.name.size());
    for (const char c : name) table.Put(c);
    table.Put(section.offset);
    table.Put(section.size);
    table.Put(section.hash);
  }
  const std::vector<std::byte> entries = table.Take();
  ByteWriter header;
  for (const char c : kMagic) header.Put(c);
  header.Put(kFormatVersion);
  header.Put(static_cast<uint32_t>(sections.size()));
  header.Put(Hash(entries));
  std::vector<std::byte> bytes = header.Take();
  bytes.insert(bytes.end(), entries.begin(), entries.end());
  return bytes;
}

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

// The section table, each entry proven to lie inside the file and apart from the others.
Result<std::vector<Section>> DecodeHeader(std::span<const std::byte> file) {
  if (file.size() < kHeaderBytes || std::memcmp(file.data(), kMagic, sizeof kMagic) != 0)
    return Corrupt("not a compiled model: it does not begin with MILLPOWR");
  ByteReader in(file.subspan(sizeof kMagic));
  if (const auto version = in.Get<uint32_t>(); version != kFormatVersion)
    return Fail(ErrorCode::kUnsupported,
                "compiled model of format version " + std::to_string(version) +
                    "; this build reads version " + std::to_string(kFormatVersion) +
                    ": compile the model again");
  const size_t count = in.Get<uint32_t>();
  const auto table_hash = in.Get<uint64_t>();
  if (count > kMaxSections || file.size() < kHeaderBytes + count * kEntryBytes)
    return Corrupt("the section table is truncated");
  if (Hash(file.subspan(kHeaderBytes, count * kEntryBytes)) != table_hash)
    return Corrupt("the section table is damaged (its hash differs)");
  std::vector<Section> sections(count);
  for (size_t i = 0; i < count; ++i) {
    Section& section = sections[i];
    const auto entry = file.subspan(kHeaderBytes + i * kEntryBytes, kEntryBytes);
    const char* name = reinterpret_cast<const char*>(entry.data());
    section.name.assign(name, strnlen(name, kNameBytes));
    ByteReader fields(entry.subspan(kNameBytes));
    section.offset = fields.Get<uint64_t>();
    section.size = fields.Get<uint64_t>();
    section.hash = fields.Get<uint64_t>();
    if (section.offset % kSectionAlignment != 0 || section.offset > file.size() ||
        section.size > file.size() - section.offset)
      return Corrupt("section '" + section.name + "' lies outside the file");
    for (size_t j = 0; j < i; ++j) {
      const Section& other = sections[j];
      if (other.name == section.name) return Corrupt("two sections are named '" + other.name + "'");
      if (section.offset < other.offset + other.size &&
          other.offset < section.offset + section.size)
        return Corrupt("sections '" + other.name + "' and '" + section.name + "' overlap");
    }
  }
  return sections;
}

Result<std::span<const std::byte>> FindSection(std::span<const std::byte> file,
                                               const std::vector<Section>& sections,
                                               const std::string& name, bool check_hash) {
  for (const Section& section : sections) {
    if (section.name != name) continue;
    const auto bytes = file.subspan(section.offset, section.size);
    if (check_hash && Hash(bytes) != section.hash)
      return Corrupt("section '" + name + "' is damaged (its hash differs)");
    return bytes;
  }
  return Corrupt("section '" + name + "' is missing");
}

Result<BoundWeights> BindWeights(const Program& program, std::span<const std::byte> index,
                                 std::span<const std::byte> weights, const Progress& progress) {
  const std::vector<WeightEntry> expected = PlaceWeights(program);
  if (index.size() != expected.size() * kIndexEntryBytes)
    return Corrupt("weights.index does not list the Program's weights");
  BoundWeights bound;
  bound.by_buffer.resize(program.buffers.size());
  ByteReader in(index);
  for (const WeightEntry& entry : expected) {
    const std::string& name = program.buffers[static_cast<size_t>(entry.buffer)].name;
    const auto buffer = in.Get<int32_t>();
    const auto offset = in.Get<uint64_t>();
    const auto size = in.Get<uint64_t>();
    const auto hash = in.Get<uint64_t>();
    if (buffer != entry.buffer || size != entry.size)
      return Corrupt("weight '" + name + "' is not what the Program declares");
    if (offset % kWeightAlignment != 0 || offset > weights.size() || size > weights.size() - offset)
      return Corrupt("weight '" + name + "' lies outside its section");
    const auto bytes = weights.subspan(offset, size);
    // Tables may change, and may be larger than memory: they are not read before they are needed.
    const bool is_table = program.buffers[static_cast<size_t>(buffer)].form == Form::kTable;
    if (!is_table && Hash(bytes) != hash)
      return Corrupt("weight '" + name + "' is damaged (its hash differs)");
    bound.by_buffer[static_cast<size_t>(buffer)] = bytes;
    if (is_table) bound.mapped_tables.push_back(bytes);
    if (progress)
      progress(static_cast<int64_t>(offset + size), static_cast<int64_t>(weights.size()));
  }
  return bound;
}

Result<Texts> TextsOf(std::span<const std::byte> file, const std::vector<Section>& sections) {
  Texts texts;
  for (const Section& section : sections) {
    if (!section.name.starts_with(kTextPrefix)) continue;
    if (section.size > kMaxTextBytes) return Corrupt("section '" + section.name + "' is too large");
    TRY_ASSIGN(const auto text, FindSection(file, sections, section.name, true));
    texts[section.name.substr(sizeof kTextPrefix - 1)] =
        std::string(reinterpret_cast<const char*>(text.data()), text.size());
  }
  return texts;
}

Result<Package> ReadMapped(MappedFile mapped, const Progress& progress) {
  TRY_ASSIGN(const std::vector<Section> sections, DecodeHeader(mapped.bytes()));
  TRY_ASSIGN(const auto program_bytes, FindSection(mapped.bytes(), sections, "program", true));
  Package package;
  TRY_ASSIGN(package.program, Decode(program_bytes));
  TRY(Verify(package.program));
  const auto is_table = [](const Buffer& buffer) { return buffer.form == Form::kTable; };
  if (std::ranges::any_of(package.program.buffers, is_table)) mapped.MoveForRandomReads();
  const auto file = std::make_shared<const MappedFile>(std::move(mapped));
  const auto bytes = file->bytes();
  TRY_ASSIGN(const auto index, FindSection(bytes, sections, "weights.index", true));
  TRY_ASSIGN(const auto weights, FindSection(bytes, sections, "weights", false));
  TRY_ASSIGN(package.weights, BindWeights(package.program, index, weights, progress));
  package.weights.owner = file;
  package.weights.tables_are_writable = true;  // the mapping is our own copy, on write
  TRY_ASSIGN(package.texts, TextsOf(bytes, sections));
  return package;
}

}  // namespace

uint64_t Hash(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Result<void> WritePackage(
    const std::filesystem::path& path, const Program& program, const Texts& texts,
    const std::function<Result<std::span<const std::byte>>(int32_t)>& next_weight,
    const Progress& progress) {
  std::vector<WeightEntry> entries = PlaceWeights(program);
  const uint64_t weight_bytes = entries.empty() ? 0 : entries.back().offset + entries.back().size;
  const std::vector<std::byte> code = Encode(program);

  std::vector<Section> sections = {{"program", 0, code.size(), Hash(code)},
                                   {"weights.index", 0, entries.size() * kIndexEntryBytes, 0},
                                   {"weights", 0, weight_bytes, 0}};
  for (const auto& [name, text] : texts)
    sections.push_back({kTextPrefix + name, 0, text.size(), Hash(AsBytes(text))});
  CHECK(sections.size() <= kMaxSections) << sections.size();
  uint64_t end = kHeaderBytes + sections.size() * kEntryBytes;
  for (Section& section : sections) {
    CHECK(section.name.size() <= kNameBytes) << section.name;
    section.offset = AlignUp(end, kSectionAlignment);
    end = section.offset + section.size;
  }

  OutputFile file(path);
  TRY(file.Open());
  TRY(file.Extend(end));  // the last section may be empty, and must lie inside the file even so
  TRY(file.Write(sections[0].offset, code));
  for (WeightEntry& entry : entries) {
    TRY_ASSIGN(const auto bytes, next_weight(entry.buffer));
    if (bytes.size() != entry.size)
      return Fail(ErrorCode::kInternal, "a packed weight has another size than declared");
    entry.hash = Hash(bytes);
    TRY(file.Write(sections[2].offset + entry.offset, bytes));
    if (progress)
      progress(static_cast<int64_t>(entry.offset + entry.size), static_cast<int64_t>(weight_bytes));
  }
  const std::vector<std::byte> index = EncodeIndex(entries);
  sections[1].hash = Hash(index);
  TRY(file.Write(sections[1].offset, index));
  size_t next = 3;
  for (const auto& [name, text] : texts) TRY(file.Write(sections[next++].offset, AsBytes(text)));
  TRY(file.Write(0, EncodeHeader(sections)));
  return file.Commit();
}

Result<Package> ReadPackage(const std::filesystem::path& path, const Progress& progress) {
  // Rows of tables may be replaced while they serve.
  TRY_ASSIGN(MappedFile mapped, MappedFile::OpenCopyOnWrite(path));
  auto package = ReadMapped(std::move(mapped), progress);
  if (!package) return FailAt(path.string(), package.error());
  return package;
}

Result<Texts> ReadTexts(const std::filesystem::path& path) {
  TRY_ASSIGN(const MappedFile file, MappedFile::Open(path));
  const auto read = [&]() -> Result<Texts> {
    TRY_ASSIGN(const std::vector<Section> sections, DecodeHeader(file.bytes()));
    return TextsOf(file.bytes(), sections);
  };
  auto texts = read();
  if (!texts) return FailAt(path.string(), texts.error());
  return texts;
}

bool IsPackage(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[sizeof kMagic] = {};
  return file.read(magic, sizeof magic) && std::memcmp(magic, kMagic, sizeof magic) == 0;
}

}  // namespace millpower::isa
