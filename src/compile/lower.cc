// Nodes become instructions. A slice costs nothing: it becomes a view. A result takes the place of
// an operand that nobody needs any more, where the instruction allows it.
#include <algorithm>

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
  Lowering(const Graph& graph, const Options& options, PackPlan& packing)
      : graph_(graph), options_(options), packing_(packing) {}

  Result<Lowered> Run() {
    const size_t values = graph_.values().size();
    lowered_.buffer_of_value.assign(values, -1);
    views_.resize(values);
    FindLastUses();
    DeclareRegisters();
    isa::Program& program = lowered_.program;
    program.name = graph_.name;
    program.facts = graph_.facts;
    TRY(DeclareInputs());
    for (const ValueId output : graph_.outputs())
      if (graph_.value(output).kind != ValueKind::kNode)
        return Unsupported("output '" + graph_.value(output).name + "' is not computed");
    for (size_t i = 0; i < graph_.nodes().size(); ++i) {
      position_ = static_cast<int>(i);
      TRY(LowerNode(graph_.nodes()[i]));
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

  void DeclareRegisters() {
    for (const ir::SymbolBound& symbol : graph_.symbols())
      lowered_.program.registers.push_back({symbol.name, symbol.max, false});
  }

  isa::Dim DimOf(const ir::Dim& dim) const {
    if (dim.symbol.empty()) return {-1, dim.size};
    return {lowered_.program.FindRegister(dim.symbol), 0};
  }

  int32_t AddBuffer(isa::Buffer buffer) {
    lowered_.program.buffers.push_back(std::move(buffer));
    return static_cast<int32_t>(lowered_.program.buffers.size()) - 1;
  }

  Result<void> DeclareInputs() {
    for (size_t i = 0; i < graph_.values().size(); ++i) {
      const ir::Value& value = graph_.values()[i];
      if (value.kind != ValueKind::kInput) continue;
      if (value.dtype != DType::kI32 || value.shape.empty() || value.shape.size() > 2)
        return Unsupported("input '" + value.name + "' is not a list or table of i32");
      isa::Buffer buffer{.name = value.name,
                         .kind = isa::BufferKind::kInput,
                         .form = isa::Form::kRows,
                         .dtype = DType::kI32,
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
    if (!value.values.empty()) {
      packing_[value.name] = {PackRule::Kind::kValues, {}, value.values};
    } else if (!packing_.contains(value.name)) {
      packing_[value.name] = {PackRule::Kind::kConcat, {value.name}, {}};
    }
    isa::Buffer declared{.name = value.name, .kind = isa::BufferKind::kWeight};
    if (packed) {
      declared.form = isa::Form::kPacked;
      declared.dtype = PackedType(value.dtype);
      declared.rows = {-1, value.shape[0].size};
      declared.cols = value.shape[1].size;
    } else {
      declared.rows = {-1, 1};
      declared.cols = value.shape[0].size;
    }
    buffer = AddBuffer(std::move(declared));
    return buffer;
  }

  DType PackedType(DType file_type) const {
    return options_.weight_type.value_or(file_type == DType::kBf16 ? DType::kBf16 : DType::kF32);
  }

  // Gate and up as one weight, 16 channels of each in turn, so that one block of registers holds
  // both sides of a product. Channels that fill up the last 16 are zeros.
  int32_t GatedWeight(ValueId gate, ValueId up) {
    const ir::Value& a = graph_.value(gate);
    const ir::Value& b = graph_.value(up);
    const std::string name = a.name + ".gated";
    packing_[name] = {PackRule::Kind::kInterleave, {a.name, b.name}, {}};
    return AddBuffer({.name = name,
                      .kind = isa::BufferKind::kWeight,
                      .form = isa::Form::kPacked,
                      .dtype = PackedType(a.dtype == b.dtype ? a.dtype : DType::kF32),
                      .rows = {-1, 2 * isa::PackedBlocks(a.shape[0].size) * isa::kLanes},
                      .cols = a.shape[1].size});
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
      case Op::kGatedLinear: {
        const int32_t weight = GatedWeight(in[1], in[2]);
        View y = ViewOf(node.output);
        y.cols = isa::PackedBlocks(y.cols) * isa::kLanes;  // readers take the channels they know
        lowered_.stored_cols[node.output] = y.cols;
        Emit(isa::Opcode::kMatMul, {ViewOf(in[0]), BufferView(weight), {}, {}, y},
             {static_cast<int64_t>(isa::Epilogue::kSiluGate)});
        return {};
      }
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
      case Op::kSample:
        Emit(isa::Opcode::kSample,
             {ViewOf(in[0]), ViewOf(in[1]), ViewOf(in[2]), ViewOf(in[3]), ViewOf(node.output)});
        return {};
      default:
        return Unsupported(std::string("no instruction carries out ") + ir::Name(node.op) +
                           " (for '" + graph_.value(node.output).name + "')");
    }
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
    Emit(
        isa::Opcode::kMatMul,
        {ViewOf(in[0]), BufferView(WeightBuffer(in[1], true)), bias, residual, ViewOf(node.output)},
        {static_cast<int64_t>(epilogue)});
    return {};
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
    const View cache =
        BufferView(AddBuffer({.name = "kv." + std::to_string(ir::IntAttribute(node, "layer")),
                              .kind = isa::BufferKind::kKv,
                              .form = isa::Form::kPages,
                              .dtype = options_.kv_type.value_or(DType::kBf16),
                              .rows = entries.bound,
                              .cols = ir::IntAttribute(node, "head_dim"),
                              .heads = ir::IntAttribute(node, "kv_heads")}));
    Emit(isa::Opcode::kKvAppend, {ViewOf(in[1]), ViewOf(in[2]), sequences, pages, cache});
    Emit(isa::Opcode::kAttention, {ViewOf(in[0]), sequences, pages, cache, ViewOf(node.output)},
         {ir::IntAttribute(node, "heads"), Real(ir::FloatAttribute(node, "scale"))});
    return {};
  }

  const Graph& graph_;
  const Options& options_;
  PackPlan& packing_;
  Lowered lowered_;
  std::vector<View> views_;    // by value; kNoValue: the value has a place of its own
  std::vector<int> last_use_;  // by value: position of the last node that reads it
  int position_ = 0;
};

}  // namespace

Result<Lowered> Lower(const Graph& graph, const Options& options, PackPlan& packing) {
  return Lowering(graph, options, packing).Run();
}

}  // namespace millpower::compile
