// A byte and a file: an error, or a Package whose Program is proven and whose weights lie inside
// the file. If the byte is odd, hashes are first made right: they find damage, not malice, and
// whoever makes a file can make them so. Seeds: tests/fuzz_seeds/package.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "isa/layout.h"
#include "isa/package.h"
#include "isa/verify.h"

namespace {

using namespace millpower;
using namespace millpower::isa;

// docs/isa/package.md
constexpr size_t kCountAt = 12, kTableHashAt = 16, kTableAt = 24;
constexpr size_t kEntryBytes = 40, kOffsetAt = 16, kSizeAt = 24, kHashAt = 32;
constexpr size_t kIndexEntryBytes = 28;

void Expect(bool condition) {
  if (!condition) std::abort();
}

struct File {
  std::vector<std::byte> bytes;

  uint64_t Read(size_t at) const {
    uint64_t value = 0;
    if (at + sizeof value <= bytes.size()) std::memcpy(&value, &bytes[at], sizeof value);
    return value;
  }
  void Write(size_t at, uint64_t value) {
    if (at + sizeof value <= bytes.size()) std::memcpy(&bytes[at], &value, sizeof value);
  }
  // No bytes where the range is not in the file.
  std::span<const std::byte> Part(uint64_t offset, uint64_t size) const {
    if (offset > bytes.size() || size > bytes.size() - offset) return {};
    return std::span(bytes).subspan(offset, size);
  }

  void RepairHashes() {
    const size_t count = std::min<size_t>(static_cast<uint32_t>(Read(kCountAt)), 64);
    const auto find = [&](const char* name) -> size_t {
      for (size_t i = 0; i < count; ++i) {
        const auto entry = Part(kTableAt + i * kEntryBytes, kEntryBytes);
        if (!entry.empty() &&
            std::strncmp(reinterpret_cast<const char*>(entry.data()), name, 16) == 0)
          return kTableAt + i * kEntryBytes;
      }
      return 0;
    };
    const size_t index = find("weights.index"), weights = find("weights");
    if (index != 0 && weights != 0)
      for (size_t at = 0; at < Read(index + kSizeAt) && at < bytes.size(); at += kIndexEntryBytes) {
        const size_t entry = Read(index + kOffsetAt) + at;
        if (Part(entry, kIndexEntryBytes).empty()) break;
        Write(entry + 20,
              Hash(Part(Read(weights + kOffsetAt) + Read(entry + 4), Read(entry + 12))));
      }
    for (size_t i = 0; i < count; ++i) {
      const size_t entry = kTableAt + i * kEntryBytes;
      Write(entry + kHashAt, Hash(Part(Read(entry + kOffsetAt), Read(entry + kSizeAt))));
    }
    if (const auto table = Part(kTableAt, count * kEntryBytes); !table.empty())
      Write(kTableHashAt, Hash(table));
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  File file{{bytes + 1, bytes + size}};
  if (data[0] % 2 == 1) file.RepairHashes();

  static const int fd = ::memfd_create("package", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  Expect(::ftruncate(fd, 0) == 0);
  Expect(::pwrite(fd, file.bytes.data(), file.bytes.size(), 0) ==
         static_cast<ssize_t>(file.bytes.size()));

  const auto package = ReadPackage(path, {});
  if (!package) return 0;
  Expect(Verify(package->program).has_value());
  Expect(package->weights.by_buffer.size() == package->program.buffers.size());
  uint64_t sum = 0;
  for (size_t i = 0; i < package->program.buffers.size(); ++i) {
    const Buffer& buffer = package->program.buffers[i];
    const auto weight = package->weights.by_buffer[i];
    if (buffer.kind != BufferKind::kWeight) {
      Expect(weight.empty());
      continue;
    }
    Expect(static_cast<int64_t>(weight.size()) == BufferBytes(buffer, buffer.rows.size));
    Expect(reinterpret_cast<uintptr_t>(weight.data()) % kLineBytes == 0);
    for (const std::byte byte : weight) sum += static_cast<uint64_t>(byte);  // mapped, all of it
  }
  volatile uint64_t used = sum;
  (void)used;
  return 0;
}
