// Any bytes: an error, or a model whose graph verifies and whose weights can all be read.
#include <cstdlib>

#include "import/onnx/model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millpower;
  const auto model = import::ParseOnnx(std::as_bytes(std::span(data, size)));
  if (!model) return 0;
  if (!ir::Verify(model->graph)) std::abort();
  for (const ir::Value& value : model->graph.values()) {
    for (const ir::TensorSlice& slice : value.slices) {
      const auto view = model->weights->Find(slice.tensor);
      if (!view) std::abort();
      [[maybe_unused]] volatile std::byte read{};
      for (const std::byte byte : view->bytes) read = byte;
    }
  }
  return 0;
}
