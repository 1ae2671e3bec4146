// Walks a TensorFlow graph and its functions, node by node in an order in which operands come
// first, and lets each operator's handler turn it into operations of the builder. Calls of
// functions are walked anew each time, so that the result has none.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "import/tensorflow/state.h"

namespace millpower::import {

// Errors are for graphs that are not graphs: kCorrupt for operands that do not exist and cycles,
// kUnsupported for calls that nest or recur too deeply and graphs that unfold too far. What single
// nodes cannot do goes to State::Report.
class Interpreter {
 public:
  Interpreter(const tensorflow::GraphDef& graph, State& state);

  // What placeholders of the graph itself stand for.
  void Feed(const std::string& node, Value value) { fed_[node] = std::move(value); }
  const Value* Fed(const std::string& node) const;

  // The tensors "node" or "node:output" of the graph itself.
  Result<Values> Evaluate(const std::vector<std::string>& tensors);
  // Carries the node out with all that comes before it, for its effects.
  Result<void> Run(const std::string& node);
  // The outputs of a function of the library, in order.
  Result<Values> CallFunction(const std::string& name, Values arguments);
  bool HasFunction(const std::string& name) const { return functions_.contains(name); }

 private:
  struct Reference {
    bool is_order = false;  // "^node"
    std::string_view node;
    std::string_view output;  // by name, in functions
    int index = 0;
  };
  // A graph: that of the model, or a function's.
  struct Body {
    const google::protobuf::RepeatedPtrField<tensorflow::NodeDef>* nodes = nullptr;
    const tensorflow::FunctionDef* function = nullptr;
    std::unordered_map<std::string_view, int> index;
    std::unordered_map<std::string_view, int> arguments;
  };
  // One walk through a body.
  struct Frame {
    const Body& body;
    Values arguments;
    std::vector<Values> results;        // by node; of nodes not carried out, empty
    std::vector<char> visited;          // 0, 1: its operands are being looked at, 2: in order
    std::vector<std::string> unusable;  // why a node has no results; empty when it has
  };

  Result<Body> MakeBody(const google::protobuf::RepeatedPtrField<tensorflow::NodeDef>& nodes,
                        const tensorflow::FunctionDef* function) const;
  Result<const Body*> FunctionBody(const std::string& name);
  Result<Reference> ParseReference(const Body& body, const std::string& text) const;
  // Nodes that `node` needs, then itself, in order; those already visited left out.
  Result<void> Order(Frame& frame, int node, std::vector<int>& order) const;
  Result<std::vector<int>> Needs(const Body& body, int node) const;
  Result<void> Require(Frame& frame, int node);
  Result<void> CarryOut(Frame& frame, int node);
  Result<Values> Operands(Frame& frame, const tensorflow::NodeDef& node) const;
  Result<Value> Resolve(const Frame& frame, const Reference& reference) const;
  // The tensors of `targets`; with `all_effects`, also what a function runs for its effects.
  Result<Values> Walk(const Body& body, Values arguments, const std::vector<std::string>& targets,
                      bool all_effects);
  Result<Values> Enter(const std::string& name, Values arguments);
  Result<void> RefuseEffects(const std::string& function);
  void MarkUnusable(Frame& frame, int node, const std::string& message);

  const tensorflow::GraphDef& graph_;
  State& state_;
  std::map<std::string, Value> fed_;
  std::map<std::string, const tensorflow::FunctionDef*> functions_;
  std::map<std::string, Body> bodies_;
  std::set<std::string> without_effects_;  // functions that were looked through
  std::optional<Error> fatal_;             // of a call, on its way through handlers
  int depth_ = 0;
  int64_t carried_out_ = 0;
};

}  // namespace millpower::import
