#include "ir/rows.h"

#include <algorithm>
#include <optional>
#include <set>
#include <span>

#include "base/expression.h"

namespace millpower::ir {
namespace {

// Where the rows of the batch lie in a value.
constexpr int kNowhere = -1;  // it is the same for all rows
constexpr int kMixed = -2;    // it can't be told
constexpr int kItems = -3;    // a list of items that offsets cut into rows

class Analysis {
 public:
  Analysis(const Graph& graph, const std::string& symbol)
      : graph_(graph), symbol_(symbol), axes_(graph.values().size(), kNowhere) {}

  RowAnalysis Run() {
    for (size_t i = 0; i < axes_.size(); ++i) {
      const Value& input = graph_.values()[i];
      if (input.kind != ValueKind::kInput) continue;
      axes_[i] = AxisOfInput(input);
      if (axes_[i] != kItems) continue;
      for (const std::string& symbol : SizeOf(input.shape[0]).Symbols()) items_.insert(symbol);
    }
    for (const Node& node : graph_.nodes()) {
      int axis = AxisOf(node);
      // What the rule says must be what the shape says.
      const int in_shape = AxisWithSymbol(graph_.value(node.output).shape);
      if (axis != kItems && axis != in_shape) axis = kMixed;
      // As large as all requests' items together, and yet none of theirs.
      if (axis == kNowhere && std::ranges::any_of(graph_.value(node.output).shape,
                                                  [this](const Dim& dim) { return Grows(dim); }))
        axis = kMixed;
      axes_[static_cast<size_t>(node.output)] = axis;
      if (axis == kMixed && result_.why_not.empty())
        result_.why_not = std::string(Name(node.op)) + " '" + graph_.value(node.output).name + "'";
    }
    result_.independent =
        std::ranges::all_of(graph_.outputs(), [this](ValueId output) { return Axis(output) == 0; });
    if (!result_.independent && result_.why_not.empty())
      result_.why_not = "an output does not begin with the batch";
    return std::move(result_);
  }

 private:
  int Axis(ValueId id) const { return axes_[static_cast<size_t>(id)]; }
  const Shape& ShapeOf(ValueId id) const { return graph_.value(id).shape; }
  int Rank(ValueId id) const { return static_cast<int>(ShapeOf(id).size()); }

  bool HasSymbol(const Dim& dim) const {
    const std::vector<std::string> symbols = SizeOf(dim).Symbols();
    return std::ranges::find(symbols, symbol_) != symbols.end();
  }

  // Whether a size adds up when requests share a launch: the batch does, and so do the symbols of
  // lists of items.
  bool Grows(const Dim& dim) const {
    if (dim.symbol.empty()) return false;
    for (const std::string& symbol : SizeOf(dim).Symbols())
      if (symbol == symbol_ || items_.contains(symbol)) return true;
    return false;
  }

  // The one axis whose size is a multiple of the batch; kMixed when there are several, or when the
  // batch is part of a sum.
  int AxisWithSymbol(const Shape& shape) const {
    int found = kNowhere;
    for (size_t i = 0; i < shape.size(); ++i) {
      if (!HasSymbol(shape[i])) continue;
      if (found != kNowhere || !SizeOf(shape[i]).DividedBy(Size::Symbol(symbol_))) return kMixed;
      found = static_cast<int>(i);
    }
    return found;
  }

  // Another symbol in front: items of a ragged feature, whose rows offsets tell.
  int AxisOfInput(const Value& input) const {
    const int axis = AxisWithSymbol(input.shape);
    if (axis == kNowhere && !input.shape.empty() && !input.shape[0].symbol.empty()) return kItems;
    return axis;
  }

  // The axis of the result that `operand`'s rows lie on when it is broadcast to `rank` dimensions.
  int Broadcast(ValueId operand, int rank) const {
    const int axis = Axis(operand);
    return axis < 0 ? axis : axis + rank - Rank(operand);
  }

  // Of operands that meet element by element.
  static int Meet(int a, int b) {
    if (a == kNowhere) return b;
    return b == kNowhere || a == b ? a : kMixed;
  }

  int Elementwise(const Node& node) const {
    const int rank = Rank(node.output);
    int axis = kNowhere;
    for (const ValueId input : node.inputs) axis = Meet(axis, Broadcast(input, rank));
    return axis;
  }

  int Map(const Node& node) const {
    int axis = Elementwise(node);
    if (axis == kMixed) return axis;
    if (axis == kNowhere) axis = AxisWithSymbol(ShapeOf(node.output));
    // Sizes are those of the launch: of all requests in it together.
    for (const Dim& size : ShapeAttribute(node, "sizes"))
      if (Grows(size)) return kMixed;
    const std::vector<int64_t>& code = ListAttribute(node, "code");
    std::vector<DType> types;
    for (const ValueId input : node.inputs) types.push_back(graph_.value(input).dtype);
    const auto expression = Expression::Decode(
        code, types, Rank(node.output), static_cast<int>(ShapeAttribute(node, "sizes").size()));
    if (!expression) return kMixed;
    const int rows_axis = axis == kItems ? 0 : axis;
    for (const Term& term : expression->terms)
      if (term.op == MapOp::kIndex && term.immediate == rows_axis) return kMixed;
    return axis;
  }

  int Reshape(const Node& node) const {
    const int axis = Axis(node.inputs[0]);
    if (axis < 0) return axis == kItems ? kMixed : axis;
    const Shape& from = ShapeOf(node.inputs[0]);
    const Shape& to = ShapeOf(node.output);
    const int target = AxisWithSymbol(to);
    if (target < 0) return kMixed;
    return ElementsOf({from.begin(), from.begin() + axis}) ==
                   ElementsOf({to.begin(), to.begin() + target})
               ? target
               : kMixed;
  }

  int Contract(const Node& node) const {
    const ValueId a = node.inputs[0], b = node.inputs[1];
    const int rank = Rank(node.output);
    // Which of its last two dimensions is summed over, as distance from the end.
    const int a_summed = IntAttribute(node, "transpose_a") == 1 ? 2 : 1;
    const int b_summed = IntAttribute(node, "transpose_b") == 1 ? 1 : 2;
    const auto place = [&](ValueId operand, int summed, int free) {
      const int axis = Axis(operand);
      if (axis < 0) return axis == kItems ? kMixed : axis;
      const int from_end = Rank(operand) - axis;
      if (from_end == summed) return kMixed;
      return rank - (from_end > 2 ? from_end : free);
    };
    return Meet(place(a, a_summed, 2), place(b, b_summed, 1));
  }

  int Take(const Node& node) const {
    const auto along = static_cast<int>(IntAttribute(node, "axis"));
    const int x = Axis(node.inputs[0]), index = Axis(node.inputs[1]);
    if (x == kNowhere) return index >= 0 ? along + index : index;
    if (x < 0 || index != kNowhere || x == along) return kMixed;
    return x < along ? x : x + Rank(node.inputs[1]) - 1;
  }

  int GatherNd(const Node& node) const {
    const auto batch = static_cast<int>(IntAttribute(node, "batch_dims"));
    const int x = Axis(node.inputs[0]), index = Axis(node.inputs[1]);
    const int index_rank = Rank(node.inputs[1]);
    const auto depth = static_cast<int>(ShapeOf(node.inputs[1]).back().size);
    if (x == kNowhere) return index < index_rank - 1 ? index : kMixed;
    if (x >= 0 && x == index) return x < batch ? x : kMixed;
    if (x < batch + depth || index != kNowhere) return kMixed;
    return x - batch - depth + index_rank - 1;
  }

  // Whether a map gives its operand's integers as they are.
  bool OnlyCasts(const Node& map) const {
    if (map.inputs.size() != 1 || ShapeOf(map.inputs[0]) != ShapeOf(map.output)) return false;
    const DType from = graph_.value(map.inputs[0]).dtype;
    const auto expression =
        Expression::Decode(ListAttribute(map, "code"), std::span(&from, 1), Rank(map.output),
                           static_cast<int>(ShapeAttribute(map, "sizes").size()));
    return expression && std::ranges::all_of(expression->terms, [](const Term& term) {
             const bool holds_indices = term.type == DType::kI32 || term.type == DType::kI64;
             return (term.op == MapOp::kLoad || term.op == MapOp::kCast) && holds_indices;
           });
  }

  // The input behind casts, or kNoValue: whatever else is done with offsets, or with items, joining
  // requests would change.
  ValueId InputBehind(ValueId id) const {
    for (;;) {
      if (graph_.value(id).kind == ValueKind::kInput) return id;
      const auto node = std::ranges::find(graph_.nodes(), id, &Node::output);
      if (node == graph_.nodes().end()) return kNoValue;
      const bool passes = (node->op == Op::kMap && OnlyCasts(*node)) ||
                          (node->op == Op::kReshape && Rank(node->inputs[0]) == 1 && Rank(id) == 1);
      if (!passes) return kNoValue;
      id = node->inputs[0];
    }
  }

  int EmbeddingBag(const Node& node) {
    const int index = Axis(node.inputs[1]);
    const int weights = node.inputs[3] == kNoValue ? index : Axis(node.inputs[3]);
    if (weights != index) return kMixed;
    if (node.inputs[2] == kNoValue) {
      const bool pools_rows = index >= 0 && index == Rank(node.inputs[1]) - 1;
      return index == kItems || pools_rows ? kMixed : index;
    }
    const ValueId offsets = InputBehind(node.inputs[2]);
    if (offsets == kNoValue || index != kItems) return kMixed;
    std::vector<std::string>& cut = result_.offsets_of[graph_.value(offsets).name];
    for (const ValueId list : {node.inputs[1], node.inputs[3]}) {
      if (list == kNoValue) continue;
      const ValueId items = InputBehind(list);
      if (items == kNoValue) return kMixed;
      const std::string& name = graph_.value(items).name;
      if (std::ranges::find(cut, name) == cut.end()) cut.push_back(name);
    }
    return 0;
  }

  // x's axis, unless it is the one at `along`.
  int NotAlong(const Node& node, int64_t along) const {
    const int axis = Axis(node.inputs[0]);
    return axis == kItems || axis == along ? kMixed : axis;
  }

  int AxisOf(const Node& node) {
    for (const ValueId input : node.inputs)
      if (input != kNoValue && Axis(input) == kMixed) return kMixed;
    const auto last = [&] { return int64_t{Rank(node.inputs[0])} - 1; };
    switch (node.op) {
      case Op::kMap:
        return Map(node);
      case Op::kExpand: {
        const int axis = Elementwise(node);
        return axis == kNowhere ? AxisWithSymbol(ShapeOf(node.output)) : axis;
      }
      case Op::kReduce:
        for (const int64_t axis : ListAttribute(node, "axes"))
          if (NotAlong(node, axis) == kMixed) return kMixed;
        return Axis(node.inputs[0]);
      case Op::kReshape:
        return Reshape(node);
      case Op::kTranspose: {
        const int axis = Axis(node.inputs[0]);
        if (axis < 0) return axis;
        const auto& perm = ListAttribute(node, "perm");
        return static_cast<int>(std::ranges::find(perm, axis) - perm.begin());
      }
      case Op::kStridedSlice:
      case Op::kPad:
        return SameLength(node);
      case Op::kJoin: {
        int axis = kNowhere;
        for (const ValueId input : node.inputs) axis = Meet(axis, Axis(input));
        return axis == IntAttribute(node, "axis") || axis == kItems ? kMixed : axis;
      }
      case Op::kContract:
        return Contract(node);
      case Op::kConv:
      case Op::kPool: {
        const int axis = Axis(node.inputs[0]);
        const bool constant_kernel = node.op == Op::kPool || Axis(node.inputs[1]) == kNowhere;
        const bool argmax = node.op == Op::kPool &&
                            IntAttribute(node, "kind") == static_cast<int64_t>(Pooling::kArgMax);
        return constant_kernel && !argmax && axis <= 0 ? axis : kMixed;
      }
      case Op::kTake:
        return Take(node);
      case Op::kTakeAlong:
        return Axis(node.inputs[0]) == Axis(node.inputs[1])
                   ? NotAlong(node, IntAttribute(node, "axis"))
                   : kMixed;
      case Op::kGatherNd:
        return GatherNd(node);
      case Op::kScatter: {
        const bool elements =
            IntAttribute(node, "mode") == static_cast<int64_t>(ScatterMode::kElements);
        const int axis = Axis(node.inputs[0]);
        return elements && axis == Axis(node.inputs[1]) && axis == Axis(node.inputs[2])
                   ? NotAlong(node, IntAttribute(node, "axis"))
                   : kMixed;
      }
      case Op::kEmbeddingBag:
        return EmbeddingBag(node);
      case Op::kSoftmax:
      case Op::kLayerNorm:
      case Op::kTopK:
        return NotAlong(node, last());
      case Op::kCumulate:
        return NotAlong(node, IntAttribute(node, "axis"));
      default:
        return kMixed;  // operators of language models
    }
  }

  // A slice or padding that leaves the rows alone.
  int SameLength(const Node& node) const {
    const int axis = Axis(node.inputs[0]);
    if (axis < 0) return axis == kItems ? kMixed : axis;
    const auto at = static_cast<size_t>(axis);
    if (ShapeOf(node.inputs[0])[at] != ShapeOf(node.output)[at]) return kMixed;
    return node.op == Op::kStridedSlice && ListAttribute(node, "step")[at] < 0 ? kMixed : axis;
  }

  const Graph& graph_;
  const std::string symbol_;
  std::vector<int> axes_;        // by value
  std::set<std::string> items_;  // symbols that count items
  RowAnalysis result_;
};

}  // namespace

RowAnalysis AnalyseRows(const Graph& graph, const std::string& symbol) {
  return Analysis(graph, symbol).Run();
}

}  // namespace millpower::ir
