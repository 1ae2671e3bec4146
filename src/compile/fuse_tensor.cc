// Fusion of graphs of tensor operators, in four steps: what is said twice or changes nothing goes;
// products with weights become kDense; what is added to them and their relu go along; chains of
// maps become one map. What nobody needs is left out at the end.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "base/check.h"
#include "base/expression.h"
#include "base/tensor_ops.h"
#include "compile/links.h"
#include "compile/passes.h"

namespace millpower::compile {
namespace {

using ir::Graph;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;
using ir::ValueId;
using ir::ValueKind;

constexpr size_t kX = 0, kW = 1, kBias = 2, kResidual = 3;  // operands of kDense
constexpr size_t kMaxMapSizes = 64;
// A map that loads nothing and has no more terms than this is computed wherever it is read.
constexpr size_t kCheapTerms = 6;

bool IsOne(const ir::Dim& dim) { return dim == ir::Constant(1); }

// Without the ones in front, which broadcasting puts there anyway.
Shape WithoutLeadingOnes(const Shape& shape) {
  size_t ones = 0;
  while (ones < shape.size() && IsOne(shape[ones])) ++ones;
  return {shape.begin() + static_cast<std::ptrdiff_t>(ones), shape.end()};
}

Expression ExpressionOf(const Graph& graph, const Node& map) {
  std::vector<DType> types;
  for (const ValueId input : map.inputs) types.push_back(graph.value(input).dtype);
  auto expression =
      Expression::Decode(ir::ListAttribute(map, "code"), types, static_cast<int>(ir::kMaxRank),
                         static_cast<int>(ir::ShapeAttribute(map, "sizes").size()));
  CHECK(expression) << expression.error().message;  // the graph was verified
  return *std::move(expression);
}

// The bits that a `const` term has, of a constant of one element held by the graph.
std::optional<int64_t> ScalarBits(const Value& value) {
  if (value.kind != ValueKind::kWeight || ir::ElementsOf(value.shape) != Size(1))
    return std::nullopt;
  auto real = [](double number) {  // terms know one NaN
    return std::bit_cast<int64_t>(std::isnan(number) ? std::numeric_limits<double>::quiet_NaN()
                                                     : number);
  };
  if (value.values.size() == 1) return real(static_cast<double>(value.values[0]));
  if (value.literal.empty()) return std::nullopt;
  auto read = [&]<typename T>(T number) {
    std::memcpy(&number, value.literal.data(), sizeof number);
    return number;
  };
  switch (value.dtype) {
    case DType::kF32:
      return real(static_cast<double>(read(0.0f)));
    case DType::kF64:
      return real(read(0.0));
    case DType::kF16:
      return real(static_cast<double>(F16ToF32(read(uint16_t{0}))));
    case DType::kBf16:
      return real(static_cast<double>(Bf16ToF32(read(uint16_t{0}))));
    case DType::kI64:
    case DType::kU64:
      return read(int64_t{0});
    case DType::kI32:
      return read(int32_t{0});
    case DType::kI16:
      return read(int16_t{0});
    case DType::kI8:
      return read(int8_t{0});
    case DType::kU32:
      return read(uint32_t{0});
    case DType::kU16:
      return read(uint16_t{0});
    case DType::kU8:
      return read(uint8_t{0});
    case DType::kBool:
      return read(uint8_t{0}) != 0;
    default:
      return std::nullopt;
  }
}

// Puts the expressions of several maps together into one for elements of `target`.
class Composer {
 public:
  using Inlined = std::map<ValueId, const Node*>;  // maps to be computed on the spot, by output

  Composer(const Graph& graph, const Shape& target, const Inlined& inlined)
      : graph_(graph), target_(target), inlined_(inlined) {}

  // Whether the whole fits the limits of a map. Called once.
  bool Compose(const Node& map) { return Append(map, ExpressionOf(graph_, map)) >= 0; }
  bool Compose(const Node& map, const Expression& expression) {
    return Append(map, expression) >= 0;
  }

  Node Result(ValueId output) const {
    return Node{Op::kMap,
                inputs_,
                output,
                {{"code", expression_.Encode()}, {"sizes", sizes_}, {"shape", target_}}};
  }
  const std::vector<ValueId>& inputs() const { return inputs_; }

 private:
  // The number of the term that is the map's result; -1: too much.
  int Append(const Node& map, const Expression& expression) {
    const std::vector<bool> needed = Needed(expression);
    std::vector<int> numbers(expression.terms.size(), -1);
    for (size_t i = 0; i < expression.terms.size(); ++i) {
      if (!needed[i]) continue;
      numbers[i] = Number(map, expression.terms[i], numbers);
      if (numbers[i] < 0) return -1;
    }
    return numbers.back();
  }

  static std::vector<bool> Needed(const Expression& expression) {
    std::vector<bool> needed(expression.terms.size(), false);
    needed.back() = true;
    for (size_t i = expression.terms.size(); i-- > 0;)
      for (const int16_t argument : expression.terms[i].arguments)
        if (needed[i] && argument >= 0) needed[static_cast<size_t>(argument)] = true;
    return needed;
  }

  int Number(const Node& map, Term term, const std::vector<int>& numbers) {
    const Shape& shape = ir::ShapeAttribute(map, "shape");
    switch (term.op) {
      case MapOp::kLoad:
        return Load(map.inputs[static_cast<size_t>(term.immediate)], term);
      case MapOp::kIndex: {
        const auto axis = static_cast<size_t>(term.immediate);
        const size_t there = axis + target_.size() - shape.size();
        if (IsOne(shape[axis]) && !IsOne(target_[there]))
          return Add({.op = MapOp::kConstant, .type = DType::kI64});
        term.immediate = static_cast<int64_t>(there);
        return Add(term);
      }
      case MapOp::kSize: {
        const ir::Dim& size = ir::ShapeAttribute(map, "sizes")[static_cast<size_t>(term.immediate)];
        const auto found = std::ranges::find(sizes_, size);
        term.immediate = found - sizes_.begin();
        if (found == sizes_.end()) sizes_.push_back(size);
        return sizes_.size() > kMaxMapSizes ? -1 : Add(term);
      }
      default:
        for (int16_t& argument : term.arguments)
          if (argument >= 0)
            argument = static_cast<int16_t>(numbers[static_cast<size_t>(argument)]);
        return Add(term);
    }
  }

  int Load(ValueId value, Term term) {
    if (const auto known = loaded_.find(value); known != loaded_.end()) return known->second;
    int number = -1;
    if (const auto map = inlined_.find(value); map != inlined_.end()) {
      number = Append(*map->second, ExpressionOf(graph_, *map->second));
    } else if (const auto bits = ScalarBits(graph_.value(value))) {
      number = Add({.op = MapOp::kConstant, .type = term.type, .immediate = *bits});
    } else if (inputs_.size() < kMaxMapOperands) {
      term.immediate = std::ssize(inputs_);
      inputs_.push_back(value);
      number = Add(term);
    }
    if (number >= 0) loaded_[value] = number;
    return number;
  }

  // Equal terms are one.
  int Add(const Term& term) {
    const auto found = std::ranges::find(expression_.terms, term);
    if (found != expression_.terms.end())
      return static_cast<int>(found - expression_.terms.begin());
    if (expression_.terms.size() == kMaxTerms) return -1;
    expression_.terms.push_back(term);
    return static_cast<int>(expression_.terms.size()) - 1;
  }

  const Graph& graph_;
  const Shape& target_;
  const Inlined& inlined_;
  Expression expression_;
  std::vector<ValueId> inputs_;
  Shape sizes_;
  std::map<ValueId, int> loaded_;
};

// Whether a map gives its operand as it is.
bool IsIdentity(const Graph& graph, const Node& map) {
  const Expression expression = ExpressionOf(graph, map);
  if (expression.terms.size() != 1 || expression.terms[0].op != MapOp::kLoad) return false;
  const Value& x = graph.value(map.inputs[static_cast<size_t>(expression.terms[0].immediate)]);
  return x.shape == ir::ShapeAttribute(map, "shape");
}

// ---- What is said twice or changes nothing ----

class Simplifier {
 public:
  explicit Simplifier(Graph& graph) : graph_(graph), links_(graph) {}

  Result<void> Run() {
    const std::vector<Node> nodes = graph_.nodes();
    for (const Node& original : nodes) {
      Node node = original;
      for (ValueId& input : node.inputs)
        if (input != ir::kNoValue) input = Same(input);
      TRY(Simplify(node));
      if (const ValueId same = SameAs(node); same != ir::kNoValue && !IsOutput(node.output)) {
        same_[node.output] = same;
        continue;
      }
      Keep(std::move(node));
    }
    graph_.ReplaceNodes(std::move(kept_));
    return {};
  }

 private:
  ValueId Same(ValueId value) const {
    const auto found = same_.find(value);
    return found == same_.end() ? value : found->second;
  }

  bool IsOutput(ValueId value) const {
    return std::ranges::find(graph_.outputs(), value) != graph_.outputs().end();
  }

  // The node that makes a value, or null.
  const Node* Maker(ValueId value) const {
    const auto found = maker_.find(value);
    return found == maker_.end() ? nullptr : &kept_[found->second];
  }
  const Shape& ShapeOf(ValueId value) const { return graph_.value(value).shape; }

  // Unless an equal one is there.
  void Keep(Node node) {
    const auto [found, is_new] = seen_.try_emplace(KeyOf(node), node.output);
    if (!is_new && !IsOutput(node.output)) {
      same_[node.output] = found->second;
      return;
    }
    maker_[node.output] = kept_.size();
    kept_.push_back(std::move(node));
  }

  // A node that is not in the graph yet.
  Result<ValueId> Make(Op op, const std::string& name, std::vector<ValueId> inputs,
                       ir::Attributes attributes) {
    std::string unique = name;
    while (graph_.FindValue(unique) != ir::kNoValue) unique += '_';
    TRY_ASSIGN(const ValueId output,
               graph_.AddNode(op, unique, std::move(inputs), std::move(attributes)));
    Keep(graph_.nodes().back());
    return Same(output);
  }

  static std::string KeyOf(const Node& node) {
    std::string key = ir::Name(node.op);
    for (const ValueId input : node.inputs) key += ' ' + std::to_string(input);
    for (const auto& [name, attribute] : node.attributes) {
      key += ' ' + name + '=';
      if (const auto* integer = std::get_if<int64_t>(&attribute)) key += std::to_string(*integer);
      if (const auto* real = std::get_if<double>(&attribute))
        key += std::to_string(std::bit_cast<int64_t>(*real));
      if (const auto* list = std::get_if<std::vector<int64_t>>(&attribute))
        for (const int64_t value : *list) key += std::to_string(value) + ',';
      if (const auto* shape = std::get_if<Shape>(&attribute)) key += ir::ToString(*shape);
    }
    return key;
  }

  Result<void> Simplify(Node& node) {
    switch (node.op) {
      case Op::kReshape:
        if (const Node* before = Maker(node.inputs[0]); before && before->op == Op::kReshape)
          node.inputs[0] = before->inputs[0];
        return {};
      case Op::kTranspose:
        SimplifyTranspose(node);
        return {};
      case Op::kMap:
        for (ValueId& input : node.inputs) input = BeforeBroadcast(input);
        return {};
      case Op::kTake:
        return TakeFromTable(node);
      case Op::kReduce:
        return PoolRows(node);
      case Op::kLinear:
        if (graph_.value(node.inputs[1]).kind == ValueKind::kWeight)
          node = Node{Op::kDense,
                      node.inputs,
                      node.output,
                      {{"transposed", int64_t{0}}, {"relu", int64_t{0}}}};
        return {};
      default:
        return {};
    }
  }

  // Two in a row are one; one that only moves axes of size 1 is a reshape.
  void SimplifyTranspose(Node& node) {
    std::vector<int64_t> perm = ir::ListAttribute(node, "perm");
    if (const Node* before = Maker(node.inputs[0]); before && before->op == Op::kTranspose) {
      for (int64_t& axis : perm)
        axis = ir::ListAttribute(*before, "perm")[static_cast<size_t>(axis)];
      node = Node{Op::kTranspose, before->inputs, node.output, {{"perm", perm}}};
    }
    const Shape& x = ShapeOf(node.inputs[0]);
    int64_t last = -1;
    for (const int64_t axis : perm) {
      if (IsOne(x[static_cast<size_t>(axis)])) continue;
      if (axis < last) return;
      last = axis;
    }
    node = Node{Op::kReshape, node.inputs, node.output, {{"shape", ShapeOf(node.output)}}};
    if (const Node* before = Maker(node.inputs[0]); before && before->op == Op::kReshape)
      node.inputs[0] = before->inputs[0];
  }

  // Maps broadcast by themselves: what a map's operand was before it was expanded, or given axes of
  // size 1 in front.
  ValueId BeforeBroadcast(ValueId value) const {
    for (const Node* maker = Maker(value); maker != nullptr; maker = Maker(value)) {
      const bool ones_in_front =
          maker->op == Op::kReshape &&
          WithoutLeadingOnes(ShapeOf(value)) == WithoutLeadingOnes(ShapeOf(maker->inputs[0])) &&
          ShapeOf(maker->inputs[0]).size() <= ShapeOf(value).size();
      if (maker->op != Op::kExpand && !ones_in_front) break;
      value = maker->inputs[0];
    }
    return value;
  }

  // Rows taken of a weight of two dimensions: a bag of one for each index.
  Result<void> TakeFromTable(Node& node) {
    const ValueId table = node.inputs[0], index = node.inputs[1];
    const Value weight = graph_.value(table);
    const bool rows = weight.kind == ValueKind::kWeight && weight.shape.size() == 2 &&
                      (weight.dtype == DType::kF32 || weight.dtype == DType::kBf16 ||
                       weight.dtype == DType::kF16);
    if (!rows || ir::IntAttribute(node, "axis") != 0 || ShapeOf(index).size() >= ir::kMaxRank)
      return {};
    const std::string name = graph_.value(node.output).name;
    Shape bags = ShapeOf(index);
    bags.push_back(ir::Constant(1));
    TRY_ASSIGN(const ValueId items,
               Make(Op::kReshape, name + ".items", {index}, {{"shape", bags}}));
    const ir::Attributes attributes = {{"mode", static_cast<int64_t>(Bag::kSum)},
                                       {"ends", int64_t{0}},
                                       {"policy", ir::IntAttribute(node, "policy")},
                                       {"default_row", int64_t{-1}},
                                       {"padding_row", int64_t{-1}}};
    const std::vector<ValueId> operands = {table, items, ir::kNoValue, ir::kNoValue};
    if (weight.dtype == DType::kF32) {
      node = Node{Op::kEmbeddingBag, operands, node.output, attributes};
      return {};
    }
    TRY_ASSIGN(const ValueId pooled, Make(Op::kEmbeddingBag, name + ".f32", operands, attributes));
    Expression narrow;  // exact: the values were of that type
    narrow.Apply(MapOp::kCast, weight.dtype, {narrow.Load(0, DType::kF32)});
    node = Node{Op::kMap,
                {pooled},
                node.output,
                {{"code", narrow.Encode()}, {"sizes", Shape{}}, {"shape", ShapeOf(node.output)}}};
    return {};
  }

  // Rows of a table [..., items, columns] reduced over their items: a bag that pools them.
  Result<void> PoolRows(Node& node) {
    const Node* single = Maker(node.inputs[0]);
    const auto kind = static_cast<Reduction>(ir::IntAttribute(node, "kind"));
    const std::map<Reduction, Bag> modes = {
        {Reduction::kSum, Bag::kSum}, {Reduction::kMean, Bag::kMean}, {Reduction::kMax, Bag::kMax}};
    if (single == nullptr || single->op != Op::kEmbeddingBag || !modes.contains(kind)) return {};
    const Shape& rows = ShapeOf(node.inputs[0]);
    Shape items = ShapeOf(single->inputs[1]);
    const bool plain = single->inputs[2] == ir::kNoValue && single->inputs[3] == ir::kNoValue &&
                       ir::IntAttribute(*single, "padding_row") < 0 && items.size() >= 2 &&
                       IsOne(items.back());
    if (!plain ||
        ir::ListAttribute(node, "axes") != std::vector{static_cast<int64_t>(rows.size()) - 2})
      return {};
    items.pop_back();
    const std::string name = graph_.value(node.output).name;
    std::vector<ValueId> operands = single->inputs;
    ir::Attributes attributes = single->attributes;
    attributes["mode"] = static_cast<int64_t>(modes.at(kind));
    TRY_ASSIGN(operands[1], Make(Op::kReshape, name + ".items", {operands[1]}, {{"shape", items}}));
    TRY_ASSIGN(const ValueId pooled,
               Make(Op::kEmbeddingBag, name + ".pooled", operands, attributes));
    node = Node{Op::kReshape, {pooled}, node.output, {{"shape", ShapeOf(node.output)}}};
    return {};
  }

  // The operand that the node gives as it is, or kNoValue.
  ValueId SameAs(const Node& node) const {
    if (node.inputs.empty() || node.inputs[0] == ir::kNoValue) return ir::kNoValue;
    const ValueId x = node.inputs[0];
    const bool same_shape = ShapeOf(x) == ShapeOf(node.output);
    switch (node.op) {
      case Op::kReshape:
      case Op::kExpand:
        return same_shape ? x : ir::kNoValue;
      case Op::kStridedSlice: {
        const auto& step = ir::ListAttribute(node, "step");
        const bool all = std::ranges::all_of(step, [](int64_t each) { return each == 1; });
        return same_shape && all ? x : ir::kNoValue;
      }
      case Op::kJoin:
        return node.inputs.size() == 1 ? x : ir::kNoValue;
      case Op::kPad:
        return same_shape ? x : ir::kNoValue;
      case Op::kReduce: {
        const auto kind = static_cast<Reduction>(ir::IntAttribute(node, "kind"));
        const bool place = kind >= Reduction::kArgMax && kind <= Reduction::kLastArgMin;
        return same_shape && !place ? x : ir::kNoValue;
      }
      case Op::kMap:
        return IsIdentity(graph_, node)
                   ? node.inputs[static_cast<size_t>(ExpressionOf(graph_, node).terms[0].immediate)]
                   : ir::kNoValue;
      default:
        return ir::kNoValue;
    }
  }

  Graph& graph_;
  const Links links_;
  std::map<ValueId, ValueId> same_;
  std::map<std::string, ValueId> seen_;
  std::map<ValueId, size_t> maker_;  // index into kept_
  std::vector<Node> kept_;
};

// ---- Products with weights ----

// A weight of two dimensions, as it lies or transposed.
struct Matrix {
  ValueId weight = ir::kNoValue;
  bool transposed = false;
};

// Whether a transpose turns matrices round and leaves them where they are.
bool TurnsMatrices(const Node& node) {
  if (node.op != Op::kTranspose) return false;
  const std::vector<int64_t> perm = ir::ListAttribute(node, "perm");
  const auto rank = std::ssize(perm);
  for (int64_t i = 0; i < rank; ++i) {
    const int64_t turned = i + 2 < rank ? i : 2 * rank - 3 - i;  // the last two change places
    if (perm[static_cast<size_t>(i)] != turned) return false;
  }
  return rank >= 2;
}

// Back from a value through transposes and widening to the weight that it is made of.
std::optional<Matrix> MatrixOf(const Graph& graph, const Links& links, ValueId value) {
  Matrix matrix{value};
  for (;;) {
    const Value& at = graph.value(matrix.weight);
    if (at.shape.size() != 2) return std::nullopt;
    if (at.kind == ValueKind::kWeight) break;
    const int producer = links.Producer(matrix.weight);
    if (producer < 0) return std::nullopt;
    const Node& node = graph.nodes()[static_cast<size_t>(producer)];
    if (node.op == Op::kTranspose) {
      if (TurnsMatrices(node)) matrix.transposed = !matrix.transposed;
    } else if (node.op == Op::kMap && node.inputs.size() == 1) {
      const Expression expression = ExpressionOf(graph, node);
      const bool widens = expression.terms.size() == 2 && expression.terms[0].op == MapOp::kLoad &&
                          expression.terms[1].op == MapOp::kCast &&
                          expression.type() == DType::kF32 &&
                          graph.value(node.inputs[0]).shape == at.shape;
      if (!widens) return std::nullopt;
    } else {
      return std::nullopt;
    }
    matrix.weight = node.inputs[0];
  }
  const DType type = graph.value(matrix.weight).dtype;
  if (type != DType::kF32 && type != DType::kBf16 && type != DType::kF16) return std::nullopt;
  return matrix;
}

void FindDense(Graph& graph) {
  const Links links(graph);
  std::vector<Node> nodes = graph.nodes();
  for (Node& node : nodes) {
    if (node.op != Op::kContract || ir::IntAttribute(node, "transpose_a") == 1 ||
        graph.value(node.inputs[0]).dtype != DType::kF32 ||
        graph.value(node.inputs[0]).kind == ValueKind::kWeight)
      continue;
    const auto matrix = MatrixOf(graph, links, node.inputs[1]);
    if (!matrix) continue;
    // kContract has b as [k, n] unless transposed, kDense its weight as [n, k].
    const bool lies_n_k = (ir::IntAttribute(node, "transpose_b") == 1) != matrix->transposed;
    node = Node{Op::kDense,
                {node.inputs[0], matrix->weight, ir::kNoValue, ir::kNoValue},
                node.output,
                {{"transposed", int64_t{!lies_n_k}}, {"relu", int64_t{0}}}};
  }
  graph.ReplaceNodes(std::move(nodes));
}

// Products of computed matrices read a transposed one as it lies.
void FoldTransposes(Graph& graph) {
  constexpr const char* kTransposed[] = {"transpose_a", "transpose_b"};
  const Links links(graph);
  std::vector<Node> nodes = graph.nodes();
  for (Node& node : nodes) {
    if (node.op != Op::kContract) continue;
    for (size_t operand = 0; operand < 2; ++operand) {
      const int producer = links.Producer(node.inputs[operand]);
      if (producer < 0) continue;
      const Node& transpose = graph.nodes()[static_cast<size_t>(producer)];
      if (!TurnsMatrices(transpose)) continue;
      node.inputs[operand] = transpose.inputs[0];
      const char* const attribute = kTransposed[operand];
      node.attributes[attribute] = 1 - ir::IntAttribute(node, attribute);
    }
  }
  graph.ReplaceNodes(std::move(nodes));
}

// Moves biases, relus and residuals from maps into the products they are applied to.
class Epilogues {
 public:
  explicit Epilogues(Graph& graph) : graph_(graph), links_(graph), nodes_(graph.nodes()) {
    for (size_t i = 0; i < nodes_.size(); ++i) producer_[nodes_[i].output] = i;
    dead_.resize(nodes_.size(), false);
  }

  void Run() {
    for (size_t i = 0; i < nodes_.size(); ++i)
      while (!dead_[i] && nodes_[i].op == Op::kMap && FoldOne(i)) {
      }
    std::vector<Node> kept;
    for (size_t i = 0; i < nodes_.size(); ++i)
      if (!dead_[i]) kept.push_back(std::move(nodes_[i]));
    graph_.ReplaceNodes(std::move(kept));
  }

 private:
  // The product that makes `value` for one operand of the map alone, or null.
  Node* Dense(const Node& map, ValueId value) {
    const auto found = producer_.find(value);
    if (found == producer_.end() || links_.OnlyUser(value) < 0 ||
        graph_.value(value).shape != ir::ShapeAttribute(map, "shape"))
      return nullptr;
    Node& node = nodes_[found->second];
    return node.op == Op::kDense ? &node : nullptr;
  }

  bool FoldOne(size_t at) {
    for (size_t operand = 0; operand < nodes_[at].inputs.size(); ++operand) {
      Node* dense = Dense(nodes_[at], nodes_[at].inputs[operand]);
      if (dense != nullptr && Fold(at, static_cast<int64_t>(operand), *dense)) return true;
    }
    return false;
  }

  // Takes the first thing that the map does with `dense` out of the map.
  bool Fold(size_t at, int64_t operand, Node& dense) {
    Expression expression = ExpressionOf(graph_, nodes_[at]);
    std::vector<Term>& terms = expression.terms;
    int16_t load = -1, user = -1;
    for (size_t i = 0; i < terms.size(); ++i) {
      const auto number = static_cast<int16_t>(i);
      if (terms[i].op == MapOp::kLoad && terms[i].immediate == operand) {
        if (load >= 0) return false;
        load = number;
      }
      if (load < 0 || std::ranges::find(terms[i].arguments, load) == std::end(terms[i].arguments))
        continue;
      if (user >= 0) return false;
      user = number;
    }
    if (user < 0 || load < 0) return false;
    const Term& term = terms[static_cast<size_t>(user)];
    const bool plain =
        dense.inputs[kResidual] == ir::kNoValue && ir::IntAttribute(dense, "relu") == 0;
    if (!plain) return false;
    if (term.op == MapOp::kRelu) {
      dense.attributes["relu"] = int64_t{1};
    } else if (term.op == MapOp::kAdd) {
      const int16_t other = term.arguments[term.arguments[0] == load ? 1 : 0];
      const Term& addend = terms[static_cast<size_t>(other)];
      if (other == load || addend.op != MapOp::kLoad) return false;
      const ValueId value = nodes_[at].inputs[static_cast<size_t>(addend.immediate)];
      if (dense.inputs[kBias] == ir::kNoValue && IsBias(value, dense))
        dense.inputs[kBias] = value;
      else if (terms.size() == 3 && IsResidual(value, dense))
        dense.inputs[kResidual] = value;
      else
        return false;
    } else {
      return false;
    }
    // What read the term reads the product.
    for (Term& reader : terms)
      for (int16_t& argument : reader.arguments)
        if (argument == user) argument = load;
    if (static_cast<size_t>(user) + 1 != terms.size()) {
      const Composer::Inlined none;
      const Shape shape = ir::ShapeAttribute(nodes_[at], "shape");
      Composer composer(graph_, shape, none);
      CHECK(composer.Compose(nodes_[at], expression));  // less than it was
      nodes_[at] = composer.Result(nodes_[at].output);
      return true;
    }
    // Nothing is left of the map; its residual may be made just before it.
    dead_[producer_.at(dense.output)] = true;
    Node moved = dense;
    moved.output = nodes_[at].output;
    nodes_[at] = std::move(moved);
    producer_[nodes_[at].output] = at;
    return true;
  }

  // One value for each channel of the product.
  bool IsBias(ValueId id, const Node& dense) const {
    const Value& value = graph_.value(id);
    const ir::Dim& channels = graph_.value(dense.output).shape.back();
    return value.kind == ValueKind::kWeight && value.dtype == DType::kF32 &&
           WithoutLeadingOnes(value.shape) == WithoutLeadingOnes({channels});
  }

  bool IsResidual(ValueId id, const Node& dense) const {
    const Value& value = graph_.value(id);
    return value.kind != ValueKind::kWeight && value.dtype == DType::kF32 &&
           value.shape == graph_.value(dense.output).shape;
  }

  Graph& graph_;
  const Links links_;
  std::vector<Node> nodes_;
  std::map<ValueId, size_t> producer_;
  std::vector<bool> dead_;
};

// ---- Chains of maps ----

class MapFusion {
 public:
  explicit MapFusion(Graph& graph) : graph_(graph), links_(graph), nodes_(graph.nodes()) {}

  void Run() {
    for (Node& node : nodes_)
      if (node.op == Op::kMap) {
        Fuse(node);
        maps_[node.output] = &node;
      }
    graph_.ReplaceNodes(std::move(nodes_));
  }

 private:
  // Takes up the maps that make the operands of `node`, and theirs, as far as limits allow.
  void Fuse(Node& node) {
    Composer::Inlined inlined;
    const Shape shape = ir::ShapeAttribute(node, "shape");
    Composer alone(graph_, shape, inlined);  // equal terms once, and constants as terms
    if (!alone.Compose(node)) return;
    Node best = alone.Result(node.output);
    for (bool changed = true; changed;) {
      changed = false;
      for (const ValueId operand : best.inputs) {
        const auto maker = maps_.find(operand);
        if (maker == maps_.end() || !MayInline(*maker->second, node, inlined)) continue;
        inlined.emplace(operand, maker->second);
        Composer composer(graph_, shape, inlined);
        if (composer.Compose(node)) {
          best = composer.Result(node.output);
          changed = true;
          break;
        }
        inlined.erase(operand);
      }
    }
    node = std::move(best);
  }

  bool MayInline(const Node& map, const Node& into, const Composer::Inlined& inlined) const {
    const size_t terms = ir::ListAttribute(map, "code").size() / 2;
    if (map.inputs.empty() && terms <= kCheapTerms) return true;
    if (WithoutLeadingOnes(ir::ShapeAttribute(map, "shape")) !=
        WithoutLeadingOnes(ir::ShapeAttribute(into, "shape")))
      return false;
    // Computed once: whoever reads it is part of the same map by now.
    return std::ranges::all_of(links_.Users(map.output), [&](int user) {
      if (user < 0) return false;
      const ValueId reader = nodes_[static_cast<size_t>(user)].output;
      return reader == into.output || inlined.contains(reader);
    });
  }

  Graph& graph_;
  const Links links_;
  std::vector<Node> nodes_;
  std::map<ValueId, const Node*> maps_;  // by output, fused already
};

void RemoveDead(Graph& graph) {
  std::set<ValueId> needed(graph.outputs().begin(), graph.outputs().end());
  std::vector<Node> kept;
  for (size_t i = graph.nodes().size(); i-- > 0;) {
    const Node& node = graph.nodes()[i];
    if (!needed.contains(node.output)) continue;
    needed.insert(node.inputs.begin(), node.inputs.end());
    kept.push_back(node);
  }
  std::ranges::reverse(kept);
  graph.ReplaceNodes(std::move(kept));
}

}  // namespace

bool IsTensorGraph(const Graph& graph) {
  return graph.nodes().empty() ||
         std::ranges::any_of(graph.nodes(), [](const Node& node) { return node.op >= Op::kMap; });
}

Result<void> FuseTensor(Graph& graph) {
  RemoveDead(graph);
  TRY(Simplifier(graph).Run());
  RemoveDead(graph);
  FindDense(graph);
  FoldTransposes(graph);
  RemoveDead(graph);
  Epilogues(graph).Run();
  MapFusion(graph).Run();
  RemoveDead(graph);
  return {};
}

}  // namespace millpower::compile
