// Any bytes: an error, or tensors that lie inside the file.
#include <cstdlib>

#include "import/hf/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  const auto table = millpower::import::ParseSafetensors(file);
  if (!table) return 0;
  for (const auto& [name, entry] : *table)
    if (entry.bytes.data() < file.data() ||
        entry.bytes.data() + entry.bytes.size() > file.data() + file.size())
      std::abort();
  return 0;
}
