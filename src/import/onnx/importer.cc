#include "import/onnx/importer.h"

#include <fmt/format.h>

#include "base/check.h"

namespace millpower::import::onnx {
namespace {

constexpr int64_t kNewestVersion = 27;
constexpr int kMaxDepth = 32;  // of graphs in graphs and functions in functions
// Loops and functions multiply a file's nodes; so many may come out beside twice those it has.
constexpr int64_t kMaxUnrolled = 16384;
constexpr size_t kMaxListed = 50;

std::string DomainOf(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

std::string FunctionKey(const std::string& domain, const std::string& name,
                        const std::string& overload) {
  return DomainOf(domain) + '\n' + name + '\n' + overload;
}

std::string Qualified(const NodeProto& node) {
  const std::string domain = DomainOf(node.domain());
  return domain.empty() ? node.op_type() : domain + "." + node.op_type();
}

const std::map<std::pair<std::string_view, std::string_view>, Operator>& Operators() {
  static const auto table = [] {
    std::map<std::pair<std::string_view, std::string_view>, Operator> all;
    for (const auto family :
         {ElementwiseOperators(), ShapeOperators(), IndexOperators(), ReduceOperators(),
          NetworkOperators(), PoolOperators(), NormOperators(), QuantiseOperators(),
          ControlOperators(), SequenceOperators(), RecurrentOperators(), AttentionOperators(),
          LossOperators(), ResizeOperators(), SignalOperators(), GridOperators()})
      for (const Operator& one : family)
        CHECK(all.emplace(std::pair(one.domain, one.name), one).second) << one.name;
    return all;
  }();
  return table;
}

const Operator* FindOperator(const NodeProto& node) {
  const std::string domain = DomainOf(node.domain());
  const auto found = Operators().find({domain, node.op_type()});
  return found == Operators().end() ? nullptr : &found->second;
}

std::string PlaceOf(const NodeProto& node, int index) {
  return node.name().empty()
             ? fmt::format("{} (node {})", Qualified(node), index)
             : fmt::format("{} '{}' (node {})", Qualified(node), node.name(), index);
}

// Operands that an operator cannot do without are there, and are tensors.
Result<void> CheckOperands(const Operator& op, const Values& inputs) {
  for (size_t i = 0; i < inputs.size() || static_cast<int>(i) < op.min_inputs; ++i) {
    const auto kind = i < inputs.size() ? inputs[i].kind : Value::Kind::kAbsent;
    if (kind == Value::Kind::kAbsent && static_cast<int>(i) < op.min_inputs && !op.takes_lists)
      return Invalid(fmt::format("operand {} is missing", i));
    if (kind == Value::Kind::kEmpty && !op.takes_lists)
      return Unsupported(fmt::format("operand {} has no elements", i));
    if ((kind == Value::Kind::kSequence || kind == Value::Kind::kRows) && !op.takes_lists)
      return Invalid(fmt::format("operand {} is a sequence", i));
  }
  if (static_cast<int>(inputs.size()) < op.min_inputs) return Invalid("too few operands");
  return {};
}

}  // namespace

Importer::Importer(Tensors& tensors, const TensorOptions& options)
    : tensors_(tensors),
      options_(options),
      model_(tensors.model()),
      builder_("onnx"),
      nodes_left_(kMaxUnrolled + 2 * model_.graph().node_size()) {}

Result<TensorBuilder> Importer::Import() && {
  if (!model_.has_graph()) return Fail(ErrorCode::kCorrupt, "has no graph: is this an ONNX file?");
  TRY(ReadVersions());
  TRY(ReadFunctions());
  Scope scope;
  scope.versions = &versions_;
  EnterGraph(model_.graph(), scope);
  TRY(DeclareInputs(scope));
  RunNodes(model_.graph().node(), scope);
  TRY(DeclareOutputs(scope));
  if (refusals_.empty()) return std::move(builder_);
  std::string message =
      refusals_.size() == 1 ? "" : fmt::format("{} things are not supported: ", refusals_.size());
  for (size_t i = 0; i < std::min(refusals_.size(), kMaxListed); ++i)
    message += (i == 0 ? "" : "; ") + refusals_[i];
  if (refusals_.size() > kMaxListed)
    message += fmt::format("; and {} more", refusals_.size() - kMaxListed);
  return Unsupported(std::move(message));
}

Result<void> Importer::ReadVersions() {
  for (const OperatorSetIdProto& set : model_.opset_import()) {
    const std::string domain = DomainOf(set.domain());
    if (domain.empty() && (set.version() < 1 || set.version() > kNewestVersion))
      return Unsupported(
          fmt::format("operator set {}; read are those up to {}", set.version(), kNewestVersion));
    versions_[domain] = set.version();
  }
  versions_.try_emplace("", 1);
  return {};
}

Result<void> Importer::ReadFunctions() {
  for (const FunctionProto& function : model_.functions()) {
    const std::string key = FunctionKey(function.domain(), function.name(), function.overload());
    if (!functions_.emplace(key, &function).second)
      return Fail(ErrorCode::kCorrupt, "function '" + function.name() + "' is there twice");
    nodes_left_ += 2 * function.node_size();
  }
  return {};
}

void Importer::EnterGraph(const GraphProto& graph, Scope& scope) {
  if (graph.sparse_initializer_size() > 0)
    Refuse("graph '" + graph.name() + "'", "sparse initialisers");
  for (const TensorProto& tensor : graph.initializer())
    if (!scope.initializers.emplace(tensor.name(), &tensor).second)
      Refuse("initialiser '" + tensor.name() + "'", "is there twice");
  for (const auto* list : {&graph.value_info(), &graph.output()})
    for (const ValueInfoProto& value : *list)
      if (value.type().has_tensor_type()) scope.declared[value.name()] = &value.type();
}

// ---- inputs and outputs ----

namespace {

// "batch + 1", as PyTorch's exporter writes sizes, in terms of the names that are `symbols`; absent
// for a name of its own, and for what might be no size of a tensor.
std::optional<Size> SumOfSymbols(const std::string& text,
                                 const std::map<std::string, Size>& symbols) {
  std::string packed = text;
  std::erase(packed, ' ');
  const auto parsed = Size::Parse(packed);
  if (!parsed || parsed->IsConstant() || parsed->ToString() == text) return std::nullopt;
  std::optional<Size> sum = Size(0);
  for (const auto& [names, coefficient] : parsed->terms()) {
    if (coefficient < 0) return std::nullopt;
    std::optional<Size> term = Size(coefficient);
    for (const std::string& name : names) {
      const auto found = symbols.find(name);
      if (found == symbols.end() || !term) return std::nullopt;
      term = term->Times(found->second);
    }
    if (term && sum) sum = sum->Plus(*term);
    if (!term || !sum) return std::nullopt;
  }
  return sum;
}

}  // namespace

// Names of dimensions become symbols, or numbers where options.input_shapes gives one of them.
Result<void> Importer::BindSymbols(const GraphProto& graph,
                                   const std::set<std::string>& constants) {
  std::map<std::string, bool> leads;  // whether it is an input's first dimension
  for (const ValueInfoProto& input : graph.input()) {
    if (constants.contains(input.name())) continue;
    const auto& dims = input.type().tensor_type().shape().dim();
    const auto given = options_.input_shapes.find(input.name());
    if (given != options_.input_shapes.end() &&
        (!input.type().tensor_type().has_shape() ||
         given->second.size() == static_cast<size_t>(dims.size()))) {
      for (int i = 0; i < dims.size(); ++i) {
        const Size size(given->second[static_cast<size_t>(i)]);
        if (dims[i].dim_param().empty()) continue;
        const auto [known, is_new] = symbols_.emplace(dims[i].dim_param(), size);
        if (!is_new && known->second != size)
          return Invalid("the shapes given for inputs disagree on '" + dims[i].dim_param() + "'");
      }
      continue;
    }
    for (int i = 0; i < dims.size(); ++i)
      if (!dims[i].dim_param().empty()) leads[dims[i].dim_param()] |= i == 0;
  }
  // Sums come after the names that they are of.
  std::map<std::string, Size> names = symbols_;
  for (const auto& [text, is_first] : leads) names.emplace(text, Size::Symbol(text));
  for (const auto& [text, is_first] : leads) {
    if (symbols_.contains(text) || SumOfSymbols(text, names)) continue;
    const auto max = options_.symbol_max.find(text);
    const std::string name = builder_.SymbolName(text);
    builder_.AddSymbol(name, max != options_.symbol_max.end() ? std::max<int64_t>(max->second, 1)
                             : is_first                       ? options_.max_batch
                                                              : options_.max_other);
    symbols_.emplace(text, Size::Symbol(name));
  }
  for (const auto& [text, is_first] : leads) {
    if (symbols_.contains(text)) continue;
    const auto sum = SumOfSymbols(text, symbols_);
    if (!sum) return Invalid("the dimension '" + text + "' is not of others");
    symbols_.emplace(text, *sum);
  }
  return {};
}

std::optional<Size> Importer::SymbolOf(const std::string& dim_param) const {
  const auto found = symbols_.find(dim_param);
  if (found == symbols_.end()) return std::nullopt;
  return found->second;
}

Result<ir::Shape> Importer::InputShape(const ValueInfoProto& input) {
  ir::Shape shape;
  const auto given = options_.input_shapes.find(input.name());
  if (given != options_.input_shapes.end()) {
    const auto elements = ElementsOf(given->second);
    if (!elements || *elements == 0) return Invalid("the shape given for it is no shape");
    const TypeProto::Tensor& type = input.type().tensor_type();
    if (type.has_shape() && type.shape().dim_size() != static_cast<int>(given->second.size()))
      return Invalid(fmt::format("has {} dimensions, and the shape given for it {}",
                                 type.shape().dim_size(), given->second.size()));
    for (const int64_t size : given->second) shape.push_back(ir::Constant(size));
    return shape;
  }
  constexpr const char* kAdvice = "; give its shape (input_shapes)";
  if (!input.type().tensor_type().has_shape())
    return Unsupported(std::string("has no declared shape") + kAdvice);
  std::vector<int64_t> constants;
  for (const auto& dim : input.type().tensor_type().shape().dim()) {
    if (!dim.dim_param().empty()) {
      shape.push_back(ir::DimOf(symbols_.at(dim.dim_param())));
    } else if (dim.dim_value() > 0) {
      constants.push_back(dim.dim_value());
      shape.push_back(ir::Constant(dim.dim_value()));
    } else {
      return Unsupported((dim.has_dim_value() ? "has a dimension of 0 elements"
                                              : "has a dimension of unknown size") +
                         std::string(kAdvice));
    }
  }
  if (!ElementsOf(constants)) return Invalid("has too many elements");
  if (shape.size() > ir::kMaxRank) return Unsupported("has more than 8 dimensions");
  return shape;
}

Result<void> Importer::DeclareInputs(Scope& scope) {
  std::set<std::string> constants, names;
  for (const auto& [name, tensor] : scope.initializers) constants.insert(name);
  for (const ValueInfoProto& input : model_.graph().input()) names.insert(input.name());
  for (const auto& [name, shape] : options_.input_shapes)
    if (!names.contains(name)) return Invalid("a shape is given for '" + name + "', no input");
  TRY(BindSymbols(model_.graph(), constants));
  for (const ValueInfoProto& input : model_.graph().input()) {
    if (constants.contains(input.name())) continue;  // a default that is not overridden
    const std::string place = "input '" + input.name() + "'";
    Value value = Value::Poisoned();
    const auto dtype = ElementType(input.type().tensor_type().elem_type());
    if (!input.type().has_tensor_type()) {
      Refuse(place, "is no tensor (a sequence, map or optional)");
    } else if (!dtype) {
      Refuse(place, "elements of " + TypeName(input.type().tensor_type().elem_type()));
    } else if (auto shape = InputShape(input)) {
      value = builder_.Input(input.name(), *dtype, *std::move(shape));
    } else {
      Refuse(place, shape.error().message);
    }
    Define(input.name(), std::move(value), scope, place);
  }
  return {};
}

Result<void> Importer::DeclareOutputs(Scope& scope) {
  if (model_.graph().output_size() == 0) return Fail(ErrorCode::kCorrupt, "has no outputs");
  for (const ValueInfoProto& output : model_.graph().output()) {
    const std::string place = "output '" + output.name() + "'";
    const Value value = Lookup(output.name(), scope, place);
    if (value.kind == Value::Kind::kPoisoned) continue;
    if (value.kind == Value::Kind::kEmpty) {
      Refuse(place, "has no elements");
      continue;
    }
    if (value.kind != Value::Kind::kTensor) {
      Refuse(place, "is no tensor (a sequence or optional)");
      continue;
    }
    const auto declared = ElementType(output.type().tensor_type().elem_type());
    if (output.type().has_tensor_type() && declared != builder_.dtype(value.tensor)) {
      Refuse(place, fmt::format("is {}, and declared as {}", Name(builder_.dtype(value.tensor)),
                                TypeName(output.type().tensor_type().elem_type())));
      continue;
    }
    if (const auto added = builder_.Output(output.name(), value.tensor); !added)
      Refuse(place, added.error().message);
  }
  return {};
}

// ---- values ----

Result<Tensor> Importer::Constant(const TensorProto& tensor, const std::string& name) {
  if (const auto known = constants_.find(&tensor); known != constants_.end()) return known->second;
  TRY_ASSIGN(ir::TensorView view, tensors_.Read(tensor));
  const int64_t elements = *ElementsOf(view.shape);
  Tensor constant;
  if (elements == 0) {
    if (view.shape.size() != 1 || !IsInteger(view.dtype))
      return Unsupported("a tensor without elements");
    constant = builder_.Sizes({}, view.dtype);
  } else if (elements <= kMaxKnown) {
    TRY_ASSIGN(constant, builder_.Constant(view.dtype, view.shape, view.bytes));
  } else {
    const DType dtype = view.dtype;
    const std::vector<int64_t> shape = view.shape;
    constant = builder_.Weight(tensors_.Publish(name, std::move(view)), dtype, shape);
    if (shape.size() == 2) tables_.insert(constant.id);
  }
  constants_.emplace(&tensor, constant);
  return constant;
}

Value Importer::Lookup(const std::string& name, Scope& scope, const std::string& place) {
  for (Scope* at = &scope; at != nullptr; at = at->outer) {
    if (const auto found = at->values.find(name); found != at->values.end()) return found->second;
    const auto initializer = at->initializers.find(name);
    if (initializer == at->initializers.end()) continue;
    auto constant = Constant(*initializer->second, name);
    if (!constant) Refuse("initialiser '" + name + "'", constant.error().message);
    const Value value = constant ? Value(*constant) : Value::Poisoned();
    at->values.emplace(name, value);
    return value;
  }
  Refuse(place, "uses '" + name + "' before anything produces it");
  return Value::Poisoned();
}

Value Importer::Peek(const std::string& name, Scope& scope) {
  for (const Scope* at = &scope; at != nullptr; at = at->outer)
    if (at->values.contains(name) || at->initializers.contains(name))
      return Lookup(name, scope, "'" + name + "'");
  return {};
}

const NodeProto* Importer::ProducerOf(const std::string& name, const Scope& scope) const {
  for (const Scope* at = &scope; at != nullptr; at = at->outer)
    if (const auto found = at->producers.find(name); found != at->producers.end())
      return found->second;
  return nullptr;
}

Result<Tensor> Importer::Table(const std::string& name, Scope& scope, int depth) {
  for (const Scope* at = &scope; at != nullptr; at = at->outer) {
    if (const auto found = at->initializers.find(name); found != at->initializers.end()) {
      const TensorProto* tensor = found->second;
      if (const auto known = table_weights_.find(tensor); known != table_weights_.end())
        return known->second;
      TRY_ASSIGN(const Tensor constant, Constant(*tensor, name));
      if (builder_.rank(constant) != 2) return Tensor{};
      Tensor table = constant;
      if (!tables_.contains(constant.id)) {
        TRY_ASSIGN(ir::TensorView view, tensors_.Read(*tensor));
        const DType dtype = view.dtype;
        const std::vector<int64_t> shape = view.shape;
        table = builder_.Weight(tensors_.Publish(name, std::move(view)), dtype, shape);
      }
      table_weights_.emplace(tensor, table);
      return table;
    }
    if (at->values.contains(name)) break;
  }
  const NodeProto* node = ProducerOf(name, scope);
  if (node == nullptr || node->op_type() != "Identity" || node->input_size() != 1 || depth >= 64)
    return Tensor{};
  return Table(node->input(0), scope, depth + 1);
}

void Importer::Define(const std::string& name, Value value, Scope& scope,
                      const std::string& place) {
  if (name.empty()) return;
  const bool is_constant = scope.initializers.contains(name);
  if (is_constant || !scope.values.emplace(name, std::move(value)).second)
    Refuse(place, "produces '" + name + "', which is there already");
}

void Importer::Refuse(const std::string& place, const std::string& why) {
  std::string refusal = place + ": " + why;
  if (refused_.insert(refusal).second) refusals_.push_back(std::move(refusal));
}

// ---- nodes ----

void Importer::RunNodes(const google::protobuf::RepeatedPtrField<NodeProto>& nodes, Scope& scope) {
  for (int i = 0; i < nodes.size(); ++i) {
    if (nodes_left_-- <= 0) {
      Refuse(PlaceOf(nodes[i], i),
             fmt::format("loops and functions come to more than {} nodes", kMaxUnrolled));
      return;
    }
    RunNode(nodes[i], i, scope);
  }
}

void Importer::RunNode(const NodeProto& node, int index, Scope& scope) {
  const std::string place = PlaceOf(node, index);
  ++operators_[Qualified(node)];
  Values inputs;
  bool is_poisoned = false;
  for (const std::string& name : node.input()) {
    inputs.push_back(name.empty() ? Value() : Lookup(name, scope, place));
    is_poisoned |= inputs.back().kind == Value::Kind::kPoisoned;
  }
  Values outputs;
  const bool is_known =
      FindOperator(node) != nullptr ||
      functions_.contains(FunctionKey(node.domain(), node.op_type(), node.overload()));
  if (!is_poisoned || !is_known) {
    auto made = Dispatch(node, scope, std::move(inputs));
    if (made) {
      outputs = *std::move(made);
    } else if (made.error().code != ErrorCode::kCancelled) {
      Refuse(place, made.error().message);
    }
  }
  for (size_t i = 0; i < static_cast<size_t>(node.output_size()); ++i) {
    const std::string& name = node.output(static_cast<int>(i));
    if (!name.empty()) scope.producers[name] = &node;
    const bool is_refused = outputs.empty();
    if (!is_refused && !name.empty() && i >= outputs.size())
      Refuse(place, fmt::format("output {} is not supported", i));
    Define(name, i < outputs.size() ? outputs[i] : Value::Poisoned(), scope, place);
  }
}

int64_t Importer::VersionOf(const std::string& domain, const Scope& scope) const {
  for (const auto* versions : {scope.versions, &versions_}) {
    if (versions == nullptr) continue;
    if (const auto found = versions->find(domain); found != versions->end()) return found->second;
  }
  return 1;
}

Result<Values> Importer::Dispatch(const NodeProto& node, Scope& scope, Values inputs) {
  const auto function =
      functions_.find(FunctionKey(node.domain(), node.op_type(), node.overload()));
  if (function != functions_.end()) return Call(*function->second, node, scope, std::move(inputs));
  const Operator* op = FindOperator(node);
  if (op == nullptr) {
    const char* why = WhyRefused(DomainOf(node.domain()), node.op_type());
    return Unsupported(why == nullptr ? "this operator is not supported" : why);
  }
  TRY(CheckOperands(*op, inputs));
  Node one(*this, node, scope, VersionOf(DomainOf(node.domain()), scope), std::move(inputs));
  auto outputs = op->handler(one);
  if (!one.malformed().empty()) return Invalid(one.malformed());
  return outputs;
}

Result<Values> Importer::Call(const FunctionProto& function, const NodeProto& node, Scope& scope,
                              Values inputs) {
  if (depth_ >= kMaxDepth) return Unsupported("functions are nested too deep");
  if (inputs.size() > static_cast<size_t>(function.input_size()))
    return Invalid("has more operands than its function");
  std::map<std::string, AttributeProto> attributes;
  for (const AttributeProto& attribute : function.attribute_proto())
    attributes[attribute.name()] = attribute;
  for (const AttributeProto& attribute : node.attribute()) {
    if (attribute.ref_attr_name().empty()) {
      attributes[attribute.name()] = attribute;
    } else if (scope.attributes != nullptr &&
               scope.attributes->contains(attribute.ref_attr_name())) {
      attributes[attribute.name()] = scope.attributes->at(attribute.ref_attr_name());
    }
  }
  std::map<std::string, int64_t> versions;
  for (const OperatorSetIdProto& set : function.opset_import())
    versions[DomainOf(set.domain())] = set.version();
  Scope inner;
  inner.attributes = &attributes;
  inner.versions = &versions;
  for (int i = 0; i < function.input_size(); ++i) {
    Value value = static_cast<size_t>(i) < inputs.size() ? inputs[static_cast<size_t>(i)] : Value();
    Define(function.input(i), std::move(value), inner, "function '" + function.name() + "'");
  }
  ++depth_;
  RunNodes(function.node(), inner);
  --depth_;
  Values outputs;
  for (const std::string& name : function.output()) {
    outputs.push_back(Lookup(name, inner, "function '" + function.name() + "'"));
    if (outputs.back().kind == Value::Kind::kPoisoned) return Fail(ErrorCode::kCancelled, "");
  }
  return outputs;
}

Result<Values> Importer::RunGraph(const GraphProto& graph, Scope& outer, const Values& inputs) {
  if (depth_ >= kMaxDepth) return Unsupported("graphs are nested too deep");
  Scope inner;
  inner.outer = &outer;
  inner.attributes = outer.attributes;
  inner.versions = outer.versions;
  EnterGraph(graph, inner);
  const std::string place = "graph '" + graph.name() + "'";
  if (static_cast<size_t>(graph.input_size()) != inputs.size())
    return Invalid(fmt::format("{} has {} inputs, where {} are given", place, graph.input_size(),
                               inputs.size()));
  for (int i = 0; i < graph.input_size(); ++i)
    Define(graph.input(i).name(), inputs[static_cast<size_t>(i)], inner, place);
  ++depth_;
  RunNodes(graph.node(), inner);
  --depth_;
  Values outputs;
  for (const ValueInfoProto& output : graph.output()) {
    outputs.push_back(Lookup(output.name(), inner, place));
    if (outputs.back().kind == Value::Kind::kPoisoned) return Fail(ErrorCode::kCancelled, "");
  }
  return outputs;
}

}  // namespace millpower::import::onnx
