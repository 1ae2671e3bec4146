#include "import/torch/archive.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "import/torch/pickle.h"
#include "import/torch/program.h"
#include "import/torch/zip.h"

namespace millpower::import::torch {
namespace {

using Tensors = std::map<std::string, StridedTensor>;

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

class Opener {
 public:
  explicit Opener(ZipArchive zip) : zip_(std::move(zip)) {}

  Result<Pt2Archive> Open() {
    if (zip_.Has("serialized_exported_program.json")) {
      TRY(OpenFlat());
    } else {
      TRY(OpenLayered());
    }
    return std::move(archive_);
  }

 private:
  // A record's bytes, kept if they had to be inflated.
  // Once, however often it is named.
  Result<std::span<const std::byte>> Bytes(const std::string& name) {
    if (const auto known = views_.find(name); known != views_.end()) return known->second;
    TRY_ASSIGN(ZipArchive::Bytes bytes, zip_.Read(name));
    if (!bytes.inflated.empty()) archive_.inflated.push_back(std::move(bytes.inflated));
    views_[name] = bytes.view;
    return bytes.view;
  }

  Result<std::string> Text(const std::string& name) {
    TRY_ASSIGN(const ZipArchive::Bytes bytes, zip_.Read(name));
    return std::string(reinterpret_cast<const char*>(bytes.view.data()), bytes.view.size());
  }

  // The text of a short record without the white space at its end.
  Result<std::string> Word(const std::string& name) {
    TRY_ASSIGN(std::string text, Text(name));
    text.resize(std::min<size_t>(text.size(), 64));
    text.erase(text.find_last_not_of(" \r\n\t") + 1);
    return text;
  }

  Result<void> Expect(const std::string& record, const char* what, std::string_view expected) {
    TRY_ASSIGN(const std::string word, Word(record));
    if (word == expected) return {};
    return Fail(ErrorCode::kUnsupported, std::string(what) + " is '" + word + "', and we read '" +
                                             std::string(expected) + "'");
  }

  Result<Tensors> Pickled(const std::string& name) {
    if (const auto known = pickled_.find(name); known != pickled_.end()) return known->second;
    TRY_ASSIGN(const std::span<const std::byte> bytes, Bytes(name));
    Result<Tensors> tensors = ReadTorchSave(bytes, archive_.inflated);
    if (!tensors) return FailAt(name, std::move(tensors).error());
    pickled_[name] = *tensors;
    return tensors;
  }

  Result<void> OpenFlat() {
    TRY_ASSIGN(archive_.program, Text("serialized_exported_program.json"));
    TRY_ASSIGN(const std::string version, Word("version"));
    const std::string major = version.substr(0, version.find('.'));
    if (major != std::to_string(kProgramSchemaMajor))
      return Fail(ErrorCode::kUnsupported,
                  "exported program has schema version " + version + ", and we read 8");
    TRY_ASSIGN(archive_.weights, Pickled("serialized_state_dict.pt"));
    if (zip_.Has("serialized_constants.pt")) {
      TRY_ASSIGN(archive_.constants, Pickled("serialized_constants.pt"));
    }
    return {};
  }

  Result<void> OpenLayered() {
    TRY_ASSIGN(const std::string root, Root());
    TRY(Expect(root + "archive_format", "archive format", "pt2"));
    if (zip_.Has(root + "archive_version")) {
      TRY(Expect(root + "archive_version", "archive version", "0"));
    }
    if (zip_.Has(root + "byteorder")) {
      TRY(Expect(root + "byteorder", "byte order", "little"));
    }
    TRY_ASSIGN(const std::string model, ModelName(root + "models/"));
    TRY_ASSIGN(archive_.program, Text(root + "models/" + model + ".json"));
    TRY_ASSIGN(archive_.weights, Payloads(root + "data/weights/", model, "_weights_config.json"));
    TRY_ASSIGN(archive_.constants,
               Payloads(root + "data/constants/", model, "_constants_config.json"));
    return {};
  }

  // The folder that everything is in, "NAME/" or "".
  Result<std::string> Root() const {
    constexpr std::string_view kMarker = "archive_format";
    for (const std::string& name : zip_.Names())
      if (name == kMarker ||
          (name.ends_with("/archive_format") && std::ranges::count(name, '/') == 1))
        return name.substr(0, name.size() - kMarker.size());
    return Corrupt(
        "zip archive holds no exported program (neither archive_format nor "
        "serialized_exported_program.json)");
  }

  Result<std::string> ModelName(const std::string& folder) const {
    std::vector<std::string> models;
    for (const std::string& name : zip_.Names())
      if (name.starts_with(folder) && name.ends_with(".json"))
        models.push_back(name.substr(folder.size(), name.size() - folder.size() - 5));
    if (models.empty()) return Corrupt("archive holds no exported program in models/");
    if (models.size() == 1 || std::ranges::find(models, "model") == models.end()) {
      if (models.size() == 1) return models[0];
      return Fail(ErrorCode::kUnsupported, "archive holds several models ('" + models[0] + "', '" +
                                               models[1] + "' ...), none named 'model'");
    }
    return "model";
  }

  // Tensors of data/weights or data/constants.
  Result<Tensors> Payloads(const std::string& folder, const std::string& model,
                           const std::string& config) {
    const std::string saved = folder + model + ".pt";
    if (zip_.Has(saved)) return Pickled(saved);
    const std::string name = folder + model + config;
    if (!zip_.Has(name)) return Tensors{};
    TRY_ASSIGN(const std::string text, Text(name));
    TRY_ASSIGN(const ProgramJson json, ParseProgramJson(text, nullptr));
    TRY_ASSIGN(const ProgramJson* const entries, FieldOf(json, "config"));
    if (!entries->is_object()) return Corrupt(name + ": config is no object");
    Tensors tensors;
    for (const auto& [key, entry] : entries->items()) {
      Result<std::optional<StridedTensor>> tensor = Payload(folder, entry);
      if (!tensor) return FailAt("'" + key + "'", std::move(tensor).error());
      if (*tensor) tensors.emplace(key, **std::move(tensor));
    }
    return tensors;
  }

  // Absent for an object that is not a tensor.
  Result<std::optional<StridedTensor>> Payload(const std::string& folder,
                                               const ProgramJson& entry) {
    TRY_ASSIGN(const std::string path, TextOf(entry, "path_name"));
    const auto meta = entry.find("tensor_meta");
    if (meta == entry.end() || meta->is_null()) return std::nullopt;
    const auto use_pickle = entry.find("use_pickle");
    if (use_pickle != entry.end() && use_pickle->is_boolean() && use_pickle->get<bool>()) {
      TRY_ASSIGN(Tensors pickled, Pickled(folder + path));
      const auto found = pickled.find("");
      if (found == pickled.end()) return Corrupt("holds no tensor");
      return found->second;
    }
    return Described(*meta, folder + path);
  }

  Result<std::optional<StridedTensor>> Described(const ProgramJson& meta,
                                                 const std::string& record) {
    TRY_ASSIGN(const ProgramTensor described, ParseTensorMeta(meta));
    StridedTensor tensor;
    tensor.dtype = DTypeOfScalarType(described.scalar_type);
    tensor.dtype_name = ScalarTypeName(described.scalar_type);
    TRY_ASSIGN(tensor.shape, Integers(described.sizes));
    TRY_ASSIGN(const ProgramJson* const strides, FieldOf(meta, "strides"));
    if (!strides->is_array()) return Corrupt("strides is not a list");
    for (const ProgramJson& stride : *strides) {
      TRY_ASSIGN(const ProgramArgument argument, UnionOf(stride));
      TRY_ASSIGN(const std::vector<int64_t> value, Integers({argument}));
      tensor.strides.push_back(value[0]);
    }
    TRY_ASSIGN(const ProgramJson* const offset, FieldOf(meta, "storage_offset"));
    TRY_ASSIGN(const ProgramArgument argument, UnionOf(*offset));
    TRY_ASSIGN(const std::vector<int64_t> offsets, Integers({argument}));
    tensor.offset = offsets[0];
    TRY_ASSIGN(tensor.storage, Storage(record));
    return tensor;
  }

  // Several tensors may share a record.
  Result<std::span<const std::byte>> Storage(const std::string& record) {
    const auto found = storages_.find(record);
    if (found != storages_.end()) return found->second;
    TRY_ASSIGN(const std::span<const std::byte> bytes, Bytes(record));
    storages_[record] = bytes;
    return bytes;
  }

  static Result<std::vector<int64_t>> Integers(const std::vector<ProgramArgument>& sizes) {
    std::vector<int64_t> integers;
    for (const ProgramArgument& size : sizes) {
      if (size.type != "as_int") return Corrupt("has a size that is no number");
      TRY_ASSIGN(const int64_t integer, IntegerOf(*size.value));
      integers.push_back(integer);
    }
    return integers;
  }

  ZipArchive zip_;
  // By record.
  std::map<std::string, std::span<const std::byte>> views_;
  std::map<std::string, Tensors> pickled_;
  Pt2Archive archive_;
  std::map<std::string, std::span<const std::byte>> storages_;
};

}  // namespace

bool IsZip(std::span<const std::byte> file) {
  return file.size() >= 4 && file[0] == std::byte{'P'} && file[1] == std::byte{'K'} &&
         file[2] == std::byte{3} && file[3] == std::byte{4};
}

Result<Pt2Archive> OpenPt2Archive(std::span<const std::byte> file) {
  TRY_ASSIGN(ZipArchive zip, ZipArchive::Open(file));
  return Opener(std::move(zip)).Open();
}

}  // namespace millpower::import::torch
