// Any bytes as an index and as data: an error, or tensors of the sizes that the index says. The
// first byte is odd for an index that is a list of entries: they are written into a sound table,
// and checksums are made right, since they find damage and no malice. Seeds:
// tests/fuzz_seeds/tensorflow_bundle.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>

#include "import/tensorflow/bundle.h"
#include "import/tensorflow/test_table.h"

namespace {

using namespace millpower;
using import::AsBytes;

void Expect(bool condition) {
  if (!condition) std::abort();
}

// Consumes bytes; there are zeros behind them.
struct Reader {
  std::string_view rest;

  size_t Number(int bytes) {
    size_t value = 0;
    for (const unsigned char c : Text(static_cast<size_t>(bytes))) value = value << 8 | c;
    return value;
  }
  std::string Text(size_t size) {
    std::string text(rest.substr(0, size));
    rest.remove_prefix(text.size());
    return text;
  }
};

std::string WithChecksum(const std::string& value, std::string_view data) {
  tensorflow::BundleEntry entry;
  if (!entry.ParseFromString(value) || entry.offset() < 0 || entry.size() < 0 ||
      static_cast<uint64_t>(entry.offset()) > data.size())
    return value;
  const std::string part(
      data.substr(static_cast<size_t>(entry.offset()), static_cast<size_t>(entry.size())));
  entry.set_crc32c(import::MaskedCrc32c(AsBytes(part)));
  return entry.SerializeAsString();
}

// Entries as a length, a key, two bytes of a length and a value.
std::string TableOf(Reader index, std::string_view data) {
  import::TestTable table;
  while (!index.rest.empty()) {
    const std::string key = index.Text(index.Number(1));
    const std::string value = index.Text(index.Number(2));
    table.entries[key] = key.empty() ? value : WithChecksum(value, data);
  }
  return table.File();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Reader input{{reinterpret_cast<const char*>(bytes), size}};
  const bool is_list = input.Number(1) % 2 == 1;
  std::string index = input.Text(input.Number(2));
  const std::string data(input.rest);
  if (is_list) index = TableOf({index}, data);

  const auto bundle = import::Bundle::Parse(AsBytes(index), {AsBytes(data)});
  if (!bundle) return 0;
  for (const std::string& key : (*bundle)->Keys()) {
    (void)(*bundle)->String(key);
    const auto tensor = (*bundle)->Bytes(key);
    if (!tensor) continue;
    const auto described = (*bundle)->Describe(key);
    int64_t elements = 1;
    for (const int64_t dim : described->shape) elements *= dim;
    Expect(std::ssize(*tensor) == elements * SizeBytes(described->dtype));
    [[maybe_unused]] volatile std::byte read{};
    for (const std::byte byte : *tensor) read = byte;
  }
  return 0;
}
