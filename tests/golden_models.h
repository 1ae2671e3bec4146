// The small models of tests/golden and what Hugging Face transformers gave for them.
#pragma once

#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/mapped_file.h"
#include "base/threads.h"
#include "compile/compile.h"
#include "device/cpu/cpu_device.h"
#include "import/hf/folder.h"
#include "import/hf/safetensors.h"
#include "isa/package.h"
#include "isa/sampling.h"

namespace millpower {

inline const std::filesystem::path kGoldens = MILLPOWER_SOURCE_DIR "/tests/golden";

// A model compiled and packed, ready for a device.
struct GoldenModel {
  std::shared_ptr<const isa::Program> program;
  isa::BoundWeights weights;
};

inline GoldenModel CompileAndPack(const ir::Graph& graph, const ir::WeightSource& weights,
                                  const compile::Options& options) {
  auto compiled = compile::Compile(graph, options);
  CHECK(compiled) << compiled.error().message;
  ThreadTeam team(2);
  auto packed = compile::PackAll(compiled->program, compiled->packing, weights, team, {});
  CHECK(packed) << packed.error().message;
  return {std::make_shared<const isa::Program>(std::move(compiled->program)), std::move(*packed)};
}

inline GoldenModel CompileGolden(const std::string& name, const compile::Options& options) {
  const auto folder = import::OpenHfFolder(kGoldens / name);
  CHECK(folder) << folder.error().message;
  const auto graph = folder->BuildGraph();
  CHECK(graph) << graph.error().message;
  return CompileAndPack(*graph, *folder->weights, options);
}

// One model on the CPU device, one sequence, driven launch by launch.
class DeviceModel {
 public:
  DeviceModel(GoldenModel model, const device::cpu::CpuOptions& cpu)
      : device_(device::cpu::MakeCpuDevice(cpu)), program_(model.program) {
    auto loaded = device_->Load(program_, std::move(model.weights), {.kv_pages = kPages});
    CHECK(loaded) << loaded.error().message;
    loaded_ = std::move(*loaded);
  }

  // Appends `tokens` to the sequence; logits of the last `picked` of them, row by row.
  std::vector<std::vector<float>> Run(std::span<const int32_t> tokens, int64_t picked) {
    device::Launch launch(*program_);
    auto input = [&](const char* name) -> std::vector<int32_t>& {
      return launch.inputs[static_cast<size_t>(program_->FindBuffer(name))];
    };
    auto set = [&](const char* name, int64_t value) {
      launch.registers[static_cast<size_t>(program_->FindRegister(name))] = value;
    };
    const auto rows = static_cast<int64_t>(tokens.size());
    for (int64_t i = 0; i < rows; ++i) {
      input("tokens").push_back(tokens[static_cast<size_t>(i)]);
      input("positions").push_back(static_cast<int32_t>(position_ + i));
    }
    input("sequences") = {0, static_cast<int32_t>(rows), static_cast<int32_t>(position_), 0};
    // Pages in a scrambled order: where a position lives must not matter.
    for (int32_t i = 0; i < kPages; ++i) input("pages").push_back((i * 7 + 3) % kPages);
    for (int64_t i = rows - picked; i < rows; ++i)
      input("picked_rows").push_back(static_cast<int32_t>(i));
    input("sampling").assign(static_cast<size_t>(picked * isa::kSampleParamWords), 0);
    for (int64_t i = 0; i < picked; ++i)
      input("sampling")[static_cast<size_t>(i * isa::kSampleParamWords + isa::kSampleTarget)] = -1;
    set("rows", rows);
    set("seqs", 1);
    set("picked", picked);
    set("page_entries", kPages);
    const auto ticket = loaded_->Submit(launch);
    CHECK(ticket) << ticket.error().message;
    const auto completed = loaded_->Complete(*ticket);
    CHECK(completed) << completed.error().message;
    position_ += rows;
    const auto bytes = loaded_->Output(program_->FindBuffer("logits"));
    const auto vocab = static_cast<size_t>(program_->FactOr("vocab_size", 0));
    std::vector<std::vector<float>> logits(static_cast<size_t>(picked), std::vector<float>(vocab));
    for (size_t i = 0; i < logits.size(); ++i)
      std::memcpy(logits[i].data(), bytes.data() + i * vocab * 4, vocab * 4);
    const auto* records =
        reinterpret_cast<const int32_t*>(loaded_->Output(program_->FindBuffer("sampled")).data());
    sampled_ = records[(picked - 1) * isa::kSampleRecordWords + isa::kRecordToken];
    return logits;
  }

  // The token that the last Run's last row sampled (greedily).
  int32_t sampled() const { return sampled_; }
  void Restart() { position_ = 0; }

 private:
  static constexpr int32_t kPages = 31;
  std::unique_ptr<device::Device> device_;
  std::shared_ptr<const isa::Program> program_;
  std::unique_ptr<device::LoadedProgram> loaded_;
  int64_t position_ = 0;
  int32_t sampled_ = 0;
};

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
