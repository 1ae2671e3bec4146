#include "import/hf/weights.h"

#include <set>

#include "import/hf/large_json.h"

namespace millpower::import {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr size_t kMaxIndexBytes = 64 << 20;

// A file name of the folder itself, not a way out of it.
bool IsPlainName(const std::string& name) {
  return name.ends_with(".safetensors") && name.find_first_of("/\\") == std::string::npos &&
         name.find("..") == std::string::npos && name.find('\0') == std::string::npos;
}

// Why a folder without safetensors is not read.
std::unexpected<Error> FailWithoutSafetensors(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator file(folder, error), end; !error && file != end;
       file.increment(error)) {
    const std::string extension = file->path().extension().string();
    if (extension == ".bin" || extension == ".pt" || extension == ".pth")
      return Fail(ErrorCode::kUnsupported,
                  file->path().string() +
                      ": weights in pickle files are not read; convert them to safetensors");
  }
  return Fail(ErrorCode::kNotFound,
              std::string("no ") + kSingleFile + " or " + kIndexFile + " in " + folder.string());
}

// Tensor names, grouped by the shard that has them.
using Shards = std::map<std::string, std::set<std::string>>;

Result<Shards> ParseIndex(std::string_view text) {
  TRY_ASSIGN(const SortedJson index, ParseLargeObject(text));
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object())
    return Fail(ErrorCode::kCorrupt, "has no weight_map");
  Shards shards;
  for (const auto& [tensor, shard] : weight_map->items()) {
    if (!shard.is_string() || !IsPlainName(shard.get<std::string>()))
      return Fail(ErrorCode::kCorrupt, "shard of '" + tensor + "' is not a .safetensors file name");
    shards[shard.get<std::string>()].insert(tensor);
  }
  return shards;
}

}  // namespace

Result<std::unique_ptr<HfWeights>> HfWeights::Open(const fs::path& folder) {
  auto weights = std::make_unique<HfWeights>();
  weights->folder_ = folder;
  std::error_code ignored;
  if (fs::exists(folder / kSingleFile, ignored)) {
    TRY_ASSIGN(SafetensorsTable table, weights->AddFile(folder / kSingleFile));
    for (auto& [name, entry] : table) weights->tensors_[name] = {0, std::move(entry)};
  } else if (fs::exists(folder / kIndexFile, ignored)) {
    TRY(weights->AddShards(folder, folder / kIndexFile));
  } else {
    return FailWithoutSafetensors(folder);
  }
  return weights;
}

Result<SafetensorsTable> HfWeights::AddFile(const fs::path& path) {
  TRY_ASSIGN(MappedFile file, MappedFile::Open(path));
  auto table = ParseSafetensors(file.bytes());
  if (!table) return FailAt(path.string(), std::move(table).error());
  files_.push_back(std::move(file));
  return table;
}

Result<void> HfWeights::AddShards(const fs::path& folder, const fs::path& index_path) {
  TRY_ASSIGN(const std::string text, ReadFile(index_path, kMaxIndexBytes));
  auto shards = ParseIndex(text);
  if (!shards) return FailAt(index_path.string(), std::move(shards).error());
  for (const auto& [shard, names] : *shards) {
    TRY_ASSIGN(SafetensorsTable table, AddFile(folder / shard));
    for (const std::string& name : names) {
      const auto found = table.find(name);
      if (found == table.end())
        return Fail(ErrorCode::kCorrupt, index_path.string() + ": tensor '" + name +
                                             "' is not in " + shard + ", where the index has it");
      tensors_[name] = {files_.size() - 1, std::move(found->second)};
    }
  }
  return {};
}

Result<ir::TensorView> HfWeights::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    return Fail(ErrorCode::kNotFound, "no tensor '" + name + "' in " + folder_.string());
  const SafetensorsEntry& entry = found->second.entry;
  if (!entry.dtype)
    return Fail(ErrorCode::kUnsupported,
                "tensor '" + name + "' is " + entry.dtype_name + "; supported: F32, F16, BF16");
  return ir::TensorView{*entry.dtype, entry.shape, entry.bytes};
}

void HfWeights::Release(std::span<const std::byte> bytes) const { DropResident(files_, bytes); }

}  // namespace millpower::import
