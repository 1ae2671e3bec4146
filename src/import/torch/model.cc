#include "import/torch/model.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "base/mapped_file.h"
#include "import/torch/archive.h"
#include "import/torch/call.h"
#include "import/torch/program.h"
#include "import/torch/size_expression.h"
#include "import/torch/strided.h"
#include "import/torch/weights.h"

namespace millpower::import::torch {
namespace {

constexpr std::string_view kAten = "torch.ops.aten.";
constexpr size_t kMaxRefusals = 200;

// Operators that check or bound what is known anyway.
bool IsAssertion(std::string_view target) {
  for (const std::string_view name :
       {"torch.ops.aten._assert_", "torch.ops.aten.sym_constrain_range",
        "torch.ops.aten._assert_scalar", "torch._check", "torch.ops.aten._functional_assert_"})
    if (target.starts_with(name)) return true;
  return false;
}

// "add_.Tensor" is "add.Tensor" in place; "__and__.Tensor" is not.
std::optional<std::string> WithoutInPlace(std::string_view name) {
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos || dot == 0 || name[dot - 1] != '_' ||
      name.substr(0, dot).ends_with("__"))
    return std::nullopt;
  return std::string(name.substr(0, dot - 1)) + std::string(name.substr(dot));
}

std::string_view BaseOf(std::string_view name) { return name.substr(0, name.find('.')); }

// Whether an operator's results may share its first argument's memory, so that a later change in
// place of either is seen in the other (native_functions.yaml: Tensor(a) -> Tensor(a)).
bool IsView(std::string_view base) {
  static const std::set<std::string_view> views = {
      "alias",
      "broadcast_to",
      "chunk",
      "contiguous",
      "detach",
      "diagonal",
      "dropout",
      "expand",
      "expand_as",
      "flatten",
      "mT",
      "movedim",
      "narrow",
      "numpy_T",
      "permute",
      "positive",
      "reshape",
      "reshape_as",
      "select",
      "slice",
      "split",
      "split_with_sizes",
      "squeeze",
      "swapaxes",
      "swapdims",
      "t",
      "to",
      "transpose",
      "type_as",
      "unbind",
      "unflatten",
      "unsqueeze",
      "view",
      "view_as",
      "_unsafe_view",
      "lift_fresh",
      "requires_grad",
      "broadcast_tensors",
      "meshgrid",
  };
  return views.contains(base);
}

// In-place operators that change what a tensor looks like, not its elements.
bool IsViewInPlace(std::string_view base) {
  return base == "detach" || base == "requires_grad" || base == "squeeze" || base == "unsqueeze" ||
         base == "t" || base == "transpose" || base == "swapaxes";
}

class Importer final : public Names {
 public:
  Importer(ExportedProgram program, Pt2Archive archive, std::unique_ptr<Pt2Weights> weights,
           const TensorOptions& options)
      : program_(std::move(program)),
        archive_(std::move(archive)),
        weights_(std::move(weights)),
        options_(options) {}

  Result<TensorModel> Import();

  Result<Tensor> FindTensor(const std::string& name) override;
  Result<Size> FindSize(const std::string& name) override;

 private:
  // What a name of the file's graph stands for.
  struct Binding {
    Tensor tensor;
    int memory = 0;  // bindings of one memory may share elements
    bool is_weight = false;
    std::string problem;                   // why it can't be used; empty: it can
    bool is_reported = false;              // the problem is in the list already
    const ProgramInput* weight = nullptr;  // not yet looked at
  };

  std::string Place(const ProgramNode& node) const;
  void Refuse(const ProgramNode& node, const std::string& why);
  void Unavailable(const ProgramNode& node);

  Result<Size> SizeOf(const ProgramArgument& size);
  Result<ir::Shape> ShapeOf(const ProgramTensor& tensor);
  Result<void> FixSymbols(const ProgramInput& input, const ProgramTensor& tensor,
                          const std::vector<int64_t>& shape);
  Result<void> DeclareSymbols();
  int64_t BoundOf(const std::string& symbol, bool is_first) const;
  Result<void> DeclareInputs();
  Result<Tensor> LoadWeight(const ProgramInput& input);
  void ImportNode(const ProgramNode& node);
  void ImportOperator(const ProgramNode& node, std::string_view name);
  void Bind(const ProgramNode& node, const std::vector<Tensor>& results, int memory);
  Result<Tensor> InPlaceResult(const Binding& changed, Tensor result, std::string_view base);
  void ChangeInPlace(const ProgramNode& node, std::string_view base, Tensor result);
  std::string Difference(const std::string& name, Tensor tensor);
  Result<void> DeclareOutputs();
  Result<TensorModel> Finish();

  ExportedProgram program_;
  Pt2Archive archive_;
  std::unique_ptr<Pt2Weights> weights_;
  const TensorOptions& options_;
  TensorBuilder builder_{"torch"};
  Facts facts_;
  std::map<std::string, Size> symbols_;      // what each stands for
  std::map<std::string, Binding> bindings_;  // by name
  std::map<std::string, Tensor> loaded_;     // weights, by name
  std::map<std::string, int64_t> operators_;
  std::vector<std::string> refusals_;
  std::vector<std::string> notes_;
  bool uses_refused_ = false;  // an argument was one that is refused already
  int memories_ = 0;
};

// ---- names ----

std::string Importer::Place(const ProgramNode& node) const {
  std::string_view target = node.target;
  if (target.starts_with("torch.ops.")) target.remove_prefix(10);
  return std::string(target.substr(0, 200)) + " '" + node.name.substr(0, 200) + "'";
}

void Importer::Refuse(const ProgramNode& node, const std::string& why) {
  refusals_.push_back(Place(node) + (why.empty() ? "" : ": " + why));
}

Result<Tensor> Importer::FindTensor(const std::string& name) {
  const auto found = bindings_.find(name);
  if (found == bindings_.end())
    return Fail(ErrorCode::kCorrupt, "'" + name + "' is used before it is made");
  Binding& binding = found->second;
  if (binding.weight != nullptr) {
    const ProgramInput& input = *std::exchange(binding.weight, nullptr);
    Result<Tensor> loaded = LoadWeight(input);
    if (loaded) {
      binding.tensor = *loaded;
    } else {
      binding.problem = "weight '" + input.target + "' " + loaded.error().message;
      binding.is_reported = true;
      refusals_.push_back(binding.problem);
    }
  }
  if (binding.problem.empty()) return binding.tensor;
  uses_refused_ = uses_refused_ || binding.is_reported;
  return NotSupported(binding.problem);
}

Result<Size> Importer::FindSize(const std::string& name) {
  const auto found = program_.sym_ints.find(name);
  if (found == program_.sym_ints.end())
    return NotSupported("'" + name + "' is no whole number that is known from the inputs' sizes");
  return SizeOf(found->second);
}

Result<Size> Importer::SizeOf(const ProgramArgument& size) {
  if (size.type == "as_int") {
    TRY_ASSIGN(const int64_t value, IntegerOf(*size.value));
    return Size(value);
  }
  if (size.type != "as_expr") return Fail(ErrorCode::kCorrupt, "a size is no number");
  TRY_ASSIGN(const std::string text, TextOf(*size.value, "expr_str"));
  return ParseSizeExpression(text, [this](const std::string& symbol) -> Result<Size> {
    const auto found = symbols_.find(symbol);
    if (found != symbols_.end()) return found->second;
    return NotSupported("a size depends on the data (symbol " + symbol + ")");
  });
}

Result<ir::Shape> Importer::ShapeOf(const ProgramTensor& tensor) {
  ir::Shape shape;
  for (const ProgramArgument& argument : tensor.sizes) {
    TRY_ASSIGN(const Size size, SizeOf(argument));
    if (size.Constant().value_or(0) < 0) return Fail(ErrorCode::kCorrupt, "a size is negative");
    shape.push_back(ir::DimOf(size));
  }
  return shape;
}

// ---- symbols and inputs ----

// Symbols that the options give a value for, by an input's shape.
Result<void> Importer::FixSymbols(const ProgramInput& input, const ProgramTensor& tensor,
                                  const std::vector<int64_t>& shape) {
  if (shape.size() != tensor.sizes.size())
    return Invalid("input '" + input.value + "' has " + std::to_string(tensor.sizes.size()) +
                   " dimensions, not " + std::to_string(shape.size()));
  for (size_t i = 0; i < shape.size(); ++i) {
    std::string symbol;
    if (tensor.sizes[i].type != "as_expr" || shape[i] < 1) continue;
    TRY_ASSIGN(const std::string text, TextOf(*tensor.sizes[i].value, "expr_str"));
    TRY_ASSIGN(const Size size, ParseSizeExpression(text, [&](const std::string& name) {
                 symbol = name;
                 return Result<Size>(Size::Symbol("s"));
               }));
    if (size != Size::Symbol("s")) continue;
    const auto [found, is_new] = symbols_.emplace(symbol, Size(shape[i]));
    if (!is_new && found->second != Size(shape[i]))
      return Invalid("the given shapes disagree about " + symbol);
  }
  return {};
}

int64_t Importer::BoundOf(const std::string& symbol, bool is_first) const {
  int64_t bound = is_first ? options_.max_batch : options_.max_other;
  const auto said = options_.symbol_max.find(symbol);
  if (said != options_.symbol_max.end()) bound = said->second;
  const auto range = program_.ranges.find(symbol);
  if (range != program_.ranges.end() && range->second.max)
    bound = std::min(bound, *range->second.max);
  return std::max<int64_t>(bound, 1);
}

Result<void> Importer::DeclareSymbols() {
  std::map<std::string, bool> met;  // whether in a first dimension
  for (const ProgramInput& input : program_.inputs) {
    if (input.kind != ProgramInput::Kind::kUser) continue;
    const auto tensor = program_.tensors.find(input.value);
    if (tensor == program_.tensors.end())
      return Fail(ErrorCode::kCorrupt, "input '" + input.value + "' is not described");
    const auto given = options_.input_shapes.find(input.value);
    if (given != options_.input_shapes.end()) {
      TRY(FixSymbols(input, tensor->second, given->second));
    }
    for (size_t i = 0; i < tensor->second.sizes.size(); ++i) {
      const ProgramArgument& size = tensor->second.sizes[i];
      if (size.type != "as_expr") continue;
      TRY_ASSIGN(const std::string text, TextOf(*size.value, "expr_str"));
      TRY(ParseSizeExpression(text, [&](const std::string& name) {
        met[name] = met[name] || i == 0;
        return Result<Size>(Size::Symbol("s"));
      }));
    }
  }
  if (met.size() > 256) return NotSupported("more than 256 symbolic sizes");
  for (const auto& [symbol, is_first] : met) {
    if (symbols_.contains(symbol)) continue;
    const std::string name = builder_.SymbolName(symbol);
    builder_.AddSymbol(name, BoundOf(symbol, is_first));
    symbols_[symbol] = Size::Symbol(name);
  }
  return {};
}

Result<void> Importer::DeclareInputs() {
  TRY(DeclareSymbols());
  std::set<std::string> given;
  for (const ProgramInput& input : program_.inputs) {
    if (input.value.empty()) continue;
    Binding binding;
    binding.memory = ++memories_;
    if (input.kind != ProgramInput::Kind::kUser) {
      binding.is_weight = true;
      binding.weight = &input;
    } else {
      const ProgramTensor& meta = program_.tensors.at(input.value);
      const std::optional<DType> dtype = DTypeOfScalarType(meta.scalar_type);
      Result<ir::Shape> shape = ShapeOf(meta);
      const auto wanted = options_.input_shapes.find(input.value);
      if (shape && wanted != options_.input_shapes.end()) {
        ir::Shape exact;
        for (const int64_t size : wanted->second) exact.push_back(ir::Constant(size));
        if (exact != *shape)
          return Invalid("input '" + input.value + "' is " + ir::ToString(*shape) + ", not " +
                         ir::ToString(exact));
      }
      if (shape && std::ranges::find(*shape, ir::Constant(0)) != shape->end())
        shape = NotSupported("has no elements");
      if (shape && shape->size() > ir::kMaxRank) shape = NotSupported("has more than 8 dimensions");
      if (dtype && shape) {
        binding.tensor = builder_.Input(input.value, *dtype, *shape);
      } else {
        binding.problem =
            "input '" + input.value + "' " +
            (dtype ? shape.error().message : "is of type " + ScalarTypeName(meta.scalar_type));
        binding.is_reported = true;
        refusals_.push_back(binding.problem);
      }
      given.insert(input.value);
    }
    if (!bindings_.emplace(input.value, std::move(binding)).second)
      return Fail(ErrorCode::kCorrupt, "input '" + input.value + "' is there twice");
  }
  for (const auto& [name, shape] : options_.input_shapes)
    if (!given.contains(name)) return Invalid("there is no input '" + name + "'");
  return {};
}

// Small whole numbers and constants are known to the builder, which folds what is done with them;
// parameters stay in the file.
Result<Tensor> Importer::LoadWeight(const ProgramInput& input) {
  const bool is_constant = input.kind == ProgramInput::Kind::kConstant;
  const auto* table = is_constant ? &archive_.constants : &archive_.weights;
  if (!table->contains(input.target))
    table = &archive_.constants;  // a buffer that isn't persistent
  const auto found = table->find(input.target);
  if (found == table->end()) return Fail(ErrorCode::kCorrupt, "is not in the file");
  const bool is_shadowed = table == &archive_.constants && archive_.weights.contains(input.target);
  const std::string name = input.target + (is_shadowed ? ".constant" : "");
  if (const auto before = loaded_.find(name); before != loaded_.end()) return before->second;
  TRY_ASSIGN(const ir::TensorView view, weights_->Add(name, found->second));
  int64_t elements = 1;
  for (const int64_t size : view.shape) elements *= size;
  const bool is_real_parameter = IsFloat(view.dtype) && !is_constant && elements > 0;
  Tensor tensor;
  if (elements <= kMaxKnown && !is_real_parameter) {
    TRY_ASSIGN(tensor, builder_.Constant(view.dtype, view.shape, view.bytes));
  } else {
    tensor = builder_.Weight(name, view.dtype, view.shape);
  }
  loaded_[name] = tensor;
  return tensor;
}

// ---- nodes ----

// Names of a node's results in order; empty for what is no tensor.
Result<std::vector<std::string>> ResultNames(const ProgramNode& node) {
  std::vector<std::string> names;
  for (const ProgramArgument& output : node.outputs) {
    if (output.type == "as_tensors" && output.value->is_array()) {
      for (const ProgramJson& item : *output.value) {
        TRY_ASSIGN(names.emplace_back(), TextOf(item, "name"));
      }
    } else if (output.type == "as_tensor") {
      TRY_ASSIGN(names.emplace_back(), TextOf(*output.value, "name"));
    } else {
      names.emplace_back();
    }
  }
  return names;
}

// A node's results, after it was refused.
void Importer::Unavailable(const ProgramNode& node) {
  const auto names = ResultNames(node);
  if (!names) return;
  for (const std::string& name : *names)
    if (!name.empty()) bindings_[name] = {{}, ++memories_, false, "is refused", true, nullptr};
}

void Importer::ImportNode(const ProgramNode& node) {
  ++operators_[node.target];
  if (IsAssertion(node.target)) return;
  const bool only_numbers =
      !node.outputs.empty() && std::ranges::all_of(node.outputs, [](const ProgramArgument& output) {
        return output.type.starts_with("as_sym_") || output.type == "as_int" ||
               output.type == "as_float" || output.type == "as_bool";
      });
  if (only_numbers) return;  // the file says what they come to (sym_int_values)
  if (node.target.starts_with(kAten))
    return ImportOperator(node, std::string_view(node.target).substr(kAten.size()));
  Refuse(node, "");
  Unavailable(node);
}

void Importer::ImportOperator(const ProgramNode& node, std::string_view name) {
  const std::optional<std::string> functional = WithoutInPlace(name);
  const bool in_place = FindOperator(name) == nullptr && functional;
  if (in_place) name = *functional;
  const Handler handler = FindOperator(name);
  if (handler == nullptr) {
    Refuse(node, "");
    return Unavailable(node);
  }
  uses_refused_ = false;
  Call call(builder_, facts_, *this, node);
  Result<std::vector<Tensor>> results = handler(call);
  if (!results) {
    if (!uses_refused_) Refuse(node, results.error().message);
    return Unavailable(node);
  }
  if (in_place && !results->empty()) return ChangeInPlace(node, BaseOf(name), results->front());
  int memory = ++memories_;
  if (IsView(BaseOf(name)) && !node.inputs.empty() && node.inputs[0].second.type == "as_tensor") {
    const auto source = TextOf(*node.inputs[0].second.value, "name");
    const auto found = source ? bindings_.find(*source) : bindings_.end();
    if (found != bindings_.end()) memory = found->second.memory;
  }
  Bind(node, *results, memory);
}

// How a result differs from what the file says of it; empty when it does not.
std::string Importer::Difference(const std::string& name, Tensor tensor) {
  const auto meta = program_.tensors.find(name);
  if (meta == program_.tensors.end()) return {};
  const std::optional<DType> dtype = DTypeOfScalarType(meta->second.scalar_type);
  if (dtype != builder_.dtype(tensor))
    return std::string("comes to ") + Name(builder_.dtype(tensor)) + ", and the file says " +
           ScalarTypeName(meta->second.scalar_type);
  const Result<ir::Shape> shape = ShapeOf(meta->second);
  if (!shape || *shape == builder_.shape(tensor)) return {};
  return "comes to " + ir::ToString(builder_.shape(tensor)) + ", and the file says " +
         ir::ToString(*shape);
}

void Importer::Bind(const ProgramNode& node, const std::vector<Tensor>& results, int memory) {
  const auto names = ResultNames(node);
  if (!names) return Refuse(node, names.error().message);
  for (size_t i = 0; i < names->size(); ++i) {
    const std::string& name = (*names)[i];
    if (name.empty()) continue;
    Binding binding;
    binding.memory = memory;
    if (i >= results.size() || !results[i].present()) {
      binding.problem = "result " + std::to_string(i) + " of " + Place(node) + " is not modelled";
    } else if (std::string difference = Difference(name, results[i]); !difference.empty()) {
      Refuse(node, difference);
      binding.problem = std::move(difference);
      binding.is_reported = true;
    } else {
      binding.tensor = results[i];
    }
    bindings_[name] = std::move(binding);
  }
}

// ---- changes in place ----

Result<Tensor> Importer::InPlaceResult(const Binding& changed, Tensor result,
                                       std::string_view base) {
  if (IsViewInPlace(base)) return result;
  TRY_ASSIGN(result, builder_.Cast(result, builder_.dtype(changed.tensor)));
  return builder_.Expand(result, builder_.shape(changed.tensor));
}

// The first argument's name stands for the result from now on, and so do names of the very same
// tensor; other names that may share its memory can't be told any more.
void Importer::ChangeInPlace(const ProgramNode& node, std::string_view base, Tensor result) {
  const bool has_name = !node.inputs.empty() && node.inputs[0].second.type == "as_tensor";
  const auto name = has_name ? TextOf(*node.inputs[0].second.value, "name")
                             : Fail(ErrorCode::kCorrupt, "changes no tensor");
  const auto found = name ? bindings_.find(*name) : bindings_.end();
  if (found == bindings_.end()) {
    Refuse(node, "changes no tensor");
    return Unavailable(node);
  }
  const Binding changed = found->second;
  const bool keeps_elements = IsViewInPlace(base);
  if (!keeps_elements && changed.is_weight) {
    Refuse(node, "changes '" + *name + "', a weight of the model, in place");
    return Unavailable(node);
  }
  const Result<Tensor> adjusted = InPlaceResult(changed, result, base);
  if (!adjusted) {
    Refuse(node, adjusted.error().message);
    return Unavailable(node);
  }
  for (auto& [other, binding] : bindings_) {
    if (binding.memory != changed.memory || !binding.problem.empty() || binding.weight != nullptr)
      continue;
    if (other == *name || (binding.tensor.id == changed.tensor.id && !keeps_elements)) {
      binding.tensor = *adjusted;
    } else if (!keeps_elements) {
      binding.problem =
          "'" + other + "' is used after " + Place(node) + " changed memory that it shares";
    }
  }
  Bind(node, {*adjusted}, changed.memory);
}

// ---- outputs ----

Result<void> Importer::DeclareOutputs() {
  std::vector<std::string> values;
  bool has_mutation = false;
  for (const ProgramOutput& output : program_.outputs) {
    if (!output.is_mutation) values.push_back(output.value);
    has_mutation = has_mutation || output.is_mutation;
  }
  if (has_mutation) notes_.push_back("changes that the model makes to its inputs are not returned");
  const bool has_names = program_.output_names.size() == values.size() && !has_mutation;
  std::set<std::string> taken;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string stem = has_names ? program_.output_names[i] : values[i];
    std::string name = stem;
    for (int n = 2; !taken.insert(name).second; ++n) name = stem + "_" + std::to_string(n);
    uses_refused_ = false;
    Result<Tensor> tensor = FindTensor(values[i]);
    Result<void> declared =
        tensor ? builder_.Output(name, *tensor) : std::unexpected(std::move(tensor).error());
    if (declared || uses_refused_) continue;
    refusals_.push_back("output '" + name + "': " + declared.error().message);
  }
  if (values.empty()) refusals_.emplace_back("the model has no output");
  return {};
}

Result<TensorModel> Importer::Finish() {
  if (!refusals_.empty()) {
    std::string all = "not supported: ";
    for (size_t i = 0; i < std::min(refusals_.size(), kMaxRefusals); ++i)
      all += (i == 0 ? "" : "; ") + refusals_[i];
    if (refusals_.size() > kMaxRefusals)
      all += "; and " + std::to_string(refusals_.size() - kMaxRefusals) + " more";
    return Fail(ErrorCode::kUnsupported, std::move(all));
  }
  TRY_ASSIGN(TensorBuilder::Built built, std::move(builder_).Build());
  TensorModel model;
  model.format = "pt2";
  const auto port_of = [&](const TensorBuilder::Named& named) {
    const ir::Value& value = built.graph.value(built.graph.FindValue(named.value));
    return Port{named.public_name, named.value, value.dtype, false, value.shape};
  };
  for (const auto& named : built.inputs) model.inputs.push_back(port_of(named));
  for (const auto& named : built.outputs) model.outputs.push_back(port_of(named));
  model.graph = std::move(built.graph);
  model.weights = std::move(weights_);
  model.operators = std::move(operators_);
  if (!program_.torch_version.empty())
    notes_.push_back("exported by torch " + program_.torch_version.substr(0, 64));
  model.notes = std::move(notes_);
  return model;
}

Result<TensorModel> Importer::Import() {
  refusals_ = program_.refusals;
  weights_->Keep(std::move(archive_.inflated));
  TRY(DeclareInputs());
  for (const ProgramNode& node : program_.nodes) ImportNode(node);
  TRY(DeclareOutputs());
  return Finish();
}

Result<TensorModel> Open(MappedFile file, std::span<const std::byte> bytes,
                         const TensorOptions& options) {
  TRY_ASSIGN(Pt2Archive archive, OpenPt2Archive(bytes));
  TRY_ASSIGN(ExportedProgram program, ParseProgram(archive.program));
  auto weights = std::make_unique<Pt2Weights>(std::move(file), bytes);
  return Importer(std::move(program), std::move(archive), std::move(weights), options).Import();
}

}  // namespace

}  // namespace millpower::import::torch

namespace millpower::import {

Result<TensorModel> OpenPt2(const std::filesystem::path& path, const TensorOptions& options) {
  TRY_ASSIGN(MappedFile file, MappedFile::OpenCopyOnWrite(path));
  file.MoveForRandomReads();  // of tables, that is; others are packed
  const std::span<const std::byte> bytes = file.bytes();
  return torch::Open(std::move(file), bytes, options);
}

Result<TensorModel> OpenPt2(std::span<const std::byte> file, const TensorOptions& options) {
  return torch::Open(MappedFile(), file, options);
}

}  // namespace millpower::import
