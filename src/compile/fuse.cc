#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "compile/links.h"
#include "compile/passes.h"

namespace millpower::compile {
namespace {

using ir::Graph;
using ir::Node;
using ir::Op;
using ir::ValueId;

constexpr size_t kX = 0, kW = 1, kBias = 2, kResidual = 3;  // operands of kLinear

bool IsPlainLinear(const Node& node) {
  return node.op == Op::kLinear && node.inputs[kResidual] == ir::kNoValue;
}

// A collective that adds up, and has nothing else to add.
bool IsPlainSum(const Node& node) {
  return node.op == Op::kCollective && node.inputs[1] == ir::kNoValue &&
         ir::IntAttribute(node, "kind") % 2 == 0;
}

// The plain linear that makes `value` for nobody but one user, or null.
const Node* PrivateLinear(const Graph& graph, const Links& links, ValueId value) {
  const int producer = links.Producer(value);
  if (producer < 0 || links.OnlyUser(value) < 0) return nullptr;
  const Node& node = graph.nodes()[static_cast<size_t>(producer)];
  return IsPlainLinear(node) ? &node : nullptr;
}

// mul(silu(linear(x, gate)), linear(x, up)) -> gated_linear(x, gate, up)
void FuseGates(Graph& graph) {
  const Links links(graph);
  std::vector<Node> nodes = graph.nodes();
  std::vector<bool> dead(nodes.size(), false);
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].op != Op::kMul) continue;
    for (const size_t side : {0, 1}) {
      const ValueId activated = nodes[i].inputs[side];
      const int silu = links.Producer(activated);
      if (silu < 0 || graph.nodes()[static_cast<size_t>(silu)].op != Op::kSilu ||
          links.OnlyUser(activated) < 0)
        continue;
      const Node* gate =
          PrivateLinear(graph, links, graph.nodes()[static_cast<size_t>(silu)].inputs[0]);
      const Node* up = PrivateLinear(graph, links, nodes[i].inputs[1 - side]);
      if (gate == nullptr || up == nullptr || gate->inputs[kX] != up->inputs[kX] ||
          gate->inputs[kBias] != ir::kNoValue || up->inputs[kBias] != ir::kNoValue)
        continue;
      for (const ValueId value : {gate->output, activated, up->output})
        dead[static_cast<size_t>(links.Producer(value))] = true;
      nodes[i] = Node{Op::kGatedLinear,
                      {gate->inputs[kX], gate->inputs[kW], up->inputs[kW]},
                      nodes[i].output,
                      {}};
      break;
    }
  }
  std::vector<Node> kept;
  for (size_t i = 0; i < nodes.size(); ++i)
    if (!dead[i]) kept.push_back(std::move(nodes[i]));
  graph.ReplaceNodes(std::move(kept));
}

// add(h, linear(x, w)) -> linear(x, w, residual = h), and add(h, all_reduce(x)) likewise. The
// linear or collective moves down to where the add was; experts move to just before it, where
// lowering finds both.
void FuseResiduals(Graph& graph) {
  const Links links(graph);
  std::vector<Node> nodes = graph.nodes();
  std::vector<bool> dead(nodes.size(), false);
  std::map<ValueId, Node> before;  // by output of the add
  for (Node& node : nodes) {
    if (node.op != Op::kAdd) continue;
    for (const size_t side : {1, 0}) {
      const int producer = links.Producer(node.inputs[side]);
      if (producer < 0 || links.OnlyUser(node.inputs[side]) < 0) continue;
      const Node& made = graph.nodes()[static_cast<size_t>(producer)];
      if (made.op == Op::kExperts) {
        dead[static_cast<size_t>(producer)] = true;
        before.emplace(node.output, made);
        break;
      }
      if (IsPlainSum(made)) {
        dead[static_cast<size_t>(producer)] = true;
        node = Node{
            Op::kCollective, {made.inputs[0], node.inputs[1 - side]}, node.output, made.attributes};
        break;
      }
      const Node* linear = PrivateLinear(graph, links, node.inputs[side]);
      if (linear == nullptr) continue;
      dead[static_cast<size_t>(links.Producer(linear->output))] = true;
      node = Node{
          Op::kLinear,
          {linear->inputs[kX], linear->inputs[kW], linear->inputs[kBias], node.inputs[1 - side]},
          node.output,
          {}};
      break;
    }
  }
  std::vector<Node> kept;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (const auto moved = before.find(nodes[i].output); moved != before.end())
      kept.push_back(std::move(moved->second));
    if (!dead[i]) kept.push_back(std::move(nodes[i]));
  }
  graph.ReplaceNodes(std::move(kept));
}

// An output of the graph is a buffer of its own, not a part of a wider one.
bool CanMerge(const Links& links, const Node& node) {
  return IsPlainLinear(node) && !links.IsOutput(node.output);
}

// The plain linears of `first`'s input that can become one with it, itself among them: their
// weights are stored as one type, and all have a bias or none has.
std::vector<const Node*> Mergeable(const Graph& graph, const Links& links, const StoredTypes& types,
                                   const Node& first) {
  std::vector<const Node*> linears;
  auto type = [&types](const Node& node) { return types[static_cast<size_t>(node.inputs[kW])]; };
  for (const int user : links.Users(first.inputs[kX])) {
    if (user < 0) continue;
    const Node& node = graph.nodes()[static_cast<size_t>(user)];
    if (CanMerge(links, node) && node.inputs[kX] == first.inputs[kX] && type(node) == type(first) &&
        (node.inputs[kBias] == ir::kNoValue) == (first.inputs[kBias] == ir::kNoValue))
      linears.push_back(&node);
  }
  return linears;
}

// One weight whose rows are those of `parts`, one after the other.
ValueId AddConcatenated(Graph& graph, PackPlan& packing, StoredTypes& types,
                        const std::string& name, const std::vector<ValueId>& parts) {
  PackRule rule;
  ir::Shape shape = graph.value(parts[0]).shape;
  if (shape.size() == 2) rule.cols = shape[1].size;
  shape[0].size = 0;
  for (const ValueId part : parts) {
    std::ranges::copy(SlicesOf(graph.value(part), packing), std::back_inserter(rule.slices));
    shape[0].size += graph.value(part).shape[0].size;
  }
  packing[name] = std::move(rule);
  types.push_back(types[static_cast<size_t>(parts[0])]);
  return graph.AddWeight(name, types.back(), std::move(shape));
}

// linear(x, a), linear(x, b), ... -> slices of linear(x, [a; b; ...]): x is read once, and the
// work is wide enough to split.
Result<void> MergeLinears(Graph& graph, PackPlan& packing, StoredTypes& types) {
  const Links links(graph);
  const std::vector<Node> nodes = graph.nodes();
  std::set<ValueId> merged_outputs;
  std::vector<Node> result;
  for (const Node& node : nodes) {
    if (!CanMerge(links, node)) {
      result.push_back(node);
      continue;
    }
    const ValueId x = node.inputs[kX];
    if (merged_outputs.contains(node.output)) continue;
    std::vector<Node> parts;  // copies: the graph grows below
    for (const Node* part : Mergeable(graph, links, types, node)) parts.push_back(*part);
    if (parts.size() < 2) {
      result.push_back(node);
      continue;
    }
    std::vector<ValueId> weights, biases;
    std::vector<Node> outputs;
    int64_t begin = 0;
    for (const Node& part : parts) {
      weights.push_back(part.inputs[kW]);
      if (part.inputs[kBias] != ir::kNoValue) biases.push_back(part.inputs[kBias]);
      const int64_t size = graph.value(part.inputs[kW]).shape[0].size;
      outputs.push_back(Node{Op::kSlice, {}, part.output, {{"begin", begin}, {"size", size}}});
      merged_outputs.insert(part.output);
      begin += size;
    }
    const std::string name = graph.value(weights[0]).name + ".merged";
    const ValueId weight = AddConcatenated(graph, packing, types, name, weights);
    const ValueId bias = biases.empty()
                             ? ir::kNoValue
                             : AddConcatenated(graph, packing, types, name + ".bias", biases);
    TRY_ASSIGN(const ValueId merged,
               graph.AddNode(Op::kLinear, name + ".out", {x, weight, bias, ir::kNoValue}));
    types.push_back(graph.value(merged).dtype);
    result.push_back(graph.nodes().back());
    for (Node& slice : outputs) {
      slice.inputs = {merged};
      result.push_back(slice);
    }
  }
  graph.ReplaceNodes(std::move(result));
  return {};
}

}  // namespace

Result<void> Fuse(Graph& graph, PackPlan& packing, StoredTypes& types) {
  FuseGates(graph);
  FuseResiduals(graph);
  return MergeLinears(graph, packing, types);
}

}  // namespace millpower::compile
