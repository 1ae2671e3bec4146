#include "import/tensorflow/state.h"

#include <fmt/format.h>

#include <algorithm>

namespace millpower::import {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBatch = "batch";
constexpr const char* kItems = "items";
constexpr size_t kMaxIssues = 100;  // told one by one

// Names of TensorFlow's nodes are of these, so nothing that prints names needs to quote them.
bool IsPlain(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._/-:").contains(c);
  });
}

bool SameLookup(const Lookup& a, const Lookup& b) {
  return a.keys == b.keys && a.values == b.values && a.otherwise == b.otherwise &&
         a.buckets == b.buckets && a.bucket_base == b.bucket_base;
}

}  // namespace

Value::Value() = default;
Value::Value(Data data, uint64_t ports) : data(std::move(data)), ports(ports) {}
Value::Value(const Value&) = default;
Value::Value(Value&&) noexcept = default;
Value& Value::operator=(const Value&) = default;
Value& Value::operator=(Value&&) noexcept = default;
Value::~Value() = default;

State::State(const tensorflow::MetaGraph& graph, fs::path folder, const TensorOptions& options)
    : builder("saved_model"), graph_(graph), folder_(std::move(folder)), options_(options) {}

void State::Report(const std::string& op, const std::string& node, const std::string& message) {
  std::string line = fmt::format("{} '{}': {}", op, node, message);
  if (known_issues_.insert(line).second) issues_.push_back(std::move(line));
}

Result<void> State::Issues() const {
  if (issues_.empty()) return {};
  std::string all;
  for (size_t i = 0; i < std::min(issues_.size(), kMaxIssues); ++i)
    all += (i == 0 ? "" : "; ") + issues_[i];
  if (issues_.size() > kMaxIssues) all += fmt::format("; and {} more", issues_.size() - kMaxIssues);
  return Fail(ErrorCode::kUnsupported, all);
}

Result<ir::Dim> State::UnknownDim(const std::string& port, int axis, bool ragged) {
  std::string name = axis == 0 ? (ragged ? kItems : kBatch) : fmt::format("{}.{}", port, axis);
  const auto bound = options_.symbol_max.find(name);
  const int64_t otherwise = axis == 0 ? options_.max_batch : options_.max_other;
  const int64_t max = bound == options_.symbol_max.end() ? otherwise : bound->second;
  if (max < 1)
    return Fail(ErrorCode::kInvalidArgument, fmt::format("the bound of '{}' is {}", name, max));
  const std::string symbol = axis == 0 ? name : builder.SymbolName(name);
  if (symbols_.insert(symbol).second) builder.AddSymbol(symbol, max);
  return ir::Symbol(symbol);
}

Result<ir::Shape> State::PortShape(const std::string& name, const tensorflow::TensorInfo& info,
                                   bool ragged) {
  ir::Shape shape;
  if (const auto given = options_.input_shapes.find(name); given != options_.input_shapes.end()) {
    for (const int64_t size : given->second) shape.push_back(ir::Constant(size));
  } else if (info.tensor_shape().unknown_rank()) {
    return Fail(ErrorCode::kUnsupported, "its rank is not known");
  } else {
    for (int axis = 0;
         axis < std::min(info.tensor_shape().dim_size(), 2 * static_cast<int>(ir::kMaxRank));
         ++axis) {
      const int64_t size = info.tensor_shape().dim(axis).size();
      if (size >= 0) {
        shape.push_back(ir::Constant(size));
        continue;
      }
      TRY_ASSIGN(ir::Dim dim, UnknownDim(name, axis, ragged));
      shape.push_back(std::move(dim));
    }
  }
  if (shape.size() > ir::kMaxRank)
    return Fail(ErrorCode::kUnsupported, "it has more than 8 dimensions");
  constexpr int64_t kMaxDim = int64_t{1} << 31;
  for (const ir::Dim& dim : shape)
    if (dim.symbol.empty() && (dim.size < 1 || dim.size > kMaxDim))
      return Fail(ErrorCode::kUnsupported, fmt::format("a dimension of {}", dim.size));
  return shape;
}

Result<PortView> State::AddPort(const std::string& name, const tensorflow::TensorInfo& info,
                                bool ragged) {
  if (info.encoding_case() != tensorflow::TensorInfo::kName)
    return Fail(ErrorCode::kUnsupported, "it is sparse or composed of several tensors");
  Port port{.name = name, .value = {}, .is_string = info.dtype() == kTypeString, .shape = {}};
  if (const auto dtype = DTypeOf(info.dtype()))
    port.dtype = *dtype;
  else if (!port.is_string)
    return Fail(ErrorCode::kUnsupported, "its type is " + TypeName(info.dtype()));
  TRY_ASSIGN(port.shape, PortShape(name, info, ragged));
  PortView view{static_cast<int>(ports_.size()), port.shape};
  ports_.push_back({.port = std::move(port), .direct = std::nullopt, .lookups = {}});
  return view;
}

Result<Tensor> State::TensorOf(const PortView& view) {
  PortState& state = ports_[static_cast<size_t>(view.port)];
  if (state.port.is_string || view.as_text)
    return Fail(ErrorCode::kUnsupported,
                fmt::format("computes with the strings of input '{}', which can only be looked up "
                            "in tables, hashed and compared with constants",
                            state.port.name));
  if (!state.direct)
    state.direct = builder.Input(state.port.name, state.port.dtype, state.port.shape);
  if (view.shape == state.port.shape) return *state.direct;
  return builder.Reshape(*state.direct, view.shape);
}

Result<Tensor> State::LookUp(const PortView& view, Lookup lookup) {
  PortState& state = ports_[static_cast<size_t>(view.port)];
  auto found = std::ranges::find_if(
      state.lookups, [&](const auto& other) { return SameLookup(other.first, lookup); });
  if (found == state.lookups.end()) {
    lookup.input = state.port.name;
    // A name of its own until Finish knows what the graph calls it.
    lookup.value = fmt::format("{}.lookup{}", state.port.name, state.lookups.size());
    const Tensor input = builder.Input(lookup.value, DType::kI64, state.port.shape);
    state.lookups.emplace_back(std::move(lookup), input);
    found = std::prev(state.lookups.end());
  }
  if (view.shape == state.port.shape) return found->second;
  return builder.Reshape(found->second, view.shape);
}

void State::DeclareUnused() {
  for (PortState& state : ports_)
    if (!state.direct && state.lookups.empty() && !state.port.is_string)
      state.direct = builder.Input(state.port.name, state.port.dtype, state.port.shape);
}

void State::Finish(const TensorBuilder::Built& built, TensorModel& model) {
  std::map<std::string, std::string> values;
  for (const auto& named : built.inputs) values.emplace(named.public_name, named.value);
  for (PortState& state : ports_) {
    for (auto& [lookup, tensor] : state.lookups) {
      lookup.value = values[lookup.value];
      if (state.port.value.empty()) state.port.value = lookup.value;
      model.prologue.push_back(std::move(lookup));
    }
    if (state.direct) state.port.value = values[state.port.name];
    if (state.port.value.empty())
      model.notes.push_back(fmt::format("input '{}' has no part in the outputs", state.port.name));
    model.inputs.push_back(std::move(state.port));
  }
}

int State::FindResource(bool is_table, const std::string& name) {
  const auto [place, is_new] =
      resource_names_.try_emplace((is_table ? "t" : "v") + name, resources_.size());
  if (is_new)
    resources_.push_back({.is_table = is_table,
                          .name = name,
                          .value = std::nullopt,
                          .weight = std::nullopt,
                          .content = std::nullopt});
  return place->second;
}

Result<const Bundle*> State::OpenBundle() {
  if (!weights->bundle()) {
    TRY_ASSIGN(auto bundle, Bundle::Open(folder_ / "variables" / "variables"));
    weights->SetBundle(std::move(bundle));
  }
  return weights->bundle();
}

Result<Tensor> State::WeightOf(const std::string& name, const Stored& stored) {
  const std::string identity = stored.key + '\n' + stored.part;
  if (const auto known = stored_weights_.find(identity); known != stored_weights_.end())
    return known->second;
  TRY_ASSIGN(const Bundle* bundle, OpenBundle());
  TRY_ASSIGN(BundleTensor tensor, bundle->Describe(stored.key));
  TRY(bundle->Bytes(stored.key));  // that they are there
  std::vector<int64_t> shape = tensor.shape;
  std::optional<Extent> rows;
  if (!stored.part.empty()) {
    const auto spec = ParseSliceSpec(stored.part);
    if (!spec || spec->shape != tensor.shape || shape.empty())
      return Fail(ErrorCode::kCorrupt,
                  fmt::format("'{}' is no part of '{}'", stored.part, stored.key));
    for (size_t i = 1; i < shape.size(); ++i)
      if (spec->region[i] != Extent{0, shape[i]})
        return Fail(ErrorCode::kUnsupported, "a variable that is a part of columns");
    rows = spec->region[0];
    shape[0] = rows->length;
  }
  std::string weight_name = IsPlain(name) ? name : "variable";
  const ir::WeightSource& source = *weights;
  while (source.Find(weight_name)) weight_name += "_";
  weights->AddVariable(weight_name, stored.key, tensor, rows);
  const Tensor weight = builder.Weight(weight_name, tensor.dtype, shape);
  weight_ids_.insert(weight.id);
  stored_weights_.emplace(identity, weight);
  return weight;
}

Result<Tensor> State::Read(int variable) {
  Resource& read = resource(variable);
  if (read.weight) return *read.weight;
  if (!read.value)
    return Fail(ErrorCode::kUnsupported,
                fmt::format("variable '{}' has no value in the saved model", read.name));
  if (const auto* unusable = read.value->As<Unusable>())
    return Fail(ErrorCode::kUnsupported,
                fmt::format("the value of variable '{}' comes from {}", read.name, unusable->why));
  if (const auto* tensor = read.value->As<Tensor>()) {
    read.weight = *tensor;
  } else if (const auto* stored = read.value->As<Stored>()) {
    TRY_ASSIGN(read.weight, WeightOf(read.name, *stored));
  } else {
    return Fail(ErrorCode::kUnsupported,
                fmt::format("variable '{}' does not hold numbers", read.name));
  }
  return *read.weight;
}

Result<Tensor> State::ConstantOf(const tensorflow::NodeDef& node, Literal literal) {
  if (const auto known = constants_.find(&node); known != constants_.end()) return known->second;
  TRY_ASSIGN(const int64_t elements, ElementCount(literal.shape));
  Result<Tensor> constant = Tensor{};
  if (literal.uniform) {
    TRY_ASSIGN(const Tensor element, builder.Constant(literal.dtype, {}, literal.bytes));
    ir::Shape shape;
    for (const int64_t size : literal.shape) shape.push_back(ir::Constant(size));
    constant = builder.Expand(element, shape);
  } else if (elements <= kMaxKnown) {
    constant = builder.Constant(literal.dtype, literal.shape, literal.bytes);
  } else {
    const std::string name = fmt::format("constant.{}", constants_.size());
    constant = builder.Weight(name, literal.dtype, literal.shape);
    weight_ids_.insert(constant->id);
    weights->AddConstant(name, std::move(literal));
  }
  if (constant) constants_.emplace(&node, *constant);
  return constant;
}

// Only a plain file inside of assets/: its name comes from the model.
Result<std::optional<fs::path>> State::AssetOf(const std::string& constant) const {
  for (const auto& asset : graph_.asset_file_def()) {
    const std::string& tensor = asset.tensor_info().name();
    if (tensor != constant && tensor != constant + ":0") continue;
    const std::string& name = asset.filename();
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos)
      return Fail(ErrorCode::kCorrupt, fmt::format("the asset '{}' is not in assets/", name));
    const fs::path path = folder_ / "assets" / name;
    std::error_code error;
    if (!fs::is_regular_file(fs::symlink_status(path, error)))
      return Fail(ErrorCode::kNotFound, fmt::format("no file '{}' in assets/", name));
    return path;
  }
  return std::nullopt;
}

}  // namespace millpower::import
