#include "import/torch/zip.h"

#include <minizip/unzip.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace millpower::import::torch {
namespace {

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

// minizip's view of the archive: a file that can be read and sought in.
struct Stream {
  std::span<const std::byte> bytes;
  uint64_t position = 0;
  bool is_past_end = false;  // the last read wanted more; minizip would take zeros for it
};

Stream& StreamOf(voidpf stream) { return *static_cast<Stream*>(stream); }

uLong ReadStream(voidpf, voidpf handle, void* buffer, uLong size) {
  Stream& stream = StreamOf(handle);
  const uint64_t left = stream.bytes.size() - stream.position;
  const auto count = static_cast<size_t>(std::min<uint64_t>(size, left));
  if (count > 0) std::memcpy(buffer, stream.bytes.data() + stream.position, count);
  stream.position += count;
  stream.is_past_end = count < size;
  return count;
}

ZPOS64_T TellStream(voidpf, voidpf handle) { return StreamOf(handle).position; }

long SeekStream(voidpf, voidpf handle, ZPOS64_T offset, int origin) {
  Stream& stream = StreamOf(handle);
  uint64_t base = 0;
  if (origin == ZLIB_FILEFUNC_SEEK_CUR) base = stream.position;
  if (origin == ZLIB_FILEFUNC_SEEK_END) base = stream.bytes.size();
  uint64_t position = 0;
  if (__builtin_add_overflow(base, offset, &position) || position > stream.bytes.size()) return -1;
  stream.position = position;
  return 0;
}

struct Closer {
  void operator()(void* file) const { unzClose(file); }
};
using Unzip = std::unique_ptr<void, Closer>;

// `stream` is what the result reads from.
Unzip OpenUnzip(Stream& stream) {
  zlib_filefunc64_def functions = {};
  functions.zopen64_file = [](voidpf opaque, const void*, int) { return opaque; };
  functions.zread_file = ReadStream;
  functions.zwrite_file = [](voidpf, voidpf, const void*, uLong) -> uLong { return 0; };
  functions.ztell64_file = TellStream;
  functions.zseek64_file = SeekStream;
  functions.zclose_file = [](voidpf, voidpf) { return 0; };
  functions.zerror_file = [](voidpf, voidpf handle) {
    return StreamOf(handle).is_past_end ? 1 : 0;
  };
  functions.opaque = &stream;
  return Unzip(unzOpen2_64("", &functions));
}

struct Entry {
  std::string name;
  unz_file_info64 info = {};
};

Result<Entry> CurrentEntry(unzFile file) {
  Entry entry;
  entry.name.resize(kMaxZipNameBytes);
  if (unzGetCurrentFileInfo64(file, &entry.info, entry.name.data(), entry.name.size(), nullptr, 0,
                              nullptr, 0) != UNZ_OK)
    return Corrupt("zip directory is damaged");
  if (entry.info.size_filename == 0 || entry.info.size_filename > kMaxZipNameBytes)
    return Corrupt("a name in the zip directory is empty or too long");
  entry.name.resize(entry.info.size_filename);
  constexpr uLong kEncrypted = 1;
  if ((entry.info.flag & kEncrypted) != 0)
    return Fail(ErrorCode::kUnsupported, "record '" + entry.name + "' is encrypted");
  if (entry.info.compression_method != 0 && entry.info.compression_method != Z_DEFLATED)
    return Fail(ErrorCode::kUnsupported, "record '" + entry.name + "' is compressed by method " +
                                             std::to_string(entry.info.compression_method));
  return entry;
}

// Where the current entry's bytes begin, by its local header; the entry is open afterwards.
Result<std::span<const std::byte>> RawBytes(unzFile file, const Entry& entry,
                                            std::span<const std::byte> archive) {
  int method = 0, level = 0;
  if (unzOpenCurrentFile2(file, &method, &level, /*raw=*/1) != UNZ_OK)
    return Corrupt("record '" + entry.name + "' does not agree with the zip directory");
  const uint64_t begin = unzGetCurrentFileZStreamPos64(file);
  if (begin > archive.size() || entry.info.compressed_size > archive.size() - begin)
    return Corrupt("record '" + entry.name + "' reaches past the end of the file");
  return archive.subspan(static_cast<size_t>(begin),
                         static_cast<size_t>(entry.info.compressed_size));
}

// Reads the current entry, which is known to come to `size` bytes.
Result<std::vector<std::byte>> Inflate(unzFile file, const std::string& name, uint64_t size) {
  if (unzOpenCurrentFile(file) != UNZ_OK) return Corrupt("record '" + name + "' cannot be opened");
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  constexpr size_t kPiece = size_t{1} << 20;
  size_t done = 0;
  while (done < bytes.size()) {
    const int count = unzReadCurrentFile(
        file, bytes.data() + done, static_cast<unsigned>(std::min(kPiece, bytes.size() - done)));
    if (count <= 0) return Corrupt("record '" + name + "' is damaged");
    done += static_cast<size_t>(count);
  }
  if (unzCloseCurrentFile(file) != UNZ_OK)
    return Corrupt("record '" + name + "' does not have its checksum");
  return bytes;
}

}  // namespace

Result<ZipArchive> ZipArchive::Open(std::span<const std::byte> archive) {
  Stream stream{archive};
  const Unzip file = OpenUnzip(stream);
  unz_global_info64 global = {};
  if (!file || unzGetGlobalInfo64(file.get(), &global) != UNZ_OK)
    return Corrupt("not a zip archive");
  if (global.number_entry > kMaxZipRecords) return Corrupt("zip archive has too many records");
  ZipArchive zip;
  zip.archive_ = archive;
  const uint64_t limit = archive.size() * kMaxZipRatio + kMaxZipSlackBytes;
  uint64_t inflated = 0;
  int status = global.number_entry == 0 ? UNZ_END_OF_LIST_OF_FILE : unzGoToFirstFile(file.get());
  for (; status == UNZ_OK; status = unzGoToNextFile(file.get())) {
    TRY_ASSIGN(const Entry entry, CurrentEntry(file.get()));
    TRY_ASSIGN(const std::span<const std::byte> raw, RawBytes(file.get(), entry, archive));
    unz64_file_pos place = {};
    unzGetFilePos64(file.get(), &place);
    const bool is_stored = entry.info.compression_method == 0;
    if (is_stored && entry.info.uncompressed_size != raw.size())
      return Corrupt("record '" + entry.name + "' has two sizes");
    if (!is_stored && (entry.info.uncompressed_size > limit ||
                       (inflated += entry.info.uncompressed_size) > limit))
      return Fail(ErrorCode::kOutOfRange, "zip archive comes to more than " +
                                              std::to_string(kMaxZipRatio) + " times its size");
    const Record record{place.pos_in_zip_directory, place.num_of_file, raw,
                        entry.info.uncompressed_size, is_stored};
    if (!zip.records_.emplace(entry.name, record).second)
      return Corrupt("record '" + entry.name + "' is there twice");
  }
  if (status != UNZ_END_OF_LIST_OF_FILE) return Corrupt("zip directory is damaged");
  return zip;
}

Result<ZipArchive::Bytes> ZipArchive::Read(std::string_view name) const {
  const auto found = records_.find(name);
  if (found == records_.end())
    return Fail(ErrorCode::kNotFound, "no record '" + std::string(name) + "'");
  const Record& record = found->second;
  if (record.is_stored) return Bytes{record.stored, {}};
  Stream stream{archive_};
  const Unzip file = OpenUnzip(stream);
  const unz64_file_pos place{record.directory_offset, record.number};
  if (!file || unzGoToFilePos64(file.get(), &place) != UNZ_OK)
    return Corrupt("record '" + found->first + "' cannot be opened");
  Bytes bytes;
  TRY_ASSIGN(bytes.inflated, Inflate(file.get(), found->first, record.size_bytes));
  bytes.view = bytes.inflated;
  return bytes;
}

std::vector<std::string> ZipArchive::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, record] : records_) names.push_back(name);
  return names;
}

}  // namespace millpower::import::torch
