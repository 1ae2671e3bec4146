// config.json, a zero byte, generation_config.json: an error each, or a config whose graph builds.
#include <cstdlib>
#include <string_view>

#include "import/hf/config.h"
#include "import/hf/generation.h"
#include "import/qwen3/graph.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millpower::import;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(text.find('\0'), text.size());
  const auto config = ParseQwen3Config(text.substr(0, end));
  // Deep models are as sound as shallow ones and only slower to build.
  if (config && config->layers <= 4 && !BuildQwen3Graph(*config)) std::abort();
  if (end < text.size())
    (void)ParseGenerationConfig(text.substr(end + 1), config ? config->vocab_size : 151936);
  return 0;
}
