#include "import/tensor/features.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/expression.h"

namespace millpower::import {
namespace {

using ir::Node;
using ir::Op;
using ir::ValueId;
using Kind = IdPolicy::Kind;

// Names without operand; a row follows "default:".
constexpr struct {
  Kind kind;
  std::string_view name;
} kKinds[] = {{Kind::kError, "error"}, {Kind::kClamp, "clamp"}, {Kind::kHash, "hash"}};
constexpr std::string_view kDefaultPrefix = "default:";

std::unexpected<Error> Bad(std::string what) {
  return Fail(ErrorCode::kInvalidArgument, std::move(what));
}

std::unexpected<Error> BadInput(const std::string& input, const std::string& what) {
  return Fail(ErrorCode::kInvalidArgument, "input '" + input + "' " + what, input);
}

// A node that takes rows of a weight, its operand 0, as its operand 1 says.
struct Gather {
  size_t node = 0;
  ValueId index = ir::kNoValue;  // as the importer had it
  int64_t rows = 0;
};

class Features {
 public:
  explicit Features(TensorModel& model) : model_(model), nodes_(model.graph.nodes()) { Follow(); }

  Result<void> Apply(const Port& port, const IdPolicy& policy) {
    if (policy.kind == Kind::kHash && IsLookedUp(port))
      return BadInput(port.name, "is looked up by the host, which gives rows: they are not hashed");
    const std::vector<Gather> gathers = GathersBy(port);
    if (gathers.empty()) return NamesNone(port);
    for (const Gather& gather : gathers) {
      if (policy.kind == Kind::kDefault && policy.row >= gather.rows)
        return BadInput(port.name, "cannot default to row " + std::to_string(policy.row) +
                                       ": table '" + TableOf(gather) + "' has " +
                                       std::to_string(gather.rows));
      TRY(Set(gather, policy));
      applied_[gather.node] = ToString(policy);
    }
    for (const size_t other : GathersFrom(port, gathers))
      model_.notes.push_back("input '" + port.name + "': " + ToString(policy) +
                             " is not for table '" + NameOf(nodes_[other].inputs[0]) +
                             "', whose rows are computed from it");
    return {};
  }

  // Puts the nodes that were made before those that need them. Errors: ir::Verify's.
  Result<void> Finish() {
    std::vector<Node> ordered;
    const auto made = std::span(model_.graph.nodes()).subspan(nodes_.size());
    for (size_t i = 0; i < nodes_.size(); ++i) {
      for (const auto& [before, at] : made_for_)
        if (before == i) ordered.push_back(made[at]);
      ordered.push_back(nodes_[i]);
    }
    model_.graph.ReplaceNodes(std::move(ordered));
    return ir::Verify(model_.graph);
  }

  // What ids of the port that are no row's number do, by table.
  std::string PoliciesOf(const Port& port) const {
    std::set<std::string> policies;
    for (const Gather& gather : GathersBy(port)) {
      const auto applied = applied_.find(gather.node);
      policies.insert(applied != applied_.end() ? applied->second : AsExported(gather));
    }
    std::string all;
    for (const std::string& each : policies) all += (all.empty() ? "" : ", ") + each;
    return all;
  }

 private:
  // ---- Which input's elements a value holds, and nothing else's: source_. Nodes stand in order.
  void Follow() {
    const ir::Graph& graph = model_.graph;
    source_.assign(graph.values().size(), ir::kNoValue);
    is_constant_.assign(graph.values().size(), false);
    for (size_t i = 0; i < graph.values().size(); ++i) {
      const ir::ValueKind kind = graph.values()[i].kind;
      if (kind == ir::ValueKind::kInput) source_[i] = static_cast<ValueId>(i);
      is_constant_[i] = kind == ir::ValueKind::kWeight;
    }
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const Node& node = nodes_[i];
      const auto output = static_cast<size_t>(node.output);
      is_constant_[output] = std::ranges::all_of(node.inputs, [&](ValueId input) {
        return input == ir::kNoValue || is_constant_[static_cast<size_t>(input)];
      });
      if (KeepsElements(node)) source_[output] = CommonSource(node);
      AddIfGather(i);
    }
  }

  bool KeepsElements(const Node& node) const {
    switch (node.op) {
      case Op::kReshape:
      case Op::kTranspose:
      case Op::kStridedSlice:
      case Op::kExpand:
      case Op::kJoin:
        return true;
      case Op::kMap:
        return OnlyCasts(node);
      default:
        return false;
    }
  }

  bool OnlyCasts(const Node& node) const {
    if (node.inputs.size() != 1) return false;
    const DType type = model_.graph.value(node.inputs[0]).dtype;
    const auto sizes = std::ssize(ir::ShapeAttribute(node, "sizes"));
    const auto expression =
        Expression::Decode(ir::ListAttribute(node, "code"), std::span(&type, 1),
                           static_cast<int>(ir::kMaxRank), static_cast<int>(sizes));
    return expression && std::ranges::all_of(expression->terms, [](const Term& term) {
             return term.op == MapOp::kLoad || term.op == MapOp::kCast;
           });
  }

  ValueId CommonSource(const Node& node) const {
    const ValueId first = SourceOf(node.inputs[0]);
    const bool common =
        std::ranges::all_of(node.inputs, [&](ValueId input) { return SourceOf(input) == first; });
    return common ? first : ir::kNoValue;
  }

  // An axis of a weight that is taken along is one of rows.
  void AddIfGather(size_t at) {
    const Node& node = nodes_[at];
    if (node.op != Op::kTake && node.op != Op::kGatherNd && node.op != Op::kEmbeddingBag) return;
    const ValueId table = node.inputs[0];
    if (!is_constant_[static_cast<size_t>(table)]) return;
    size_t axis = 0;
    if (node.op == Op::kTake) axis = static_cast<size_t>(ir::IntAttribute(node, "axis"));
    if (node.op == Op::kGatherNd) {
      const ir::Shape& paths = model_.graph.value(node.inputs[1]).shape;
      if (ir::IntAttribute(node, "batch_dims") != 0 || paths.back() != ir::Constant(1)) return;
    }
    const ir::Dim& rows = model_.graph.value(table).shape[axis];
    if (rows.symbol.empty())
      gathers_.push_back({.node = at, .index = node.inputs[1], .rows = rows.size});
  }

  // ---- Asking
  // Whose elements a value has; kNoValue for those that policies have added since.
  ValueId SourceOf(ValueId value) const {
    const auto at = static_cast<size_t>(value);
    return at < source_.size() ? source_[at] : ir::kNoValue;
  }
  ValueId ValueOf(const Port& port) const { return model_.graph.FindValue(port.value); }
  const std::string& NameOf(ValueId value) const { return model_.graph.value(value).name; }
  const std::string& TableOf(const Gather& gather) const {
    return NameOf(nodes_[gather.node].inputs[0]);
  }
  bool IsLookedUp(const Port& port) const {
    return std::ranges::find(model_.prologue, port.value, &Lookup::value) != model_.prologue.end();
  }

  std::vector<Gather> GathersBy(const Port& port) const {
    std::vector<Gather> found;
    for (const Gather& gather : gathers_)
      if (SourceOf(gather.index) == ValueOf(port)) found.push_back(gather);
    return found;
  }

  // For each value what it was computed from the port's by: the node that last changed elements, or
  // mixed them with others'; absent: nothing of the port is in it.
  std::vector<std::optional<size_t>> Reached(const Port& port) const {
    // Nodes that policies have added give values that were not there at the start.
    std::vector<std::optional<size_t>> changed_by(model_.graph.values().size());
    const ValueId input = ValueOf(port);
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const Node& node = nodes_[i];
      for (const ValueId operand : node.inputs) {
        if (operand == ir::kNoValue) continue;
        const auto& before = changed_by[static_cast<size_t>(operand)];
        const bool is_kept = SourceOf(operand) == input;
        if (!before && !is_kept) continue;
        const bool keeps = KeepsElements(node) && CommonSource(node) != ir::kNoValue;
        if (keeps && is_kept) continue;
        changed_by[static_cast<size_t>(node.output)] = before && KeepsElements(node) ? *before : i;
      }
    }
    return changed_by;
  }

  // Gathers whose rows are computed from the port, other than those given.
  std::vector<size_t> GathersFrom(const Port& port, const std::vector<Gather>& but) const {
    std::vector<size_t> found;
    const auto changed_by = Reached(port);
    for (const Gather& gather : gathers_)
      if (changed_by[static_cast<size_t>(gather.index)] &&
          std::ranges::find(but, gather.node, &Gather::node) == but.end())
        found.push_back(gather.node);
    return found;
  }

  std::unexpected<Error> NamesNone(const Port& port) const {
    const std::vector<size_t> computed = GathersFrom(port, {});
    if (computed.empty()) return BadInput(port.name, "names no rows of a table");
    const Node& gather = nodes_[computed.front()];
    const auto changed_by = Reached(port);
    const Node& by = nodes_[*changed_by[static_cast<size_t>(gather.inputs[1])]];
    const std::string what = std::string(ir::Name(by.op)) + " '" + NameOf(by.output) + "'";
    return BadInput(port.name, "does not name rows of table '" + NameOf(gather.inputs[0]) +
                                   "' itself: " + what +
                                   " makes them of it, which the model answers for");
  }

  std::string AsExported(const Gather& gather) const {
    const Node& node = nodes_[gather.node];
    switch (static_cast<IndexPolicy>(ir::IntAttribute(node, "policy"))) {
      case IndexPolicy::kWrap:
        return "error (negative ids count from the end)";
      case IndexPolicy::kClamp:
        return "clamp";
      case IndexPolicy::kDefault: {
        const int64_t row = ir::IntAttribute(node, "default_row");
        return row < 0 ? "zeros" : std::string(kDefaultPrefix) + std::to_string(row);
      }
      case IndexPolicy::kError:
        break;
    }
    return "error";
  }

  // ---- Setting
  Result<void> Set(const Gather& gather, const IdPolicy& policy) {
    Node& node = nodes_[gather.node];
    const bool has_default = node.op == Op::kEmbeddingBag;
    IndexPolicy set = IndexPolicy::kError;
    if (policy.kind == Kind::kClamp) set = IndexPolicy::kClamp;
    if (policy.kind == Kind::kDefault && has_default) {
      set = IndexPolicy::kDefault;
      node.attributes["default_row"] = policy.row;
    }
    node.attributes["policy"] = static_cast<int64_t>(set);
    if (policy.kind == Kind::kHash) return Rewrite(gather, Hashed(gather));
    if (policy.kind == Kind::kDefault && !has_default)
      return Rewrite(gather, Defaulted(gather, policy.row));
    return {};
  }

  // Both expressions take an i32 or i64 and give an i64.
  Expression Hashed(const Gather& gather) const {
    const Node& node = nodes_[gather.node];
    Expression e;
    const int16_t id = LoadId(gather, e);
    const int16_t bits = e.Apply(MapOp::kCast, DType::kU64, {id});
    const int16_t mixed = e.Apply(MapOp::kMix, DType::kU64, {bits});
    const int16_t rows = e.Constant(DType::kU64, gather.rows);
    const int16_t row = e.Apply(MapOp::kMod, DType::kU64, {mixed, rows});
    const int16_t hashed = e.Apply(MapOp::kCast, DType::kI64, {row});
    const int64_t padding =
        node.op == Op::kEmbeddingBag ? ir::IntAttribute(node, "padding_row") : -1;
    if (padding < 0) return e;
    const int16_t pad = e.Constant(DType::kI64, padding);
    const int16_t is_pad = e.Apply(MapOp::kEqual, DType::kBool, {id, pad});
    e.Apply(MapOp::kSelect, DType::kI64, {is_pad, pad, hashed});
    return e;
  }

  Expression Defaulted(const Gather& gather, int64_t row) const {
    Expression e;
    const int16_t id = LoadId(gather, e);
    const int16_t low =
        e.Apply(MapOp::kGreaterEqual, DType::kBool, {id, e.Constant(DType::kI64, int64_t{0})});
    const int16_t high =
        e.Apply(MapOp::kLess, DType::kBool, {id, e.Constant(DType::kI64, gather.rows)});
    const int16_t inside = e.Apply(MapOp::kLogicalAnd, DType::kBool, {low, high});
    const int16_t otherwise = e.Constant(DType::kI64, row);
    e.Apply(MapOp::kSelect, DType::kI64, {inside, id, otherwise});
    return e;
  }

  int16_t LoadId(const Gather& gather, Expression& e) const {
    const DType type = model_.graph.value(gather.index).dtype;
    const int16_t id = e.Load(0, type);
    return type == DType::kI64 ? id : e.Apply(MapOp::kCast, DType::kI64, {id});
  }

  Result<void> Rewrite(const Gather& gather, const Expression& expression) {
    Node& node = nodes_[gather.node];
    std::string name = NameOf(node.output) + ".ids";
    while (model_.graph.FindValue(name) != ir::kNoValue) name += '_';
    TRY_ASSIGN(const ValueId rows,
               model_.graph.AddNode(Op::kMap, name, {gather.index},
                                    {{"code", expression.Encode()},
                                     {"sizes", ir::Shape()},
                                     {"shape", model_.graph.value(gather.index).shape}}));
    node.inputs[1] = rows;
    made_for_.emplace_back(gather.node, made_for_.size());
    return {};
  }

  TensorModel& model_;
  std::vector<Node> nodes_;  // the graph's own, as they will be
  std::vector<ValueId> source_;
  std::vector<bool> is_constant_;
  std::vector<Gather> gathers_;
  std::map<size_t, std::string> applied_;            // by node
  std::vector<std::pair<size_t, size_t>> made_for_;  // node, and the one made that it needs
};

}  // namespace

Result<IdPolicy> ParseIdPolicy(std::string_view text) {
  for (const auto& each : kKinds)
    if (text == each.name) return IdPolicy{.kind = each.kind};
  if (text.starts_with(kDefaultPrefix)) {
    const std::string_view digits = text.substr(kDefaultPrefix.size());
    IdPolicy policy{.kind = Kind::kDefault};
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), policy.row);
    if (read.ec == std::errc() && read.ptr == digits.data() + digits.size() && policy.row >= 0)
      return policy;
  }
  return Bad("'" + std::string(text) + "' is none of error, clamp, default:ROW, hash");
}

std::string ToString(const IdPolicy& policy) {
  for (const auto& each : kKinds)
    if (policy.kind == each.kind) return std::string(each.name);
  return std::string(kDefaultPrefix) + std::to_string(policy.row);
}

Result<void> ApplyIdPolicies(const std::map<std::string, IdPolicy>& policies, TensorModel& model) {
  Features features(model);
  for (const auto& [input, policy] : policies) {
    const auto port = std::ranges::find(model.inputs, input, &Port::name);
    if (port == model.inputs.end()) return BadInput(input, "is none of the model's");
    TRY(features.Apply(*port, policy));
  }
  for (Port& port : model.inputs) port.id_policy = features.PoliciesOf(port);
  return policies.empty() ? Result<void>() : features.Finish();
}

}  // namespace millpower::import
