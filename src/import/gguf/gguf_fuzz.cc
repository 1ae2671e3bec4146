// Any bytes: an error, or tensors inside the file that do not overlap; and from its metadata a
// config whose graph builds, a tokenizer and end tokens, or errors.
#include <cstdlib>

#include "import/gguf/config.h"
#include "import/gguf/tokenizer.h"
#include "import/qwen3/graph.h"

namespace {

using namespace millpower;

// The embedding that a config is read from, and nothing else.
class EmbeddingOnly final : public ir::WeightSource {
 public:
  explicit EmbeddingOnly(const import::GgufFile& file) : file_(file) {}
  Result<ir::TensorView> Find(const std::string& name) const override {
    const auto found = file_.tensors.find("token_embd.weight");
    if (name != "model.embed_tokens.weight" || found == file_.tensors.end())
      return Fail(ErrorCode::kNotFound, "no tensor '" + name + "'");
    return ir::TensorView{DType::kF32, found->second.shape, found->second.bytes};
  }
  void Release(std::span<const std::byte>) const override {}

 private:
  const import::GgufFile& file_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto file = import::ParseGguf(bytes);
  if (!file) return 0;
  for (const auto& [name, tensor] : file->tensors) {
    if (tensor.bytes.data() < bytes.data() ||
        tensor.bytes.data() + tensor.bytes.size() > bytes.data() + bytes.size())
      std::abort();
    [[maybe_unused]] volatile std::byte read{};
    for (const std::byte byte : tensor.bytes) read = byte;
  }
  const import::GgufFields metadata(file->metadata);
  const auto config = import::ParseGgufConfig(metadata, EmbeddingOnly(*file));
  // Deep models are as sound as shallow ones and only slower to build.
  if (config && config->layers <= 4 && !import::BuildQwen3Graph(*config)) std::abort();
  (void)import::TokenizerJson(metadata);
  if (const auto ends = import::EndTokens(metadata, 100))
    for (const int32_t id : *ends)
      if (id < 0 || id >= 100) std::abort();
  return 0;
}
