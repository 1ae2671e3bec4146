// Nodes become instructions. A slice costs nothing: it becomes a view. A result takes the place of
// an operand that nobody needs any more, where the instruction allows it.
#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "compile/passes.h"
#include "isa/sampling.h"

namespace millpower::compile {
namespace {

using ir::Graph;
using ir::Node;
using ir::Op;
using ir::ValueId;
using ir::ValueKind;

class Lowering {
 public:
  Lowering(const Graph& graph, const Options& options, const StoredTypes& types, PackPlan& packing)
      : graph_(graph), options_(options), types_(types), packing_(packing) {}

  Result<Lowered> Run() {
    const size_t values = graph_.values().size();
    lowered_.buffer_of_value.assign(values, -1);
    views_.resize(values);
    FindLastUses();
    DeclareRegisters();
    for (const ir::Value& value : graph_.values())
      lowered_.scratch.push_back(value.kind == ValueKind::kNode && value.shape.size() == 2
                                     ? Rows(DimOf(value.shape[0]), value.shape[1].size, value.dtype)
                                     : isa::Buffer{});
    isa::Program& program = lowered_.program;
    program.name = graph_.name;
    program.facts = graph_.facts;
    TRY(DeclareInputs());
    for (const ValueId output : graph_.outputs())
      if (graph_.value(output).kind != ValueKind::kNode)
        return Unsupported("output '" + graph_.value(output).name + "' is not computed");
    const std::vector<Node>& nodes = graph_.nodes();
    for (size_t i = 0; i < nodes.size(); ++i) {
      position_ = static_cast<int>(i);
      if (nodes[i].op == Op::kExperts && i + 1 < nodes.size() &&
          IsResidualOf(nodes[i + 1], nodes[i])) {
        position_ = static_cast<int>(++i);  // both at once
        TRY(LowerExperts(nodes[i - 1], nodes[i].inputs[nodes[i].inputs[0] == nodes[i - 1].output],
                         nodes[i].output));
        if (IsOutput(nodes[i].output)) DeclareOutput(nodes[i].output);
        continue;
      }
      TRY(LowerNode(nodes[i]));
    }
    return std::move(lowered_);
  }

 private:
  // A slice is used where any view of it is used, so last uses are followed through slices.
  void FindLastUses() {
    last_use_.assign(graph_.values().size(), -1);
    for (size_t i = 0; i < graph_.nodes().size(); ++i)
      for (const ValueId input : graph_.nodes()[i].inputs)
        if (input != ir::kNoValue) last_use_[static_cast<size_t>(input)] = static_cast<int>(i);
    for (const ValueId output : graph_.outputs())
      last_use_[static_cast<size_t>(output)] = static_cast<int>(graph_.nodes().size());
  }

  // Whether `add` adds what `node` makes, which nobody else needs, to something.
  bool IsResidualOf(const Node& add, const Node& node) const {
    const bool one_side =
        add.op == Op::kAdd && (add.inputs[0] == node.output) != (add.inputs[1] == node.output);
    return one_side && last_use_[static_cast<size_t>(node.output)] == position_ + 1;
  }

  void DeclareRegisters() {
    for (const ir::SymbolBound& symbol : graph_.symbols())
      lowered_.program.registers.push_back({symbol.name, symbol.max, false});
    lowered_.program.ranks = static_cast<int32_t>(graph_.ranks);
    if (graph_.ranks > 1)
      lowered_.program.registers.push_back({isa::kRankRegister, graph_.ranks - 1, true});
  }

  isa::Dim DimOf(const ir::Dim& dim) const {
    if (dim.symbol.empty()) return {-1, dim.size};
    return {lowered_.program.FindRegister(dim.symbol), 0};
  }

  static isa::Buffer Rows(isa::Dim rows, int64_t cols, DType type = DType::kF32) {
    return {.form = isa::Form::kRows, .dtype = type, .rows = rows, .cols = cols};
  }

  // A value that only instructions know of, as a whole.
  View AddTemporary(isa::Buffer scratch) {
    const auto id = static_cast<ValueId>(lowered_.buffer_of_value.size());
    const int64_t cols = scratch.cols;
    lowered_.buffer_of_value.push_back(-1);
    lowered_.scratch.push_back(std::move(scratch));
    return {.value = id, .cols = cols};
  }

  int32_t AddBuffer(isa::Buffer buffer) {
    lowered_.program.buffers.push_back(std::move(buffer));
    return static_cast<int32_t>(lowered_.program.buffers.size()) - 1;
  }

  Result<void> DeclareInputs() {
    for (size_t i = 0; i < graph_.values().size(); ++i) {
      const ir::Value& value = graph_.values()[i];
      if (value.kind != ValueKind::kInput) continue;
      if ((value.dtype != DType::kI32 && value.dtype != DType::kF32) || value.shape.empty() ||
          value.shape.size() > 2)
        return Unsupported("input '" + value.name + "' is not a list or table of i32 or f32");
      isa::Buffer buffer{.name = value.name,
                         .kind = isa::BufferKind::kInput,
                         .form = isa::Form::kRows,
                         .dtype = value.dtype,
                         .rows = DimOf(value.shape[0]),
                         .cols = value.shape.size() == 2 ? value.shape[1].size : 1};
      if (value.index_bound) {
        buffer.has_bound = true;
        buffer.bound = DimOf(*value.index_bound);
      }
      lowered_.buffer_of_value[i] = AddBuffer(std::move(buffer));
    }
    return {};
  }

  static std::unexpected<Error> Unsupported(std::string message) {
    return Fail(ErrorCode::kUnsupported, std::move(message));
  }

  // The buffer of a weight, declared at its first use: packed for a matrix, f32 rows for a vector.
  int32_t WeightBuffer(ValueId id, bool packed) {
    int32_t& buffer = lowered_.buffer_of_value[static_cast<size_t>(id)];
    const ir::Value& value = graph_.value(id);
    if (buffer >= 0) return buffer;
    if (!value.values.empty())
      packing_[value.name] = {.kind = PackRule::Kind::kValues, .values = value.values};
    else
      packing_[value.name] = {.slices = SlicesOf(value, packing_),
                              .cols = packed ? value.shape[1].size : 0};
    isa::Buffer declared{.name = value.name, .kind = isa::BufferKind::kWeight};
    if (packed) {
      declared.form = isa::Form::kPacked;
      declared.dtype = TypeOf(id);
      declared.rows = {-1, value.shape[0].size};
      declared.cols = value.shape[1].size;
    } else {
      declared.rows = {-1, 1};
      declared.cols = value.shape[0].size;
    }
    buffer = AddBuffer(std::move(declared));
    return buffer;
  }

  DType TypeOf(ValueId weight) const { return types_[static_cast<size_t>(weight)]; }

  View AddWeight(std::string name, DType type, int64_t rows, int64_t cols, PackRule rule) {
    packing_[name] = std::move(rule);
    return BufferView(AddBuffer({.name = std::move(name),
                                 .kind = isa::BufferKind::kWeight,
                                 .form = isa::Form::kPacked,
                                 .dtype = type,
                                 .rows = {-1, rows},
                                 .cols = cols}));
  }

  // Gate and up as one weight, 16 channels of each in turn, so that one block of registers holds
  // both sides of a product. Each is filled up with channels of zeros to `channels`, of every
  // expert (0: there are none).
  View GatedWeight(ValueId gate, ValueId up, int64_t experts, int64_t channels) {
    const ir::Value& a = graph_.value(gate);
    return AddWeight(a.name + ".gated", TypeOf(gate), std::max<int64_t>(experts, 1) * 2 * channels,
                     a.shape.back().size,
                     {.kind = PackRule::Kind::kInterleave,
                      .slices = SlicesOf(a, packing_),
                      .others = SlicesOf(graph_.value(up), packing_),
                      .cols = a.shape.back().size,
                      .experts = experts});
  }

  static int64_t RoundUp(int64_t size, int64_t multiple) {
    return (size + multiple - 1) / multiple * multiple;
  }

  // What rows are quantised to for weights of this type; absent: they are taken as they are.
  std::optional<DType> ActivationType(DType weight_type) const {
    if (!IsQuantisedType(weight_type) || options_.weight_only) return std::nullopt;
    return weight_type == DType::kF8E4M3 ? DType::kF8E4M3 : DType::kI8;
  }

  // `x` as a weight of this type takes it: as it is, or quantised.
  View Activations(View x, DType weight_type) {
    const auto type = ActivationType(weight_type);
    if (!type) return x;
    View quantised = AddTemporary(
        {.form = isa::Form::kQuantised, .dtype = *type, .rows = RowsOf(x), .cols = x.cols});
    Emit(isa::Opcode::kQuantise, {x, quantised});
    return quantised;
  }

  // The same of a value of the graph, which is quantised to a type once for all that take it.
  View Activations(ValueId x, DType weight_type) {
    const auto type = ActivationType(weight_type);
    if (!type) return ViewOf(x);
    const auto [found, added] = quantised_.try_emplace({x, *type});
    if (added) found->second = Activations(ViewOf(x), weight_type);
    return found->second;
  }

  isa::Dim RowsOf(const View& view) const {
    const int32_t buffer = view.buffer != isa::kNoBuffer
                               ? view.buffer
                               : lowered_.buffer_of_value[static_cast<size_t>(view.value)];
    return buffer >= 0 ? lowered_.program.buffers[static_cast<size_t>(buffer)].rows
                       : lowered_.scratch[static_cast<size_t>(view.value)].rows;
  }

  // The value's place: its own, or columns of another's.
  View ViewOf(ValueId id) const {
    const View& view = views_[static_cast<size_t>(id)];
    if (view.value != ir::kNoValue) return view;
    const ir::Shape& shape = graph_.value(id).shape;
    return {.value = id, .cols = shape.size() == 2 ? shape[1].size : 1};
  }

  View BufferView(int32_t buffer) const {
    return {.cols = lowered_.program.buffers[static_cast<size_t>(buffer)].cols, .buffer = buffer};
  }

  // Whether anything later than this node reads the columns that `id` occupies.
  bool NeededLater(ValueId id) const {
    const View view = ViewOf(id);
    for (size_t other = 0; other < views_.size(); ++other) {
      if (last_use_[other] <= position_) continue;
      const View there = ViewOf(static_cast<ValueId>(other));
      if (there.value == view.value && there.begin < view.begin + view.cols &&
          view.begin < there.begin + there.cols)
        return true;
    }
    return false;
  }

  // Lets `output` live where `input` does, if nobody needs `input` any more.
  bool TakeOver(ValueId output, ValueId input) {
    if (graph_.value(input).kind != ValueKind::kNode || NeededLater(input) || IsOutput(output))
      return false;
    views_[static_cast<size_t>(output)] = ViewOf(input);
    return true;
  }

  bool IsOutput(ValueId id) const {
    return std::ranges::find(graph_.outputs(), id) != graph_.outputs().end();
  }

  void Emit(isa::Opcode op, std::vector<View> operands, std::vector<int64_t> attributes = {}) {
    LoweredInstruction lowered;
    lowered.instruction.op = op;
    std::ranges::copy(attributes, lowered.instruction.attributes.begin());
    lowered.operands = std::move(operands);
    lowered_.instructions.push_back(std::move(lowered));
  }

  static int64_t Real(double value) { return std::bit_cast<int64_t>(value); }

  Result<void> LowerNode(const Node& node) {
    if (node.op == Op::kSlice) {
      if (IsOutput(node.output))
        return Unsupported("output '" + graph_.value(node.output).name +
                           "' is a slice, which has no place of its own");
      View view = ViewOf(node.inputs[0]);
      view.begin += ir::IntAttribute(node, "begin");
      view.cols = ir::IntAttribute(node, "size");
      views_[static_cast<size_t>(node.output)] = view;
      return {};
    }
    TRY(LowerOperation(node));
    if (IsOutput(node.output)) DeclareOutput(node.output);
    return {};
  }

  void DeclareOutput(ValueId id) {
    const ir::Value& value = graph_.value(id);
    lowered_.buffer_of_value[static_cast<size_t>(id)] = AddBuffer({.name = value.name,
                                                                   .kind = isa::BufferKind::kOutput,
                                                                   .form = isa::Form::kRows,
                                                                   .dtype = value.dtype,
                                                                   .rows = DimOf(value.shape[0]),
                                                                   .cols = value.shape[1].size});
  }

  Result<void> LowerOperation(const Node& node) {
    const auto& in = node.inputs;
    switch (node.op) {
      case Op::kEmbedding:
        Emit(isa::Opcode::kGather,
             {BufferView(WeightBuffer(in[0], true)), ViewOf(in[1]), ViewOf(node.output)});
        return {};
      case Op::kSelectRows:
        Emit(isa::Opcode::kGather, {ViewOf(in[0]), ViewOf(in[1]), ViewOf(node.output)});
        return {};
      case Op::kRmsNorm:
        TakeOver(node.output, in[0]);
        Emit(isa::Opcode::kRmsNorm,
             {ViewOf(in[0]), BufferView(WeightBuffer(in[1], false)), ViewOf(node.output)},
             {ir::IntAttribute(node, "group"), Real(ir::FloatAttribute(node, "epsilon"))});
        return {};
      case Op::kLinear:
        return LowerLinear(node);
      case Op::kGatedLinear:
        LowerGatedLinear(node);
        return {};
      case Op::kExperts:
        return LowerExperts(node, ir::kNoValue, node.output);
      case Op::kRopeTable:
        Emit(isa::Opcode::kRopeTable,
             {ViewOf(in[0]), BufferView(WeightBuffer(in[1], false)), ViewOf(node.output)},
             {Real(ir::FloatAttribute(node, "scale"))});
        return {};
      case Op::kRope:
        if (!TakeOver(node.output, in[0]))
          return Unsupported("rope of '" + graph_.value(in[0]).name +
                             "', which is needed unrotated later");
        Emit(isa::Opcode::kRope, {ViewOf(node.output), ViewOf(in[1])},
             {ir::IntAttribute(node, "heads")});
        return {};
      case Op::kAttention:
        return LowerAttention(node);
      case Op::kCollective:
        LowerCollective(node);
        return {};
      case Op::kSample:
        Emit(isa::Opcode::kSample,
             {ViewOf(in[0]), ViewOf(in[1]), ViewOf(in[2]), ViewOf(in[3]), ViewOf(node.output)});
        return {};
      default:
        return Unsupported(std::string("no instruction carries out ") + ir::Name(node.op) +
                           " (for '" + graph_.value(node.output).name + "')");
    }
  }

  void EmitMatMul(View x, View w, View bias, View residual, View y, isa::Epilogue epilogue) {
    Emit(isa::Opcode::kMatMul, {x, w, bias, residual, y}, {static_cast<int64_t>(epilogue)});
  }

  void LowerGatedLinear(const Node& node) {
    const auto& in = node.inputs;
    View y = ViewOf(node.output);
    if (TypeOf(in[1]) !=
        TypeOf(in[2])) {  // no one weight: first the gate, then the product over it
      const View gate = BufferView(WeightBuffer(in[1], true));
      EmitMatMul(Activations(in[0], TypeOf(in[1])), gate, {}, {}, y, isa::Epilogue::kNone);
      const View up = BufferView(WeightBuffer(in[2], true));
      EmitMatMul(Activations(in[0], TypeOf(in[2])), up, {}, y, y, isa::Epilogue::kSiluMul);
      return;
    }
    y.cols = RoundUp(y.cols, isa::kLanes);  // readers take the channels they know
    lowered_.scratch[static_cast<size_t>(node.output)].cols = y.cols;
    const View weight = GatedWeight(in[1], in[2], 0, y.cols);
    EmitMatMul(Activations(in[0], TypeOf(in[1])), weight, {}, {}, y, isa::Epilogue::kSiluGate);
  }

  // y = residual + what the experts make of x; without a residual (kNoValue) that alone.
  Result<void> LowerExperts(const Node& node, ValueId residual, ValueId output) {
    const ValueId x = node.inputs[0], router = node.inputs[1], gate = node.inputs[2],
                  up = node.inputs[3], down = node.inputs[4];
    const int64_t choices = ir::IntAttribute(node, "choices");
    const int64_t experts = graph_.value(gate).shape[0].size;
    const int64_t inner = graph_.value(gate).shape[1].size;
    const int64_t hidden = graph_.value(down).shape[1].size;
    if (experts > isa::kMaxExperts || choices > isa::kMaxChoices)
      return Unsupported("'" + graph_.value(node.output).name + "' chooses " +
                         std::to_string(choices) + " of " + std::to_string(experts) +
                         " experts; at most " + std::to_string(isa::kMaxChoices) + " of " +
                         std::to_string(isa::kMaxExperts) + " can be chosen");
    const isa::Dim rows = RowsOf(ViewOf(x));

    const View scores = AddTemporary(Rows(rows, experts));
    const View router_weight = BufferView(WeightBuffer(router, true));
    EmitMatMul(Activations(x, TypeOf(router)), router_weight, {}, {}, scores, isa::Epilogue::kNone);
    const View list = AddTemporary({.form = isa::Form::kExperts,
                                    .dtype = DType::kI32,
                                    .rows = rows,
                                    .cols = choices,
                                    .heads = experts});
    const View weights = AddTemporary(Rows(rows, choices));
    Emit(isa::Opcode::kRoute, {scores, list, weights}, {ir::IntAttribute(node, "normalise")});

    // What each choice makes begins at a whole group, if the next weight takes it quantised.
    const int64_t channels =
        RoundUp(inner, IsBlockType(TypeOf(down)) ? isa::kQuantGroup : isa::kLanes);
    const View middle = AddTemporary(Rows(rows, choices * channels));
    const View gated = GatedWeight(gate, up, experts, channels);
    Emit(isa::Opcode::kExpertMatMul, {Activations(x, TypeOf(gate)), gated, list, middle},
         {static_cast<int64_t>(isa::Epilogue::kSiluGate)});

    const View made = AddTemporary(Rows(rows, choices * hidden));
    const View down_weight = AddWeight(
        graph_.value(down).name, TypeOf(down), experts * RoundUp(hidden, isa::kLanes), channels,
        {.slices = SlicesOf(graph_.value(down), packing_), .cols = inner, .experts = experts});
    Emit(isa::Opcode::kExpertMatMul, {Activations(middle, TypeOf(down)), down_weight, list, made},
         {static_cast<int64_t>(isa::Epilogue::kNone)});

    View addend;
    if (residual != ir::kNoValue) {
      addend = ViewOf(residual);
      TakeOver(output, residual);
    }
    Emit(isa::Opcode::kCombine, {made, weights, addend, ViewOf(output)});
    return {};
  }

  Result<void> LowerLinear(const Node& node) {
    const auto& in = node.inputs;
    const View bias = in[2] == ir::kNoValue ? View{} : BufferView(WeightBuffer(in[2], false));
    View residual;
    auto epilogue = isa::Epilogue::kNone;
    if (in[3] != ir::kNoValue) {
      epilogue = isa::Epilogue::kAdd;
      residual = ViewOf(in[3]);
      if (in[3] != in[0]) TakeOver(node.output, in[3]);
    }
    const View weight = BufferView(WeightBuffer(in[1], true));
    EmitMatMul(Activations(in[0], TypeOf(in[1])), weight, bias, residual, ViewOf(node.output),
               epilogue);
    return {};
  }

  // A sum takes the place of its residual, or of what it adds up.
  void LowerCollective(const Node& node) {
    const auto& in = node.inputs;
    const int64_t kind = ir::IntAttribute(node, "kind");
    const View residual = in[1] == ir::kNoValue ? View{} : ViewOf(in[1]);
    if (in[1] != ir::kNoValue && in[1] != in[0])
      TakeOver(node.output, in[1]);
    else if (static_cast<isa::Collective>(kind) == isa::Collective::kAllReduce)
      TakeOver(node.output, in[0]);
    Emit(isa::Opcode::kCollective, {ViewOf(in[0]), residual, ViewOf(node.output)}, {kind});
  }

  // Keys and values first go to the cache; attention reads them back from there, its own too.
  Result<void> LowerAttention(const Node& node) {
    const auto& in = node.inputs;
    const View sequences = ViewOf(in[3]);
    const View pages = ViewOf(in[4]);
    const isa::Buffer entries =
        lowered_.program
            .buffers[static_cast<size_t>(lowered_.buffer_of_value[static_cast<size_t>(in[4])])];
    if (!entries.has_bound || entries.bound.reg < 0)
      return Unsupported("'" + entries.name + "' has no symbol as its bound");
    lowered_.program.registers[static_cast<size_t>(entries.bound.reg)].at_load = true;
    const DType kv_type = options_.kv_type.value_or(DType::kBf16);
    if (const int64_t head_dim = ir::IntAttribute(node, "head_dim");
        head_dim % isa::StepsPerLine(kv_type) != 0)
      return Unsupported(std::string("KV pages in ") + Name(kv_type) + ": heads of " +
                         std::to_string(head_dim) + " channels are no multiple of " +
                         std::to_string(isa::StepsPerLine(kv_type)));
    const View cache =
        BufferView(AddBuffer({.name = "kv." + std::to_string(ir::IntAttribute(node, "layer")),
                              .kind = isa::BufferKind::kKv,
                              .form = isa::Form::kPages,
                              .dtype = kv_type,
                              .rows = entries.bound,
                              .cols = ir::IntAttribute(node, "head_dim"),
                              .heads = ir::IntAttribute(node, "kv_heads")}));
    Emit(isa::Opcode::kKvAppend, {ViewOf(in[1]), ViewOf(in[2]), sequences, pages, cache});
    Emit(isa::Opcode::kAttention, {ViewOf(in[0]), sequences, pages, cache, ViewOf(node.output)},
         {ir::IntAttribute(node, "heads"), Real(ir::FloatAttribute(node, "scale")),
          ir::IntAttribute(node, "window")});
    return {};
  }

  const Graph& graph_;
  const Options& options_;
  const StoredTypes& types_;
  PackPlan& packing_;
  Lowered lowered_;
  std::map<std::pair<ValueId, DType>, View> quantised_;  // by value of the graph, and type
  std::vector<View> views_;    // by value; kNoValue: the value has a place of its own
  std::vector<int> last_use_;  // by value: position of the last node that reads it
  int position_ = 0;
};

}  // namespace

Result<Lowered> Lower(const Graph& graph, const Options& options, const StoredTypes& types,
                      PackPlan& packing) {
  return Lowering(graph, options, types, packing).Run();
}

}  // namespace millpower::compile
