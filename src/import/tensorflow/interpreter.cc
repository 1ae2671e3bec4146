#include "import/tensorflow/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "import/tensorflow/call.h"

namespace millpower::import {
namespace {

constexpr int kMaxDepth = 64;           // of calls
constexpr int64_t kMaxSteps = 1 << 20;  // nodes carried out, all calls together
constexpr size_t kMaxNodesInGraph = 1 << 20;

constexpr const char* kStateChange = "changes the model's state, which answers to requests do not";

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

}  // namespace

Interpreter::Interpreter(const tensorflow::GraphDef& graph, State& state)
    : graph_(graph), state_(state) {
  for (const auto& function : graph.library().function())
    functions_.emplace(function.signature().name(), &function);
}

const Value* Interpreter::Fed(const std::string& node) const {
  const auto found = fed_.find(node);
  return found == fed_.end() ? nullptr : &found->second;
}

// ---- graphs ----

Result<Interpreter::Body> Interpreter::MakeBody(
    const google::protobuf::RepeatedPtrField<tensorflow::NodeDef>& nodes,
    const tensorflow::FunctionDef* function) const {
  if (static_cast<size_t>(nodes.size()) > kMaxNodesInGraph) return Corrupt("too many nodes");
  Body body{.nodes = &nodes, .function = function, .index = {}, .arguments = {}};
  for (int i = 0; i < nodes.size(); ++i)
    if (!body.index.emplace(nodes[i].name(), i).second)
      return Corrupt(fmt::format("two nodes are called '{}'", nodes[i].name()));
  if (!function) return body;
  for (int i = 0; i < function->signature().input_arg_size(); ++i)
    body.arguments.emplace(function->signature().input_arg(i).name(), i);
  return body;
}

Result<const Interpreter::Body*> Interpreter::FunctionBody(const std::string& name) {
  if (const auto known = bodies_.find(name); known != bodies_.end()) return &known->second;
  const auto found = functions_.find(name);
  if (found == functions_.end()) return Corrupt(fmt::format("there is no function '{}'", name));
  auto body = MakeBody(found->second->node_def(), found->second);
  if (!body) return FailAt("function '" + name + "'", std::move(body).error());
  return &bodies_.emplace(name, *std::move(body)).first->second;
}

Result<Interpreter::Reference> Interpreter::ParseReference(const Body& body,
                                                           const std::string& text) const {
  Reference reference;
  std::string_view rest = text;
  if (rest.starts_with('^')) {
    reference.is_order = true;
    reference.node = rest.substr(1);
    return reference;
  }
  const size_t colon = rest.find(':');
  reference.node = rest.substr(0, colon);
  if (colon == std::string_view::npos) return reference;
  rest.remove_prefix(colon + 1);
  if (const size_t next = rest.find(':'); body.function && next != std::string_view::npos) {
    reference.output = rest.substr(0, next);
    rest.remove_prefix(next + 1);
  }
  const auto [end, error] =
      std::from_chars(rest.data(), rest.data() + rest.size(), reference.index);
  if (error != std::errc() || end != rest.data() + rest.size() || reference.index < 0)
    return Corrupt(fmt::format("'{}' is not an output of a node", text));
  return reference;
}

// Nodes whose results or effects `node` needs. Order only counts where effects do.
Result<std::vector<int>> Interpreter::Needs(const Body& body, int node) const {
  std::vector<int> needs;
  for (const std::string& input : (*body.nodes)[node].input()) {
    TRY_ASSIGN(const Reference reference, ParseReference(body, input));
    if (reference.is_order && state_.phase == Phase::kServe) continue;
    if (body.arguments.contains(reference.node)) continue;
    const auto found = body.index.find(reference.node);
    if (found == body.index.end())
      return Corrupt(fmt::format("node '{}' has the operand '{}', which does not exist",
                                 (*body.nodes)[node].name(), input));
    needs.push_back(found->second);
  }
  return needs;
}

// Depth first, with a stack of its own: graphs are as deep as they are long.
Result<void> Interpreter::Order(Frame& frame, int node, std::vector<int>& order) const {
  struct Visit {
    int node;
    std::vector<int> needs;
    size_t next = 0;
  };
  std::vector<Visit> stack;
  const auto enter = [&](int entered) -> Result<void> {
    frame.visited[static_cast<size_t>(entered)] = 1;
    TRY_ASSIGN(std::vector<int> needs, Needs(frame.body, entered));
    stack.push_back({entered, std::move(needs)});
    return {};
  };
  if (frame.visited[static_cast<size_t>(node)] == 0) TRY(enter(node));
  while (!stack.empty()) {
    Visit& top = stack.back();
    if (top.next == top.needs.size()) {
      frame.visited[static_cast<size_t>(top.node)] = 2;
      order.push_back(top.node);
      stack.pop_back();
      continue;
    }
    const int need = top.needs[top.next++];
    const char visited = frame.visited[static_cast<size_t>(need)];
    if (visited == 1)
      return Corrupt(fmt::format("node '{}' is part of a cycle", (*frame.body.nodes)[need].name()));
    if (visited == 0) TRY(enter(need));
  }
  return {};
}

// ---- walking ----

Result<void> Interpreter::Require(Frame& frame, int node) {
  std::vector<int> order;
  TRY(Order(frame, node, order));
  for (const int next : order) TRY(CarryOut(frame, next));
  return {};
}

Result<Value> Interpreter::Resolve(const Frame& frame, const Reference& reference) const {
  if (const auto argument = frame.body.arguments.find(reference.node);
      argument != frame.body.arguments.end())
    return frame.arguments[static_cast<size_t>(argument->second)];
  const auto found = frame.body.index.find(reference.node);
  if (found == frame.body.index.end())
    return Corrupt(fmt::format("there is no node '{}'", reference.node));
  const auto node = static_cast<size_t>(found->second);
  if (!frame.unusable[node].empty()) return Value{Unusable{frame.unusable[node]}};
  const Values& results = frame.results[node];
  const std::string& op = (*frame.body.nodes)[found->second].op();
  const size_t index = static_cast<size_t>(OutputOffset(op, reference.output)) +
                       static_cast<size_t>(reference.index);
  if (index >= results.size())
    return Corrupt(fmt::format("node '{}' has no output {}", reference.node, index));
  return results[index];
}

Result<Values> Interpreter::Operands(Frame& frame, const tensorflow::NodeDef& node) const {
  Values operands;
  for (const std::string& input : node.input()) {
    TRY_ASSIGN(const Reference reference, ParseReference(frame.body, input));
    if (reference.is_order) continue;
    TRY_ASSIGN(operands.emplace_back(), Resolve(frame, reference));
  }
  return operands;
}

void Interpreter::MarkUnusable(Frame& frame, int index, const std::string& message) {
  const tensorflow::NodeDef& node = (*frame.body.nodes)[index];
  frame.unusable[static_cast<size_t>(index)] = fmt::format("{} '{}'", node.op(), node.name());
  if (state_.phase == Phase::kServe)
    state_.Report(node.op(), node.name(), message);
  else if (state_.preparation_failure.empty())
    state_.preparation_failure = fmt::format("{} '{}': {}", node.op(), node.name(), message);
}

Result<void> Interpreter::CarryOut(Frame& frame, int index) {
  if (++carried_out_ > kMaxSteps)
    return import::Unsupported(fmt::format("unfolds to more than {} nodes", kMaxSteps));
  const tensorflow::NodeDef& node = (*frame.body.nodes)[index];
  const bool is_call = HasFunction(node.op());
  if (state_.phase == Phase::kServe) ++state_.operators[node.op()];
  TRY_ASSIGN(Values operands, Operands(frame, node));
  const OpEntry* entry = FindOp(node.op());
  if (!entry && !is_call) {
    MarkUnusable(frame, index, "is not supported");
    return {};
  }
  uint64_t ports = 0;
  for (const Value& operand : operands) {
    ports |= operand.ports;
    const auto* unusable = operand.As<Unusable>();
    if (!unusable || is_call || entry->lenient) continue;
    frame.unusable[static_cast<size_t>(index)] = unusable->why;
    return {};
  }
  if (state_.phase == Phase::kServe && HasEffect(node.op())) {
    MarkUnusable(frame, index, kStateChange);
    return {};
  }
  Result<Values> outputs = Values{};
  if (is_call) {
    outputs = CallFunction(node.op(), std::move(operands));
  } else {
    Call call(node, std::move(operands), state_, *this);
    if (entry->one) {
      const auto one = entry->one(call);
      if (one)
        outputs = One(*one);
      else
        outputs = std::unexpected(one.error());
    } else {
      outputs = entry->many(call);
    }
  }
  if (fatal_) return std::unexpected(*fatal_);
  if (!outputs) {
    MarkUnusable(frame, index, outputs.error().message);
    return {};
  }
  if (!is_call && !entry->lenient)
    for (Value& output : *outputs) output.ports |= ports;
  frame.results[static_cast<size_t>(index)] = *std::move(outputs);
  return {};
}

Result<Values> Interpreter::Evaluate(const std::vector<std::string>& tensors) {
  TRY_ASSIGN(const Body body, MakeBody(graph_.node(), nullptr));
  return Walk(body, {}, tensors, false);
}

Result<void> Interpreter::Run(const std::string& node) {
  TRY_ASSIGN(const Body body, MakeBody(graph_.node(), nullptr));
  const auto walked = Walk(body, {}, {'^' + node}, false);
  if (!walked) return std::unexpected(walked.error());
  return {};
}

Result<Values> Interpreter::Walk(const Body& body, Values arguments,
                                 const std::vector<std::string>& targets, bool all_effects) {
  const auto count = static_cast<size_t>(body.nodes->size());
  Frame frame{.body = body,
              .arguments = std::move(arguments),
              .results = {},
              .visited = {},
              .unusable = {}};
  frame.results.resize(count);
  frame.visited.resize(count, 0);
  frame.unusable.resize(count);
  Values values;
  for (const std::string& target : targets) {
    TRY_ASSIGN(const Reference reference, ParseReference(body, target));
    if (const auto node = body.index.find(reference.node); node != body.index.end())
      TRY(Require(frame, node->second));
    else if (!body.arguments.contains(reference.node))
      return Corrupt(fmt::format("there is no node '{}'", reference.node));
    if (reference.is_order) continue;
    TRY_ASSIGN(values.emplace_back(), Resolve(frame, reference));
  }
  if (all_effects)
    for (const auto& [output, node] : body.function->control_ret())
      if (const auto found = body.index.find(node); found != body.index.end())
        TRY(Require(frame, found->second));
  return values;
}

Result<Values> Interpreter::CallFunction(const std::string& name, Values arguments) {
  auto outputs = Enter(name, std::move(arguments));
  if (!outputs && !fatal_) fatal_ = outputs.error();
  return outputs;
}

Result<Values> Interpreter::Enter(const std::string& name, Values arguments) {
  TRY_ASSIGN(const Body* body, FunctionBody(name));
  const tensorflow::FunctionDef& function = *body->function;
  if (static_cast<int>(arguments.size()) != function.signature().input_arg_size())
    return Corrupt(fmt::format("function '{}' is called with {} arguments instead of {}", name,
                               arguments.size(), function.signature().input_arg_size()));
  if (depth_ == kMaxDepth)
    return import::Unsupported(
        fmt::format("function '{}' calls itself, or calls nest deeper than {}", name, kMaxDepth));
  // A walk takes memory and time for all of a function's nodes, also for those left out.
  carried_out_ += body->nodes->size() / 16 + 1;
  if (state_.phase == Phase::kServe) TRY(RefuseEffects(name));
  std::vector<std::string> targets;
  for (const auto& output : function.signature().output_arg()) {
    const auto found = function.ret().find(output.name());
    if (found == function.ret().end())
      return Corrupt(fmt::format("function '{}' has no result '{}'", name, output.name()));
    targets.push_back(found->second);
  }
  ++depth_;
  auto outputs = Walk(*body, std::move(arguments), targets, state_.phase != Phase::kServe);
  --depth_;
  return outputs;
}

// Also effects that nothing but the order of execution leads to.
Result<void> Interpreter::RefuseEffects(const std::string& function) {
  std::vector<std::string> open = {function};
  while (!open.empty()) {
    const std::string name = std::move(open.back());
    open.pop_back();
    if (!without_effects_.insert(name).second) continue;
    TRY_ASSIGN(const Body* body, FunctionBody(name));
    for (const tensorflow::NodeDef& node : *body->nodes) {
      if (HasEffect(node.op())) state_.Report(node.op(), node.name(), kStateChange);
      if (HasFunction(node.op())) open.push_back(node.op());
      for (const auto& [key, attribute] : node.attr())
        if (attribute.has_func() && HasFunction(attribute.func().name()))
          open.push_back(attribute.func().name());
    }
  }
  return {};
}

}  // namespace millpower::import
