#include "compile/compile.h"

#include <algorithm>
#include <map>
#include <set>

#include "compile/passes.h"
#include "isa/verify.h"

namespace millpower::compile {

namespace {

Result<void> CheckOptions(const Options& options) {
  const DType weights = options.weight_type.value_or(DType::kF32);
  if (weights != DType::kF32 && weights != DType::kBf16 && weights != DType::kQ8_0 &&
      weights != DType::kQ4_0 && weights != DType::kF8E4M3)
    return Fail(ErrorCode::kInvalidArgument,
                std::string("weights are not made ") + Name(weights) +
                    "; they can be f32, bf16, q8_0, q4_0 or f8_e4m3, or what the file has");
  const DType kv = options.kv_type.value_or(DType::kBf16);
  if (kv != DType::kF32 && kv != DType::kBf16 && kv != DType::kI8 && kv != DType::kF8E4M3)
    return Fail(ErrorCode::kInvalidArgument, std::string("KV pages cannot be ") + Name(kv) +
                                                 "; they can be f32, bf16, i8 or f8_e4m3");
  const DType table = options.table_type.value_or(DType::kF32);
  if (table != DType::kF32 && table != DType::kBf16 && table != DType::kF16 &&
      table != DType::kI8 && table != DType::kI4)
    return Fail(ErrorCode::kInvalidArgument,
                std::string("tables cannot be ") + Name(table) +
                    "; they can be f32, bf16, f16, i8 or i4, or what the file has");
  return {};
}

bool IsMatrix(const ir::Value& value) {
  return value.kind == ir::ValueKind::kWeight && value.shape.size() >= 2;
}

std::vector<Conversion> FindConversions(const ir::Graph& graph, const StoredTypes& types) {
  std::set<ir::ValueId> used;
  for (const ir::Node& node : graph.nodes()) used.insert(node.inputs.begin(), node.inputs.end());
  std::map<std::pair<DType, DType>, Conversion> found;
  for (const ir::ValueId id : used) {
    if (id == ir::kNoValue || !IsMatrix(graph.value(id))) continue;
    const ir::Value& value = graph.value(id);
    const DType stored = types[static_cast<size_t>(id)];
    if (stored == value.dtype && stored != DType::kQ6_K) continue;
    Conversion& conversion = found[{value.dtype, stored}];
    if (conversion.tensors == 0)
      conversion = {value.dtype, stored, 0,
                    value.slices.empty() ? value.name : value.slices.front().tensor};
    conversion.tensors += std::max<int64_t>(1, std::ssize(value.slices));
  }
  std::vector<Conversion> conversions;
  for (auto& [types_of, conversion] : found) conversions.push_back(std::move(conversion));
  return conversions;
}

}  // namespace

StoredTypes ChooseTypes(const ir::Graph& graph, const Options& options) {
  StoredTypes types;
  auto kept = [](DType file) { return file == DType::kF16 ? DType::kF32 : file; };
  for (const ir::Value& value : graph.values())
    types.push_back(IsMatrix(value) ? options.weight_type.value_or(kept(value.dtype))
                                    : value.dtype);
  for (const ir::Node& node : graph.nodes()) {
    if (node.op != ir::Op::kExperts) continue;
    const ir::ValueId router = node.inputs[1];
    if (options.weight_type && IsQuantisedType(*options.weight_type))
      types[static_cast<size_t>(router)] = kept(graph.value(router).dtype);
    // Gate and up are one weight. Files store them alike; where one does not, both are rounded to
    // 8 bits unless both are floats, and the conversion is told.
    DType& gate = types[static_cast<size_t>(node.inputs[2])];
    DType& up = types[static_cast<size_t>(node.inputs[3])];
    if (gate != up) gate = up = IsBlockType(gate) || IsBlockType(up) ? DType::kQ8_0 : DType::kF32;
  }
  return types;
}

std::vector<ir::TensorSlice> SlicesOf(const ir::Value& weight, const PackPlan& packing) {
  if (const auto rule = packing.find(weight.name); rule != packing.end())
    return rule->second.slices;
  if (!weight.slices.empty()) return weight.slices;
  return {{weight.name, 0, 0}};
}

namespace {

// The passes that differ: up to instructions whose scratch has no place yet.
Result<Lowered> FuseAndLower(ir::Graph& graph, const Options& options, Compiled& compiled) {
  if (IsTensorGraph(graph)) {
    TRY(FuseTensor(graph));
    TRY(ir::Verify(graph));
    return LowerTensor(graph, options, compiled.packing, compiled.conversions);
  }
  StoredTypes types = ChooseTypes(graph, options);
  compiled.conversions = FindConversions(graph, types);
  TRY(Fuse(graph, compiled.packing, types));
  TRY(ir::Verify(graph));
  return Lower(graph, options, types, compiled.packing);
}

}  // namespace

Result<Compiled> Compile(const ir::Graph& source, const Options& options) {
  TRY(CheckOptions(options));
  TRY(ir::Verify(source));
  ir::Graph graph = source;
  Compiled compiled;
  TRY_ASSIGN(Lowered lowered, FuseAndLower(graph, options, compiled));
  const std::vector<isa::Instruction> instructions = PlanBuffers(lowered);
  compiled.program = std::move(lowered.program);
  Schedule(instructions, compiled.program);
  isa::Canonicalise(compiled.program);
  if (const auto verified = isa::Verify(compiled.program); !verified)
    return FailAt("compiled Program is unsound", verified.error());
  return compiled;
}

}  // namespace millpower::compile
