#include "import/tensorflow/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>

#include "base/mapped_file.h"
#include "import/tensorflow/call.h"
#include "import/tensorflow/captures.h"
#include "import/tensorflow/interpreter.h"
#include "import/tensorflow/state.h"

namespace millpower::import {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "saved_model.pb";
constexpr const char* kServing = "serve";
constexpr const char* kInitialiser = "__saved_model_init_op";

// Maps have no order; names give one.
std::map<std::string, const tensorflow::TensorInfo*> Sorted(
    const google::protobuf::Map<std::string, tensorflow::TensorInfo>& tensors) {
  std::map<std::string, const tensorflow::TensorInfo*> sorted;
  for (const auto& [name, info] : tensors) sorted.emplace(name, &info);
  return sorted;
}

// The graph that is meant for serving; with one graph alone, that one.
Result<const tensorflow::MetaGraph*> ServingGraph(const tensorflow::SavedModel& saved) {
  for (const auto& graph : saved.meta_graphs())
    if (std::ranges::find(graph.meta_info_def().tags(), kServing) !=
        graph.meta_info_def().tags().end())
      return &graph;
  if (saved.meta_graphs_size() == 1) return &saved.meta_graphs(0);
  return Fail(ErrorCode::kNotFound, "none of its graphs is tagged 'serve'");
}

Result<const tensorflow::SignatureDef*> FindSignature(const tensorflow::MetaGraph& graph,
                                                      const std::string& name) {
  const auto found = graph.signature_def().find(name);
  if (found != graph.signature_def().end() && name != kInitialiser) return &found->second;
  std::vector<std::string> names;
  for (const auto& [key, signature] : graph.signature_def())
    if (key != kInitialiser) names.push_back("'" + key + "'");
  std::ranges::sort(names);
  return Fail(ErrorCode::kNotFound,
              fmt::format("no signature '{}'; there are: {}", name,
                          names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

// "node:0" without the number.
std::string NodeOf(const std::string& tensor) { return tensor.substr(0, tensor.find(':')); }

// The operation that fills tables: of TensorFlow 2 a signature, before that a collection.
std::string InitialiserOf(const tensorflow::MetaGraph& graph) {
  if (const auto signature = graph.signature_def().find(kInitialiser);
      signature != graph.signature_def().end()) {
    const auto output = signature->second.outputs().find(kInitialiser);
    if (output != signature->second.outputs().end()) return NodeOf(output->second.name());
  }
  for (const char* name : {"saved_model_main_op", "legacy_init_op"})
    if (const auto nodes = graph.collection_def().find(name); nodes != graph.collection_def().end())
      if (nodes->second.node_list().value_size() == 1)
        return NodeOf(nodes->second.node_list().value(0));
  return {};
}

class Importer {
 public:
  Importer(const tensorflow::MetaGraph& graph, const tensorflow::SignatureDef& signature,
           const fs::path& folder, const TensorOptions& options)
      : graph_(graph),
        signature_(signature),
        state_(graph, folder, options),
        interpreter_(graph.graph_def(), state_) {}

  // `ragged`: inputs whose first dimension counts items; see State::ragged_ports.
  Result<TensorModel> Import(uint64_t ragged) {
    TRY(AddInputs(ragged));
    TRY(Prepare());
    state_.phase = Phase::kServe;
    TRY_ASSIGN(const auto outputs, Outputs());
    FindRagged();
    TRY(state_.Issues());
    TensorModel model;
    model.format = "saved_model";
    for (const auto& [name, tensor] : outputs) {
      model.outputs.push_back({.name = name,
                               .value = {},
                               .dtype = state_.builder.dtype(tensor),
                               .shape = state_.builder.shape(tensor)});
      TRY(state_.builder.Output(name, tensor));
    }
    state_.DeclareUnused();
    TRY_ASSIGN(auto built, std::move(state_.builder).Build());
    state_.Finish(built, model);
    for (size_t i = 0; i < built.outputs.size(); ++i)
      model.outputs[i].value = built.outputs[i].value;
    model.graph = std::move(built.graph);
    model.weights = std::move(state_.weights);
    model.operators = std::move(state_.operators);
    return model;
  }

  // Inputs with an open first dimension that turned out to hold items.
  uint64_t ragged() const { return ragged_; }

 private:
  Result<void> AddInputs(uint64_t ragged) {
    int index = 0;
    for (const auto& [name, info] : Sorted(signature_.inputs())) {
      const uint64_t bit = index < 64 ? uint64_t{1} << index : 0;
      ++index;
      auto view = state_.AddPort(name, *info, (ragged & bit) != 0);
      if (!view) {
        state_.Report("input", name, view.error().message);
        continue;
      }
      if (info->name().empty())
        return Fail(ErrorCode::kCorrupt, fmt::format("input '{}' is no tensor", name));
      interpreter_.Feed(NodeOf(info->name()), Value{*std::move(view), bit});
    }
    return state_.Issues();
  }

  // Runs what loading a saved model runs: the restore operation, then the initialiser.
  Result<void> Prepare() {
    state_.phase = Phase::kRestore;
    if (const std::string& restore = graph_.saver_def().restore_op_name(); !restore.empty())
      TRY(interpreter_.Run(NodeOf(restore)));
    TRY(BindCaptures(graph_, state_));
    state_.phase = Phase::kInitialise;
    state_.preparation_failure.clear();
    if (const std::string initialiser = InitialiserOf(graph_); !initialiser.empty())
      TRY(interpreter_.Run(initialiser));
    return {};
  }

  Result<std::vector<std::pair<std::string, Tensor>>> Outputs() {
    std::vector<std::string> names, tensors;
    for (const auto& [name, info] : Sorted(signature_.outputs())) {
      if (info->encoding_case() == tensorflow::TensorInfo::kName) {
        names.push_back(name);
        tensors.push_back(info->name());
      } else {
        state_.Report("output", name, "it is sparse or composed of several tensors");
      }
    }
    if (names.empty()) return Fail(ErrorCode::kUnsupported, "the signature has no outputs");
    TRY_ASSIGN(const Values values, interpreter_.Evaluate(tensors));
    std::vector<std::pair<std::string, Tensor>> outputs;
    for (size_t i = 0; i < names.size(); ++i) {
      if (values[i].As<Unusable>()) continue;  // reported
      auto tensor = TensorOf(values[i]);
      if (tensor)
        outputs.emplace_back(names[i], *tensor);
      else
        state_.Report("output", names[i], tensor.error().message);
    }
    return outputs;
  }

  void FindRagged() {
    for (size_t i = 0; i < std::min<size_t>(state_.port_count(), 64); ++i) {
      const ir::Shape& shape = state_.port(static_cast<int>(i)).shape;
      if (!shape.empty() && !shape[0].symbol.empty()) ragged_ |= uint64_t{1} << i;
    }
    ragged_ &= state_.ragged_ports;
  }

  Result<Tensor> TensorOf(const Value& value) {
    if (const auto* tensor = value.As<Tensor>()) return *tensor;
    if (const auto* view = value.As<PortView>()) return state_.TensorOf(*view);
    return Unsupported("it holds strings or a resource");
  }

  const tensorflow::MetaGraph& graph_;
  const tensorflow::SignatureDef& signature_;
  State state_;
  Interpreter interpreter_;
  uint64_t ragged_ = 0;
};

}  // namespace

Result<TensorModel> ImportSavedModel(const tensorflow::SavedModel& saved, const fs::path& folder,
                                     const TensorOptions& options) {
  TRY_ASSIGN(const tensorflow::MetaGraph* graph, ServingGraph(saved));
  TRY_ASSIGN(const tensorflow::SignatureDef* signature, FindSignature(*graph, options.signature));
  Importer importer(*graph, *signature, folder, options);
  auto model = importer.Import(0);
  const uint64_t ragged = importer.ragged();
  if (ragged == 0) return model;
  // Items and rows got the same size at first; now that it is known which is which, once more.
  auto again = Importer(*graph, *signature, folder, options).Import(ragged);
  if (again || !model) return again;
  return model;
}

Result<TensorModel> OpenSavedModel(const fs::path& folder, const TensorOptions& options) {
  const fs::path path = folder / kFile;
  TRY_ASSIGN(const MappedFile file, MappedFile::Open(path));
  if (file.bytes().size() > INT_MAX)
    return Fail(ErrorCode::kUnsupported, path.string() + ": is larger than 2 GiB");
  tensorflow::SavedModel saved;
  if (!saved.ParseFromArray(file.bytes().data(), static_cast<int>(file.bytes().size())))
    return Fail(ErrorCode::kCorrupt, path.string() + ": is not a SavedModel");
  auto model = ImportSavedModel(saved, folder, options);
  if (!model) return FailAt(path.string(), std::move(model).error());
  return model;
}

bool IsSavedModel(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path / kFile, ignored);
}

}  // namespace millpower::import
