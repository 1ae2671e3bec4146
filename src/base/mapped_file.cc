#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace millpower {
namespace {

// Closes on scope exit.
struct FileDescriptor {
  int fd = -1;
  ~FileDescriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::unexpected<Error> FailErrno(const std::filesystem::path& path, const char* what) {
  const int error = errno;
  const ErrorCode code =
      error == ENOENT || error == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo;
  return Fail(code, path.string() + ": " + what + ": " + std::strerror(error));
}

// Opens a regular file and reads its size.
Result<size_t> OpenRegular(const std::filesystem::path& path, FileDescriptor& file) {
  file.fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.fd < 0) return FailErrno(path, "cannot open");
  struct stat info{};
  if (::fstat(file.fd, &info) != 0) return FailErrno(path, "cannot stat");
  if (!S_ISREG(info.st_mode))
    return Fail(ErrorCode::kInvalidArgument, path.string() + ": not a regular file");
  return static_cast<size_t>(info.st_size);
}

}  // namespace

Result<MappedFile> MappedFile::Open(const std::filesystem::path& path) {
  return Map(path, PROT_READ, MAP_PRIVATE);
}

Result<MappedFile> MappedFile::OpenCopyOnWrite(const std::filesystem::path& path) {
  // Nothing is set aside for copies that may never be made: the file may be larger than memory.
  return Map(path, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);
}

Result<MappedFile> MappedFile::Map(const std::filesystem::path& path, int protection, int flags) {
  FileDescriptor file;
  TRY_ASSIGN(const size_t size_bytes, OpenRegular(path, file));
  MappedFile mapped;
  mapped.path_ = path;
  if (size_bytes == 0) return mapped;
  void* data = ::mmap(nullptr, size_bytes, protection, flags, file.fd, 0);
  if (data == MAP_FAILED) return FailErrno(path, "cannot map");
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.size_bytes_ = size_bytes;
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(path_, other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_bytes_);
}

void MappedFile::MoveForRandomReads() {
  if (data_ == nullptr) return;
  constexpr size_t kPageTableBytes = size_t{2} << 20;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t size = (size_bytes_ + page - 1) / page * page;
  const size_t hole_size = size + 2 * kPageTableBytes;
  void* const hole =
      ::mmap(nullptr, hole_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (hole == MAP_FAILED) return;
  auto* const begin = static_cast<std::byte*>(hole);
  const size_t before =
      kPageTableBytes - reinterpret_cast<uintptr_t>(begin) % kPageTableBytes + page;
  void* const moved = ::mremap(const_cast<std::byte*>(data_), size, size,
                               MREMAP_MAYMOVE | MREMAP_FIXED, begin + before);
  if (moved == MAP_FAILED) {
    ::munmap(hole, hole_size);
    return;
  }
  ::munmap(begin, before);
  ::munmap(begin + before + size, hole_size - before - size);
  data_ = static_cast<const std::byte*>(moved);
}

void MappedFile::DropResident(size_t offset_bytes, size_t size_bytes) const {
  if (data_ == nullptr || offset_bytes >= size_bytes_) return;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset_bytes + page - 1) / page * page;  // only pages wholly inside
  const size_t end = std::min(offset_bytes + size_bytes, size_bytes_) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

void DropResident(std::span<const MappedFile> files, std::span<const std::byte> bytes) {
  for (const MappedFile& file : files) {
    const std::span<const std::byte> all = file.bytes();
    if (bytes.data() >= all.data() && bytes.data() + bytes.size() <= all.data() + all.size())
      return file.DropResident(static_cast<size_t>(bytes.data() - all.data()), bytes.size());
  }
}

Result<std::string> ReadFile(const std::filesystem::path& path, size_t limit_bytes) {
  FileDescriptor file;
  TRY_ASSIGN(const size_t size_bytes, OpenRegular(path, file));
  if (size_bytes > limit_bytes)
    return Fail(ErrorCode::kOutOfRange, path.string() + ": " + std::to_string(size_bytes) +
                                            " bytes, more than the limit of " +
                                            std::to_string(limit_bytes));
  std::string text(size_bytes, '\0');
  size_t done = 0;
  while (done < size_bytes) {
    const ssize_t got = ::read(file.fd, text.data() + done, size_bytes - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno(path, "cannot read");
    if (got == 0) break;  // truncated meanwhile: return what there was
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

}  // namespace millpower
