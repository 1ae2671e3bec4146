// Any bytes as a saved_model.pb without variables: an error, or a graph that is sound.
#include <cstdlib>

#include "import/tensorflow/model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace import = millpower::import;
  millpower::tensorflow::SavedModel saved;
  if (!saved.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto model = import::ImportSavedModel(saved, "/nonexistent", {});
  if (model && !millpower::ir::Verify(model->graph)) std::abort();
  return 0;
}
