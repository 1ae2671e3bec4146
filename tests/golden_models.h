// The small models of tests/golden and what Hugging Face transformers gave for them.
#pragma once

#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/mapped_file.h"
#include "base/threads.h"
#include "compile/compile.h"
#include "import/hf/folder.h"
#include "import/hf/safetensors.h"
#include "isa/package.h"

namespace millpower {

inline const std::filesystem::path kGoldens = MILLPOWER_SOURCE_DIR "/tests/golden";

// A model compiled and packed, ready for a device.
struct GoldenModel {
  std::shared_ptr<const isa::Program> program;
  isa::BoundWeights weights;
};

inline GoldenModel CompileGolden(const std::string& name, const compile::Options& options) {
  auto folder = import::OpenHfFolder(kGoldens / name);
  CHECK(folder) << folder.error().message;
  const auto graph = folder->BuildGraph();
  CHECK(graph) << graph.error().message;
  auto compiled = compile::Compile(*graph, options);
  CHECK(compiled) << compiled.error().message;
  ThreadTeam team(1);
  auto weights = compile::PackAll(compiled->program, compiled->packing, *folder->weights, team, {});
  CHECK(weights) << weights.error().message;
  return {std::make_shared<const isa::Program>(std::move(compiled->program)), std::move(*weights)};
}

// The tensors of a model's reference.safetensors.
class Reference {
 public:
  explicit Reference(const std::string& model) {
    auto file = MappedFile::Open(kGoldens / model / "reference.safetensors");
    CHECK(file) << file.error().message;
    file_ = std::move(*file);
    auto table = import::ParseSafetensors(file_.bytes());
    CHECK(table) << table.error().message;
    table_ = std::move(*table);
  }
  template <typename T>
  std::vector<T> Get(const std::string& name) const {
    const auto bytes = table_.at(name).bytes;
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

 private:
  MappedFile file_;
  import::SafetensorsTable table_;
};

}  // namespace millpower
