#include "import/tensorflow/captures.h"

#include <unordered_map>

namespace millpower::import {
namespace {

constexpr const char* kObjectsKey = "_CHECKPOINTABLE_OBJECT_GRAPH";
constexpr const char* kValue = "VARIABLE_VALUE";

using Nodes = std::unordered_map<std::string_view, const tensorflow::NodeDef*>;

const tensorflow::Attribute* Find(const tensorflow::NodeDef& node, const char* name) {
  const auto found = node.attr().find(name);
  return found == node.attr().end() ? nullptr : &found->second;
}

std::string VariableName(const tensorflow::NodeDef& node) {
  const auto* shared = Find(node, "shared_name");
  return shared && !shared->s().empty() ? shared->s() : node.name();
}

const std::string* KeyOf(const tensorflow::CheckpointedObjects& objects, int32_t object) {
  if (object < 0 || object >= objects.nodes_size()) return nullptr;
  for (const auto& value : objects.nodes(object).attributes())
    if (value.name() == kValue) return &value.checkpoint_key();
  return nullptr;
}

// A call's last operands are what the function captured.
void BindCall(const tensorflow::NodeDef& call, const Nodes& nodes,
              const tensorflow::ObjectGraph::ConcreteFunction& function,
              const tensorflow::CheckpointedObjects& objects, State& state) {
  std::vector<std::string_view> operands;
  for (const std::string& input : call.input())
    if (!input.starts_with('^')) operands.push_back(input);
  const auto captured = static_cast<size_t>(function.bound_inputs_size());
  if (captured > operands.size()) return;
  for (size_t i = 0; i < captured; ++i) {
    const std::string_view operand = operands[operands.size() - captured + i];
    const auto node = nodes.find(operand.substr(0, operand.find(':')));
    if (node == nodes.end() || node->second->op() != "VarHandleOp") continue;
    Resource& variable = state.resource(state.FindResource(false, VariableName(*node->second)));
    const std::string* key = KeyOf(objects, function.bound_inputs(static_cast<int>(i)));
    if (!variable.value && key) variable.value = Value(Stored{*key, {}});
  }
}

}  // namespace

Result<void> BindCaptures(const tensorflow::MetaGraph& graph, State& state) {
  const auto& functions = graph.object_graph_def().concrete_functions();
  // The restore operation has opened the bundle if there is one.
  if (functions.empty() || graph.saver_def().restore_op_name().empty()) return {};
  TRY_ASSIGN(const Bundle* bundle, state.OpenBundle());
  auto text = bundle->String(kObjectsKey);
  if (!text && text.error().code == ErrorCode::kNotFound) return {};
  if (!text) return std::unexpected(std::move(text).error());
  tensorflow::CheckpointedObjects objects;
  if (!objects.ParseFromString(*text))
    return Fail(ErrorCode::kCorrupt, "the graph of objects among the variables is damaged");
  Nodes nodes;
  for (const auto& node : graph.graph_def().node()) nodes.emplace(node.name(), &node);
  for (const auto& node : graph.graph_def().node()) {
    const auto* called = Find(node, "f");
    if (!called || !called->has_func()) continue;
    const auto function = functions.find(called->func().name());
    if (function != functions.end()) BindCall(node, nodes, function->second, objects, state);
  }
  return {};
}

}  // namespace millpower::import
