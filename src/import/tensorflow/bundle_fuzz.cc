// Any bytes as an index and as data: an error, or tensors of the sizes that the index says.
#include <cstdlib>
#include <cstring>

#include "import/tensorflow/bundle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const size_t index_size = std::min<size_t>(size - 2, data[0] + 256u * data[1]);
  const auto index = bytes.subspan(2, index_size);
  const auto bundle = millpower::import::Bundle::Parse(index, {bytes.subspan(2 + index_size)});
  if (!bundle) return 0;
  for (const std::string& key : (*bundle)->Keys()) {
    (void)(*bundle)->String(key);
    const auto tensor = (*bundle)->Bytes(key);
    if (!tensor) continue;
    int64_t elements = 1;
    for (const int64_t dim : (*bundle)->Describe(key)->shape) elements *= dim;
    if (static_cast<int64_t>(tensor->size()) !=
        elements * millpower::SizeBytes((*bundle)->Describe(key)->dtype))
      std::abort();
  }
  return 0;
}
