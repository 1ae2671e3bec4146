// Any bytes: an error, or tensors of as many strides as sizes. And as a file of torch.save: views
// inside of it.
#include <cstdlib>

#include "import/torch/pickle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millpower::import::torch;
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  if (const auto tensors = ReadPickle(bytes))
    for (const auto& [name, tensor] : *tensors)
      if (tensor.shape.size() != tensor.strides.size()) std::abort();
  std::vector<std::vector<std::byte>> inflated;
  const auto saved = ReadTorchSave(bytes, inflated);
  if (!saved) return 0;
  for (const auto& [name, tensor] : *saved) {
    std::vector<std::byte> copy;
    (void)RowMajor(tensor, copy);
  }
  return 0;
}
