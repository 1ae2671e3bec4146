// Nodes of a graph of tensors become instructions.
//
// A value lies in the columns [begin, begin + cols) of a buffer's rows, mostly in all of them. How
// a tensor's elements are cut into rows and columns is free where it is a whole buffer:
// instructions read it in any shape. It matters to matrix products, which take rows of k, and to
// joins of columns: what makes a part writes it straight into the columns of the joined buffer. A
// value that is such a part can be read as a matrix without more ado; who needs another shape of
// it, or other rows, gets a copy.
#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "base/check.h"
#include "base/expression.h"
#include "base/tensor_ops.h"
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
using isa::Opcode;

// Parts of a join that are columns of one buffer; the order of accesses is proven piece by piece.
constexpr size_t kMaxParts = 1024;
constexpr int64_t kMaxBufferCols = int64_t{1} << 30;

bool IsOne(const ir::Dim& dim) { return dim == ir::Constant(1); }

// Sizes of values were found to be Sizes before anything asks.
Size Elements(const Shape& shape) {
  const auto elements = ir::ElementsOf(shape);
  CHECK(elements) << ir::ToString(shape);
  return *elements;
}

// The product of the constant dimensions after the last one with symbols.
int64_t TrailingConstant(const Shape& shape) {
  int64_t product = 1;
  for (size_t i = shape.size(); i-- > 0 && shape[i].symbol.empty();) product *= shape[i].size;
  return product;
}

std::vector<int64_t> Identity(size_t rank) {
  std::vector<int64_t> perm(rank);
  for (size_t i = 0; i < rank; ++i) perm[i] = static_cast<int64_t>(i);
  return perm;
}

// A strided slice that is some columns of all rows: from which on, and how many.
struct Columns {
  int64_t begin = 0;
  int64_t cols = 0;
  int64_t of = 0;  // columns in a row of the whole
};

std::optional<Columns> ColumnsOf(const Graph& graph, const Node& slice) {
  const Shape& x = graph.value(slice.inputs[0]).shape;
  const Shape& begin = ir::ShapeAttribute(slice, "begin");
  const Shape& shape = ir::ShapeAttribute(slice, "shape");
  size_t axis = 0;  // the first that is not taken whole
  while (axis < x.size() && x[axis] == shape[axis]) ++axis;
  int64_t inner = 1;
  for (size_t i = axis + 1; i < x.size(); ++i) {
    if (x[i] != shape[i] || !x[i].symbol.empty()) return std::nullopt;
    inner *= x[i].size;
  }
  for (const int64_t step : ir::ListAttribute(slice, "step"))
    if (step != 1) return std::nullopt;
  if (axis == x.size() || !x[axis].symbol.empty() || !shape[axis].symbol.empty() ||
      !begin[axis].symbol.empty())
    return std::nullopt;
  return Columns{begin[axis].size * inner, shape[axis].size * inner, x[axis].size * inner};
}

// What each value's storage has to suit, decided before the first instruction.
class Layout {
 public:
  // Columns of another value's buffer that a value is written to.
  struct Part {
    ValueId root = ir::kNoValue;
    int64_t begin = 0;
    int64_t cols = 0;
    bool operator==(const Part&) const = default;
  };

  explicit Layout(const Graph& graph) : graph_(graph) {
    const size_t count = graph.values().size();
    alias_.resize(count);
    maker_.resize(count, nullptr);
    for (size_t i = 0; i < count; ++i) alias_[i] = static_cast<ValueId>(i);
    for (const Node& node : graph.nodes()) {
      maker_[At(node.output)] = &node;
      if (node.op == Op::kReshape) alias_[At(node.output)] = Alias(node.inputs[0]);
    }
    for (const ValueId output : graph.outputs()) output_of_.try_emplace(Alias(output), output);
    for (size_t i = graph.nodes().size(); i-- > 0;)
      if (graph.nodes()[i].op == Op::kJoin) PlanJoin(graph.nodes()[i]);
    for (const Node& node : graph.nodes()) {
      if (node.op != Op::kDense) continue;
      Want(node.inputs[0], graph.value(node.inputs[0]).shape.back().size);
      Want(node.output, graph.value(node.output).shape.back().size);
    }
  }

  // The value whose elements these are in another shape.
  ValueId Alias(ValueId value) const { return alias_[At(value)]; }
  // The output of the graph that is stored where `value` is; kNoValue when there is none.
  ValueId OutputOf(ValueId value) const {
    const auto found = output_of_.find(Alias(value));
    return found == output_of_.end() ? ir::kNoValue : found->second;
  }
  std::optional<Part> PartOf(ValueId value) const {
    const auto found = parts_.find(value);
    if (found == parts_.end()) return std::nullopt;
    return found->second;
  }
  // Whether a join's parts are columns of one buffer; else it is put together by copies.
  bool IsJoinedInPlace(ValueId join) const { return joined_.contains(join); }
  // Columns of a row of the value's buffer, when it has one of its own.
  int64_t Cols(ValueId value) const {
    const auto found = wanted_.find(Alias(value));
    if (found != wanted_.end()) return found->second;
    const ValueId output = OutputOf(value);
    return TrailingConstant(graph_.value(output == ir::kNoValue ? value : output).shape);
  }

 private:
  static size_t At(ValueId value) { return static_cast<size_t>(value); }

  void Want(ValueId value, int64_t cols) {
    const ValueId alias = Alias(value);
    if (graph_.value(alias).kind == ValueKind::kNode && OutputOf(alias) == ir::kNoValue)
      wanted_.try_emplace(alias, cols);
  }

  void PlanJoin(const Node& join) {
    const auto axis = static_cast<size_t>(ir::IntAttribute(join, "axis"));
    const Shape& shape = graph_.value(join.output).shape;
    const auto inner = ColumnsFrom(shape, axis);
    if (!inner || join.inputs.size() > kMaxParts || *inner > kMaxBufferCols) return;
    Part next{join.output, 0, *inner};
    if (const auto part = PartOf(join.output)) {
      if (part->cols != *inner) return;
      next = *part;
    } else {
      Want(join.output, *inner);
      if (Cols(join.output) != *inner) return;
    }
    joined_.insert(join.output);
    const Size rows = *Elements(shape).DividedBy(*inner);
    for (const ValueId input : join.inputs) {
      next.cols = *ColumnsFrom(graph_.value(input).shape, axis);
      const ValueId maker = Alias(input);
      if (CanWriteColumns(maker, rows, next.cols) && !wanted_.contains(maker))
        parts_.try_emplace(maker, next);
      next.begin += next.cols;
    }
  }

  // The product of the dimensions from `axis` on, if they are constant.
  static std::optional<int64_t> ColumnsFrom(const Shape& shape, size_t axis) {
    int64_t product = 1;
    for (size_t i = axis; i < shape.size(); ++i) {
      if (!shape[i].symbol.empty()) return std::nullopt;
      product *= shape[i].size;
    }
    return product;
  }

  // Whether what makes `value` can write it as the matrix [rows, cols].
  bool CanWriteColumns(ValueId value, const Size& rows, int64_t cols) const {
    const Node* maker = maker_[At(value)];
    if (maker == nullptr || OutputOf(value) != ir::kNoValue) return false;
    const Shape& shape = graph_.value(value).shape;
    const bool is_matrix = shape == Shape{ir::DimOf(rows), ir::Constant(cols)};
    switch (maker->op) {
      case Op::kStridedSlice:
        return is_matrix && !ColumnsOf(graph_, *maker);
      case Op::kDense:
      case Op::kEmbeddingBag:
        return shape.back() == ir::Constant(cols);
      case Op::kMap:
        return MatrixSplit(*maker, cols).has_value();
      default:
        return is_matrix;
    }
  }

 public:
  // How many leading axes of a map's result are the rows of the matrix of `cols` columns that it,
  // and each operand, can be taken for; absent: there is no such matrix.
  std::optional<size_t> MatrixSplit(const Node& map, int64_t cols) const {
    const Shape& shape = ir::ShapeAttribute(map, "shape");
    size_t split = shape.size();
    for (int64_t inner = 1; inner < cols; --split) {
      if (split == 0 || !shape[split - 1].symbol.empty()) return std::nullopt;
      inner *= shape[split - 1].size;
      if (inner > cols) return std::nullopt;
    }
    if (shape.size() == 2 && split == 1) return split;
    const std::vector<int64_t>& code = ir::ListAttribute(map, "code");
    for (size_t i = 0; i < code.size(); i += 2)
      if (static_cast<uint8_t>(code[i]) == static_cast<uint8_t>(MapOp::kIndex)) return std::nullopt;
    for (const ValueId input : map.inputs)
      if (!MatrixShape(graph_.value(input).shape, shape, split)) return std::nullopt;
    return split;
  }

  // An operand that broadcasts to `shape` as the matrix that it is when `split` axes are rows.
  static std::optional<Shape> MatrixShape(const Shape& operand, const Shape& shape, size_t split) {
    const size_t missing = shape.size() - operand.size();
    auto side = [&](size_t begin, size_t end) -> std::optional<ir::Dim> {
      bool full = true, ones = true;
      Shape part;
      for (size_t i = begin; i < end; ++i) {
        const ir::Dim dim = i < missing ? ir::Constant(1) : operand[i - missing];
        full = full && dim == shape[i];
        ones = ones && IsOne(dim);
        part.push_back(shape[i]);
      }
      if (full) return ir::DimOf(Elements(part));
      if (ones) return ir::Constant(1);
      return std::nullopt;
    };
    const auto rows = side(0, split), cols = side(split, shape.size());
    if (!rows || !cols) return std::nullopt;
    return Shape{*rows, *cols};
  }

 private:
  const Graph& graph_;
  std::vector<ValueId> alias_;
  std::vector<const Node*> maker_;
  std::map<ValueId, ValueId> output_of_;  // by alias
  std::map<ValueId, Part> parts_;         // by the value as its node makes it
  std::map<ValueId, int64_t> wanted_;     // by alias
  std::set<ValueId> joined_;
};

class TensorLowering {
 public:
  TensorLowering(const Graph& graph, const Options& options, PackPlan& packing,
                 std::vector<Conversion>& conversions)
      : graph_(graph),
        options_(options),
        packing_(packing),
        conversions_(conversions),
        layout_(graph) {}

  Result<Lowered> Run() {
    const size_t values = graph_.values().size();
    lowered_.buffer_of_value.assign(values, -1);
    lowered_.scratch.resize(values);
    places_.resize(values);
    FindLastUses();
    isa::Program& program = lowered_.program;
    program.name = graph_.name;
    program.facts = graph_.facts;
    for (const ir::SymbolBound& symbol : graph_.symbols()) {
      registers_[symbol.name] = static_cast<int32_t>(program.registers.size());
      program.registers.push_back({.name = symbol.name, .max = symbol.max});
    }
    TRY(ReserveNames());
    DeclareInputs();
    for (const Node& node : graph_.nodes()) {
      TRY(LowerNode(node));
      if (IsOutput(node.output) && !HasOwnOutput(node.output)) CopyToOutput(node.output);
      if (!unsized_.empty())
        return Unsupported("'" + graph_.value(node.output).name + "' needs the size " + unsized_ +
                           ", which can fall where a symbol grows");
      ++position_;
    }
    for (auto& [types, conversion] : converted_) conversions_.push_back(std::move(conversion));
    return std::move(lowered_);
  }

 private:
  using Place = Layout::Part;

  // An operand that an instruction reads as a tensor.
  struct Reading {
    ValueId value = ir::kNoValue;
    Shape shape;
  };

  static size_t At(ValueId value) { return static_cast<size_t>(value); }
  static std::unexpected<Error> Unsupported(std::string message) {
    return Fail(ErrorCode::kUnsupported, std::move(message));
  }
  const Shape& ShapeOf(ValueId value) const { return graph_.value(value).shape; }
  DType TypeOf(ValueId value) const { return graph_.value(value).dtype; }
  bool IsWeight(ValueId value) const {
    return graph_.value(layout_.Alias(value)).kind == ValueKind::kWeight;
  }
  bool IsOutput(ValueId value) const {
    return std::ranges::find(graph_.outputs(), value) != graph_.outputs().end();
  }
  // Whether the value's own buffer is that of this output.
  bool HasOwnOutput(ValueId output) const {
    return layout_.OutputOf(output) == output &&
           graph_.value(layout_.Alias(output)).kind == ValueKind::kNode;
  }

  // By alias: nodes that only give another shape read nothing themselves.
  void FindLastUses() {
    last_use_.assign(graph_.values().size(), -1);
    for (size_t i = 0; i < graph_.nodes().size(); ++i)
      for (const ValueId input : graph_.nodes()[i].inputs)
        if (input != ir::kNoValue) last_use_[At(layout_.Alias(input))] = static_cast<int>(i);
    for (const ValueId output : graph_.outputs())
      last_use_[At(layout_.Alias(output))] = static_cast<int>(graph_.nodes().size());
  }

  // ---- registers, tables, buffers ----

  isa::Dim DimOf(const Size& size) {
    if (const auto constant = size.Constant()) return {-1, *constant};
    const std::string text = size.ToString();
    const auto [found, is_new] =
        registers_.try_emplace(text, static_cast<int32_t>(lowered_.program.registers.size()));
    if (is_new) {
      const int64_t max = graph_.SymbolMax(text);
      if (max < 0) unsized_ = text;
      lowered_.program.registers.push_back({.name = text, .max = max, .formula = text});
    }
    return {found->second, 0};
  }

  int32_t ShapeId(const Shape& shape) {
    std::vector<isa::Dim> dims;
    for (const ir::Dim& dim : shape) dims.push_back(DimOf(ir::SizeOf(dim)));
    std::vector<std::pair<int32_t, int64_t>> key;
    for (const isa::Dim& dim : dims) key.emplace_back(dim.reg, dim.size);
    const auto [found, is_new] =
        shapes_.try_emplace(key, static_cast<int32_t>(lowered_.program.shapes.size()));
    if (is_new) lowered_.program.shapes.push_back(std::move(dims));
    return found->second;
  }

  int64_t ListId(const std::vector<int64_t>& list) {
    const auto [found, is_new] =
        lists_.try_emplace(list, static_cast<int64_t>(lowered_.program.lists.size()));
    if (is_new) lowered_.program.lists.push_back(list);
    return found->second;
  }

  int32_t AddBuffer(isa::Buffer buffer) {
    lowered_.program.buffers.push_back(std::move(buffer));
    return static_cast<int32_t>(lowered_.program.buffers.size()) - 1;
  }

  isa::Buffer RowsBuffer(const Shape& shape, int64_t cols, DType type) {
    return {.form = isa::Form::kRows,
            .dtype = type,
            .rows = DimOf(*Elements(shape).DividedBy(cols)),
            .cols = cols};
  }

  const isa::Buffer& RootBuffer(ValueId root) const {
    const int32_t buffer = lowered_.buffer_of_value[At(root)];
    return buffer >= 0 ? lowered_.program.buffers[static_cast<size_t>(buffer)]
                       : lowered_.scratch[At(root)];
  }

  // Names that others know; those of weights give way.
  Result<void> ReserveNames() {
    for (const Value& value : graph_.values()) {
      if (!ir::ElementsOf(value.shape))
        return Unsupported("'" + value.name + "' " + ir::ToString(value.shape) +
                           " has a size that is too long to write down");
      if (value.kind == ValueKind::kInput) names_.insert(value.name);
    }
    for (const ValueId output : graph_.outputs()) {
      if (graph_.value(output).kind != ValueKind::kNode)
        return Unsupported("output '" + graph_.value(output).name + "' is not computed");
      names_.insert(graph_.value(output).name);
    }
    return {};
  }

  // A buffer's name, from any text.
  std::string NameOf(const std::string& text, const char* suffix) {
    std::string name = text.substr(0, 200);
    for (char& c : name)
      if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
          c != '_' && c != '.' && c != '-')
        c = '_';
    if (name.empty()) name = "weight";
    if (names_.insert(name).second) return name;
    name += suffix;
    std::string unique = name;
    for (int i = 2; !names_.insert(unique).second; ++i) unique = name + "." + std::to_string(i);
    return unique;
  }

  void DeclareInputs() {
    for (size_t i = 0; i < graph_.values().size(); ++i) {
      const Value& value = graph_.values()[i];
      if (value.kind != ValueKind::kInput) continue;
      const auto id = static_cast<ValueId>(i);
      isa::Buffer buffer = RowsBuffer(value.shape, layout_.Cols(id), value.dtype);
      buffer.name = value.name;
      buffer.kind = isa::BufferKind::kInput;
      if (value.index_bound) {
        buffer.has_bound = true;
        buffer.bound = DimOf(ir::SizeOf(*value.index_bound));
      }
      places_[i] = {id, 0, buffer.cols};
      lowered_.buffer_of_value[i] = AddBuffer(std::move(buffer));
    }
  }

  void DeclareOutput(ValueId root, ValueId output, int64_t cols) {
    isa::Buffer buffer = RowsBuffer(ShapeOf(output), cols, TypeOf(output));
    buffer.name = graph_.value(output).name;
    buffer.kind = isa::BufferKind::kOutput;
    lowered_.buffer_of_value[At(root)] = AddBuffer(std::move(buffer));
  }

  void DeclareRoot(ValueId root) {
    if (RootBuffer(root).cols != 0) return;
    const int64_t cols = layout_.Cols(root);
    if (const ValueId output = layout_.OutputOf(root); output != ir::kNoValue)
      DeclareOutput(root, output, cols);
    else
      lowered_.scratch[At(root)] = RowsBuffer(ShapeOf(root), cols, TypeOf(root));
  }

  // A value that only instructions know of, needed up to the node `last_use`.
  ValueId AddTemporary(isa::Buffer scratch, int last_use) {
    lowered_.buffer_of_value.push_back(-1);
    lowered_.scratch.push_back(std::move(scratch));
    last_use_.push_back(last_use);
    return static_cast<ValueId>(lowered_.scratch.size()) - 1;
  }

  // ---- weights ----

  PackRule RuleOf(const Value& weight, PackRule::Kind kind) const {
    PackRule rule{.kind = kind};
    if (weight.literal.empty() && weight.values.empty()) {
      rule.slices = SlicesOf(weight, packing_);
      return rule;
    }
    rule.literal.dtype = weight.dtype;
    for (const ir::Dim& dim : weight.shape) rule.literal.shape.push_back(dim.size);
    rule.literal.bytes = weight.literal;
    if (weight.literal.empty()) {
      const auto bytes = std::as_bytes(std::span(weight.values));
      rule.literal.bytes.assign(bytes.begin(), bytes.end());
    }
    return rule;
  }

  int32_t AddWeight(isa::Buffer buffer, PackRule rule) {
    buffer.kind = isa::BufferKind::kWeight;
    packing_[buffer.name] = std::move(rule);
    return AddBuffer(std::move(buffer));
  }

  // The elements as they are.
  int32_t RawWeight(ValueId id) {
    const auto [found, is_new] = raw_.try_emplace(id);
    if (!is_new) return found->second;
    const Value& value = graph_.value(id);
    const int64_t elements = *Elements(value.shape).Constant();
    isa::Buffer buffer{.name = NameOf(value.name, ".rows"), .dtype = value.dtype};
    buffer.cols = elements <= kMaxBufferCols ? elements : value.shape.back().size;
    buffer.rows = {-1, elements / buffer.cols};
    return found->second = AddWeight(std::move(buffer), RuleOf(value, PackRule::Kind::kRaw));
  }

  // The right side of a matrix product.
  int32_t PackedWeight(ValueId id, bool transposed) {
    const auto [found, is_new] = packed_.try_emplace({id, transposed});
    if (!is_new) return found->second;
    const Value& value = graph_.value(id);
    const DType kept = value.dtype == DType::kF16 ? DType::kF32 : value.dtype;
    isa::Buffer buffer{.name = NameOf(value.name, ".packed"),
                       .form = isa::Form::kPacked,
                       .dtype = options_.weight_type.value_or(kept),
                       .rows = {-1, value.shape[transposed ? 1 : 0].size},
                       .cols = value.shape[transposed ? 0 : 1].size};
    TellConversion(value, buffer.dtype);
    PackRule rule = RuleOf(value, PackRule::Kind::kConcat);
    rule.cols = value.shape[1].size;
    rule.transposed = transposed;
    return found->second = AddWeight(std::move(buffer), std::move(rule));
  }

  int32_t Table(ValueId id) {
    const auto [found, is_new] = tables_.try_emplace(id);
    if (!is_new) return found->second;
    const Value& value = graph_.value(id);
    isa::Buffer buffer{.name = NameOf(value.name, ".table"),
                       .form = isa::Form::kTable,
                       .dtype = options_.table_type.value_or(value.dtype),
                       .rows = {-1, value.shape[0].size},
                       .cols = value.shape[1].size};
    TellConversion(value, buffer.dtype);
    PackRule rule = RuleOf(value, PackRule::Kind::kConcat);
    rule.cols = buffer.cols;
    return found->second = AddWeight(std::move(buffer), std::move(rule));
  }

  void TellConversion(const Value& value, DType stored) {
    if (stored == value.dtype) return;
    Conversion& conversion = converted_[{value.dtype, stored}];
    if (conversion.tensors == 0)
      conversion = {value.dtype, stored, 0,
                    value.slices.empty() ? value.name : value.slices.front().tensor};
    conversion.tensors += std::max<int64_t>(1, std::ssize(value.slices));
  }

  View WholeBuffer(int32_t buffer) const {
    return {.cols = lowered_.program.buffers[static_cast<size_t>(buffer)].cols, .buffer = buffer};
  }

  // ---- operands ----

  bool IsWhole(const Place& place) const {
    return place.begin == 0 && place.cols == RootBuffer(place.root).cols;
  }
  static View ViewOf(const Place& place) {
    return {.value = place.root, .begin = place.begin, .cols = place.cols};
  }

  // The value as a tensor of `shape`.
  View Tensor(ValueId value, const Shape& shape) {
    const ValueId alias = layout_.Alias(value);
    if (IsWeight(alias)) {
      View view = WholeBuffer(RawWeight(alias));
      view.shape = ShapeId(shape);
      return view;
    }
    Place& place = places_[At(alias)];
    if (!IsWhole(place)) {
      if (IsMatrixOf(place, shape)) return ViewOf(place);
      place = CopyOut(place, TypeOf(alias), last_use_[At(alias)]);
    }
    View view = ViewOf(place);
    view.shape = ShapeId(shape);
    return view;
  }
  View Tensor(ValueId value) { return Tensor(value, ShapeOf(value)); }
  View Tensor(const Reading& reading) { return Tensor(reading.value, reading.shape); }

  // Whether `shape` is that of the columns, read as a matrix.
  bool IsMatrixOf(const Place& place, const Shape& shape) {
    return shape.size() == 2 && shape[1] == ir::Constant(place.cols) &&
           DimOf(ir::SizeOf(shape[0])) == RootBuffer(place.root).rows;
  }

  // The columns as a whole buffer.
  Place CopyOut(const Place& place, DType type, int last_use) {
    isa::Buffer scratch{.dtype = type, .rows = RootBuffer(place.root).rows, .cols = place.cols};
    const Place copy{AddTemporary(std::move(scratch), last_use), 0, place.cols};
    EmitCopy(ViewOf(place), ViewOf(copy), RowsAndCols(place));
    return copy;
  }

  Shape RowsAndCols(const Place& place) const {
    const isa::Dim rows = RootBuffer(place.root).rows;
    const ir::Dim dim =
        rows.reg < 0 ? ir::Constant(rows.size)
                     : ir::Symbol(lowered_.program.registers[static_cast<size_t>(rows.reg)].name);
    return {dim, ir::Constant(place.cols)};
  }

  // The value as the matrix of `cols` columns.
  View Matrix(ValueId value, int64_t cols) {
    const ValueId alias = layout_.Alias(value);
    if (!IsWeight(alias) && places_[At(alias)].cols == cols) return ViewOf(places_[At(alias)]);
    const auto [found, is_new] = matrices_.try_emplace({alias, cols});
    if (!is_new) return ViewOf(found->second);
    const Shape shape = {ir::DimOf(*Elements(ShapeOf(alias)).DividedBy(cols)), ir::Constant(cols)};
    // Only read by those who ask here, and never written over.
    found->second = {AddTemporary(RowsBuffer(shape, cols, TypeOf(alias)), 1 << 30), 0, cols};
    EmitCopy(Tensor(alias, shape), ViewOf(found->second), shape);
    return ViewOf(found->second);
  }

  // Where the node that makes `value` writes it: as a tensor of `shape`, or, as columns that are
  // part of a join, as the matrix that they are.
  View Destination(ValueId value, const Shape& shape) {
    if (const auto part = layout_.PartOf(value)) {
      DeclareRoot(part->root);
      Settle(value, *part);
      return ViewOf(*part);
    }
    DeclareRoot(value);
    Settle(value, {value, 0, RootBuffer(value).cols});
    View view = ViewOf(places_[At(value)]);
    view.shape = ShapeId(shape);
    return view;
  }
  View Destination(ValueId value) { return Destination(value, ShapeOf(value)); }

  // The value lies there; what else lies there stays until nobody needs the value.
  void Settle(ValueId value, const Place& place) {
    places_[At(value)] = place;
    int& last = last_use_[At(place.root)];
    last = std::max(last, last_use_[At(value)]);
  }

  // Lets the result be written over the first of `readings` that nobody needs any more and that is
  // read, element by element, just where the result is written.
  bool TakeOver(ValueId value, const Shape& shape, const std::vector<Reading>& readings) {
    if (layout_.PartOf(value) || layout_.OutputOf(value) != ir::kNoValue) return false;
    for (const Reading& reading : readings) {
      const ValueId alias = layout_.Alias(reading.value);
      if (IsWeight(alias) || reading.shape != shape || TypeOf(alias) != TypeOf(value)) continue;
      const Place place = places_[At(alias)];
      const bool elsewhere = std::ranges::all_of(readings, [&](const Reading& other) {
        return IsWeight(other.value) || other.shape == shape ||
               places_[At(layout_.Alias(other.value))].root != place.root;
      });
      if (!elsewhere || lowered_.buffer_of_value[At(place.root)] >= 0 || !IsWhole(place) ||
          place.cols != layout_.Cols(value) || last_use_[At(place.root)] > position_)
        continue;
      Settle(value, place);
      return true;
    }
    return false;
  }

  View InPlaceOrNew(ValueId value, const Shape& shape, const std::vector<Reading>& readings) {
    if (!TakeOver(value, shape, readings)) return Destination(value, shape);
    View view = ViewOf(places_[At(value)]);
    view.shape = ShapeId(shape);
    return view;
  }

  // ---- instructions ----

  void Emit(Opcode op, std::vector<View> operands, std::vector<int64_t> attributes = {}) {
    LoweredInstruction lowered;
    lowered.instruction.op = op;
    std::ranges::copy(attributes, lowered.instruction.attributes.begin());
    lowered.operands = std::move(operands);
    lowered_.instructions.push_back(std::move(lowered));
  }

  // As isa::copy has it.
  struct Copy {
    std::vector<int64_t> perm;
    Shape begin;
    std::vector<int64_t> step;
    Shape window;
    Shape at;
    std::vector<int64_t> gap;
  };
  // All of `shape`, to the same place.
  static Copy CopyOf(const Shape& shape) {
    const size_t rank = shape.size();
    return {Identity(rank), Shape(rank, ir::Constant(0)), std::vector<int64_t>(rank, 1),
            shape,          Shape(rank, ir::Constant(0)), std::vector<int64_t>(rank, 1)};
  }
  void EmitCopy(const View& x, const View& y, const Copy& copy) {
    Emit(Opcode::kCopy, {x, y},
         {ListId(copy.perm), ShapeId(copy.begin), ListId(copy.step), ShapeId(copy.window),
          ShapeId(copy.at), ListId(copy.gap)});
  }
  void EmitCopy(const View& x, const View& y, const Shape& shape) { EmitCopy(x, y, CopyOf(shape)); }

  void CopyToOutput(ValueId output) {
    const ValueId place = AddTemporary({}, 1 << 30);
    const int64_t cols = TrailingConstant(ShapeOf(output));
    DeclareOutput(place, output, cols);
    View y{.value = place, .cols = cols, .shape = ShapeId(ShapeOf(output))};
    EmitCopy(Tensor(output), y, ShapeOf(output));
  }

  Result<void> LowerNode(const Node& node) {
    const auto& in = node.inputs;
    const ValueId y = node.output;
    const auto integer = [&node](const char* name) { return ir::IntAttribute(node, name); };
    const auto list = [&](const char* name) { return ListId(ir::ListAttribute(node, name)); };
    switch (node.op) {
      case Op::kReshape:
        return {};  // the same place
      case Op::kMap:
        LowerMap(node);
        return {};
      case Op::kDense:
        LowerDense(node);
        return {};
      case Op::kEmbeddingBag:
        LowerEmbeddingBag(node);
        return {};
      case Op::kTranspose: {
        Copy copy = CopyOf(ShapeOf(y));
        copy.perm = ir::ListAttribute(node, "perm");
        CopyTo(in[0], y, copy);
        return {};
      }
      case Op::kStridedSlice:
        LowerSlice(node);
        return {};
      case Op::kExpand:
        LowerExpand(node);
        return {};
      case Op::kJoin:
        LowerJoin(node);
        return {};
      case Op::kPad:
        LowerPad(node);
        return {};
      case Op::kScatter:
        LowerScatter(node);
        return {};
      case Op::kReduce:
        Simple(Opcode::kReduce, node, {integer("kind"), list("axes")});
        return {};
      case Op::kContract:
        Simple(Opcode::kContract, node, {integer("transpose_a"), integer("transpose_b")});
        return {};
      case Op::kConv:
        Simple(Opcode::kConv, node,
               {list("strides"), list("pads_begin"), list("pads_end"), list("dilations"),
                integer("groups")});
        return {};
      case Op::kPool:
        Simple(Opcode::kPool, node,
               {integer("kind"), list("kernel"), list("strides"), list("pads_begin"),
                list("pads_end"), list("dilations"), integer("count_padding")});
        return {};
      case Op::kTake:
        Simple(Opcode::kTake, node, {integer("axis"), integer("policy")});
        return {};
      case Op::kTakeAlong:
        Simple(Opcode::kTakeAlong, node, {integer("axis"), integer("policy")});
        return {};
      case Op::kGatherNd:
        Simple(Opcode::kGatherNd, node, {integer("batch_dims"), integer("policy")});
        return {};
      case Op::kTopK:
        Simple(Opcode::kTopK, node, {integer("largest")});
        return {};
      case Op::kCumulate:
        Simple(Opcode::kCumulate, node,
               {integer("kind"), integer("axis"), integer("exclusive"), integer("reverse")});
        return {};
      case Op::kSoftmax:
        InPlace(Opcode::kSoftmax, node, {integer("log")});
        return {};
      case Op::kLayerNorm:
        InPlace(Opcode::kLayerNorm, node,
                {std::bit_cast<int64_t>(ir::FloatAttribute(node, "epsilon"))});
        return {};
      default:
        return Unsupported(std::string("no instruction carries out ") + ir::Name(node.op) +
                           " in a graph of tensors (for '" + graph_.value(y).name + "')");
    }
  }

  std::vector<View> Operands(const Node& node) {
    std::vector<View> operands;
    for (const ValueId input : node.inputs)
      operands.push_back(input == ir::kNoValue ? View{} : Tensor(input));
    return operands;
  }

  // Operands are the node's, and the result comes last.
  void Simple(Opcode op, const Node& node, std::vector<int64_t> attributes) {
    std::vector<View> operands = Operands(node);
    operands.push_back(Destination(node.output));
    Emit(op, std::move(operands), std::move(attributes));
  }

  // The same, of an instruction that may write over its first operand.
  void InPlace(Opcode op, const Node& node, std::vector<int64_t> attributes) {
    std::vector<View> operands = Operands(node);
    operands.push_back(InPlaceOrNew(node.output, ShapeOf(node.output),
                                    {{node.inputs[0], ShapeOf(node.inputs[0])}}));
    Emit(op, std::move(operands), std::move(attributes));
  }

  void CopyTo(ValueId x, ValueId y, const Copy& copy) {
    const View from = Tensor(x);
    EmitCopy(from, Destination(y), copy);
  }

  void LowerMap(const Node& node) {
    const Shape& shape = ir::ShapeAttribute(node, "shape");
    Shape result = shape;
    std::vector<Reading> readings;
    if (const auto split = SplitFor(node)) {
      for (const ValueId input : node.inputs)
        readings.push_back({input, *Layout::MatrixShape(ShapeOf(input), shape, *split)});
      const auto middle = shape.begin() + static_cast<std::ptrdiff_t>(*split);
      result = {ir::DimOf(Elements({shape.begin(), middle})),
                ir::DimOf(Elements({middle, shape.end()}))};
    } else {
      for (const ValueId input : node.inputs) readings.push_back({input, ShapeOf(input)});
    }
    std::vector<View> operands(isa::map::kY + 1);
    for (size_t i = 0; i < readings.size(); ++i) operands[i] = Tensor(readings[i]);
    operands[isa::map::kY] = InPlaceOrNew(node.output, result, readings);
    Emit(Opcode::kMap, std::move(operands),
         {ListId(ir::ListAttribute(node, "code")), ShapeId(ir::ShapeAttribute(node, "sizes"))});
  }

  // How to take a map's tensors for matrices, where one of them is some columns of a buffer.
  std::optional<size_t> SplitFor(const Node& map) {
    if (const auto part = layout_.PartOf(map.output)) return layout_.MatrixSplit(map, part->cols);
    for (const ValueId input : map.inputs) {
      if (IsWeight(input)) continue;
      const Place& place = places_[At(layout_.Alias(input))];
      if (IsWhole(place)) continue;
      const auto split = layout_.MatrixSplit(map, place.cols);
      if (split) return split;
    }
    return std::nullopt;
  }

  void LowerDense(const Node& node) {
    const auto& in = node.inputs;
    const bool transposed = ir::IntAttribute(node, "transposed") == 1;
    const int32_t weight = PackedWeight(in[1], transposed);
    const isa::Buffer packed = lowered_.program.buffers[static_cast<size_t>(weight)];
    const int64_t n = packed.rows.size;
    const View x = Activations(in[0], packed);
    const View bias = in[2] == ir::kNoValue ? View{} : WholeBuffer(RawWeight(in[2]));
    auto epilogue =
        ir::IntAttribute(node, "relu") == 1 ? isa::Epilogue::kRelu : isa::Epilogue::kNone;
    View residual;
    std::vector<Reading> readings;
    if (in[3] != ir::kNoValue) {
      epilogue = isa::Epilogue::kAdd;
      residual = Matrix(in[3], n);
      if (places_[At(layout_.Alias(in[3]))].root != places_[At(layout_.Alias(in[0]))].root)
        readings.push_back({in[3], ShapeOf(node.output)});
    }
    if (layout_.PartOf(node.output) || layout_.Cols(node.output) == n) {
      View y = InPlaceOrNew(node.output, ShapeOf(node.output), readings);
      y.shape = -1;
      Emit(Opcode::kMatMul, {x, WholeBuffer(weight), bias, residual, y},
           {static_cast<int64_t>(epilogue)});
      return;
    }
    const Shape shape = {ir::DimOf(*Elements(ShapeOf(node.output)).DividedBy(n)), ir::Constant(n)};
    const View made = {.value = AddTemporary(RowsBuffer(shape, n, DType::kF32), position_),
                       .cols = n};
    Emit(Opcode::kMatMul, {x, WholeBuffer(weight), bias, residual, made},
         {static_cast<int64_t>(epilogue)});
    EmitCopy(made, Destination(node.output, shape), shape);
  }

  // x as a weight of this type takes it: as it is, or quantised, once for all who take it.
  View Activations(ValueId x, const isa::Buffer& weight) {
    if (!IsBlockType(weight.dtype) || options_.weight_only) return Matrix(x, weight.cols);
    const auto [found, is_new] = quantised_.try_emplace({layout_.Alias(x), weight.cols});
    if (!is_new) return found->second;
    const View rows = Matrix(x, weight.cols);
    found->second = {.value = AddTemporary({.form = isa::Form::kQuantised,
                                            .dtype = DType::kI8,
                                            .rows = RootBuffer(rows.value).rows,
                                            .cols = weight.cols},
                                           1 << 30),
                     .cols = weight.cols};
    Emit(Opcode::kQuantise, {rows, found->second});
    return found->second;
  }

  void LowerEmbeddingBag(const Node& node) {
    const auto& in = node.inputs;
    const int32_t table = Table(in[0]);
    const int64_t dim = ShapeOf(in[0])[1].size;
    const ir::Dim bags = ir::DimOf(*Elements(ShapeOf(node.output)).DividedBy(dim));
    const bool has_offsets = in[2] != ir::kNoValue;
    const Shape items = has_offsets ? ShapeOf(in[1]) : Shape{bags, ShapeOf(in[1]).back()};
    std::vector<View> operands = {WholeBuffer(table), Tensor(in[1], items)};
    operands.push_back(has_offsets ? Tensor(in[2]) : View{});
    operands.push_back(in[3] == ir::kNoValue ? View{} : Tensor(in[3], items));
    operands.push_back(Destination(node.output, {bags, ir::Constant(dim)}));
    std::vector<int64_t> attributes;
    for (const char* name : {"mode", "ends", "policy", "default_row", "padding_row"})
      attributes.push_back(ir::IntAttribute(node, name));
    Emit(Opcode::kEmbeddingBag, std::move(operands), std::move(attributes));
  }

  // Some columns of all rows are a view; else a copy.
  void LowerSlice(const Node& node) {
    const ValueId x = layout_.Alias(node.inputs[0]);
    const auto columns = ColumnsOf(graph_, node);
    if (columns && !IsWeight(x) && layout_.OutputOf(node.output) == ir::kNoValue &&
        places_[At(x)].cols == columns->of) {
      const Place& whole = places_[At(x)];
      Settle(node.output, {whole.root, whole.begin + columns->begin, columns->cols});
      return;
    }
    Copy copy = CopyOf(ShapeOf(node.output));
    copy.begin = ir::ShapeAttribute(node, "begin");
    copy.step = ir::ListAttribute(node, "step");
    CopyTo(node.inputs[0], node.output, copy);
  }

  void LowerExpand(const Node& node) {
    const Shape& shape = ShapeOf(node.output);
    Shape x(shape.size() - ShapeOf(node.inputs[0]).size(), ir::Constant(1));
    std::ranges::copy(ShapeOf(node.inputs[0]), std::back_inserter(x));
    Copy copy = CopyOf(shape);
    for (size_t i = 0; i < shape.size(); ++i) copy.step[i] = x[i] == shape[i] ? 1 : 0;
    const View from = Tensor(node.inputs[0], x);
    EmitCopy(from, Destination(node.output), copy);
  }

  void LowerJoin(const Node& node) {
    if (layout_.IsJoinedInPlace(node.output)) {
      JoinColumns(node);
      return;
    }
    const auto axis = static_cast<size_t>(ir::IntAttribute(node, "axis"));
    std::vector<View> parts = Operands(node);
    const View y = Destination(node.output);
    Size at = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const Shape& part = ShapeOf(node.inputs[i]);
      Copy copy = CopyOf(part);
      copy.at[axis] = ir::DimOf(at);
      EmitCopy(parts[i], y, copy);
      at = *at.Plus(ir::SizeOf(part[axis]));  // as the shape rule did
    }
  }

  // What could be written in place is there already.
  void JoinColumns(const Node& node) {
    Destination(node.output);
    Place next = places_[At(node.output)];
    const Size rows = *Elements(ShapeOf(node.output)).DividedBy(next.cols);
    const ir::Dim row_dim = ir::DimOf(rows);
    for (const ValueId input : node.inputs) {
      const auto axis = static_cast<size_t>(ir::IntAttribute(node, "axis"));
      const Shape& part = ShapeOf(input);
      next.cols =
          *Elements({part.begin() + static_cast<std::ptrdiff_t>(axis), part.end()}).Constant();
      if (layout_.PartOf(layout_.Alias(input)) != next) {
        const Shape shape = {row_dim, ir::Constant(next.cols)};
        EmitCopy(Tensor(input, shape), ViewOf(next), shape);
      }
      next.begin += next.cols;
    }
  }

  void LowerPad(const Node& node) {
    const Shape& x = ShapeOf(node.inputs[0]);
    const DType type = TypeOf(node.output);
    const double value = ir::FloatAttribute(node, "value");
    Expression fill;
    if (IsFloat(type))
      fill.Constant(type, value);
    else  // as the type has it, whatever the number
      fill.Apply(MapOp::kCast, type, {fill.Constant(DType::kF64, value)});
    const View from = Tensor(node.inputs[0]);
    std::vector<View> operands(isa::map::kY + 1);
    operands[isa::map::kY] = Destination(node.output);
    Copy copy = CopyOf(x);
    for (size_t i = 0; i < x.size(); ++i) {
      copy.at[i] = ir::Constant(ir::ListAttribute(node, "before")[i]);
      copy.gap[i] = ir::ListAttribute(node, "interior")[i] + 1;
    }
    const View y = operands[isa::map::kY];
    Emit(Opcode::kMap, std::move(operands), {ListId(fill.Encode()), ShapeId({})});
    EmitCopy(from, y, copy);
  }

  void LowerScatter(const Node& node) {
    const auto& in = node.inputs;
    const Shape& shape = ShapeOf(node.output);
    const View x = Tensor(in[0]), index = Tensor(in[1]), updates = Tensor(in[2]);
    // Not over an x that is its own index or updates, even where they have its shape.
    const bool alone = layout_.Alias(in[0]) != layout_.Alias(in[1]) &&
                       layout_.Alias(in[0]) != layout_.Alias(in[2]) && x.value != index.value &&
                       x.value != updates.value;
    std::vector<Reading> readings;
    if (alone) readings.push_back({in[0], shape});
    const bool in_place = TakeOver(node.output, shape, readings);
    View y = in_place ? x : Destination(node.output);
    if (!in_place) EmitCopy(x, y, shape);
    Emit(Opcode::kScatter, {index, updates, y},
         {ir::IntAttribute(node, "mode"), ir::IntAttribute(node, "axis"),
          ir::IntAttribute(node, "reduction"), ir::IntAttribute(node, "policy")});
  }

  const Graph& graph_;
  const Options& options_;
  PackPlan& packing_;
  std::vector<Conversion>& conversions_;
  const Layout layout_;
  Lowered lowered_;
  std::vector<Place> places_;  // by alias; of weights: none
  std::vector<int> last_use_;  // by alias or temporary: the last node that needs what lies there
  std::map<ValueId, int32_t> raw_, tables_;  // buffers of weights
  std::map<std::pair<ValueId, bool>, int32_t> packed_;
  std::map<std::pair<ValueId, int64_t>, Place> matrices_;  // copies, by alias and columns
  std::map<std::pair<ValueId, int64_t>, View> quantised_;
  std::map<std::string, int32_t> registers_;
  std::map<std::vector<std::pair<int32_t, int64_t>>, int32_t> shapes_;
  std::map<std::vector<int64_t>, int64_t> lists_;
  std::map<std::pair<DType, DType>, Conversion> converted_;
  std::set<std::string> names_;  // of buffers
  std::string unsized_;          // a size that no register can hold
  int position_ = 0;
};

}  // namespace

Result<Lowered> LowerTensor(const Graph& graph, const Options& options, PackPlan& packing,
                            std::vector<Conversion>& conversions) {
  return TensorLowering(graph, options, packing, conversions).Run();
}

}  // namespace millpower::compile
