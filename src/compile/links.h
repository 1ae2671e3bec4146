// Which nodes of a graph use a value, and which one made it. Internal to this folder.
#pragma once

#include <algorithm>
#include <vector>

#include "ir/graph.h"

namespace millpower::compile {

// Of the graph as it was when this was made. Nodes are indices into graph.nodes().
class Links {
 public:
  explicit Links(const ir::Graph& graph)
      : users_(graph.values().size()), producer_(graph.values().size(), -1) {
    for (size_t i = 0; i < graph.nodes().size(); ++i) {
      const ir::Node& node = graph.nodes()[i];
      producer_[static_cast<size_t>(node.output)] = static_cast<int>(i);
      for (const ir::ValueId input : node.inputs)
        if (input != ir::kNoValue)
          users_[static_cast<size_t>(input)].push_back(static_cast<int>(i));
    }
    for (const ir::ValueId output : graph.outputs())
      users_[static_cast<size_t>(output)].push_back(-1);
  }
  // The only use of a value that is not an output of the graph; -1 otherwise.
  int OnlyUser(ir::ValueId value) const {
    const auto& users = Users(value);
    return users.size() == 1 ? users[0] : -1;
  }
  int Producer(ir::ValueId value) const { return producer_[static_cast<size_t>(value)]; }
  const std::vector<int>& Users(ir::ValueId value) const {
    return users_[static_cast<size_t>(value)];
  }
  bool IsOutput(ir::ValueId value) const {
    return std::ranges::find(Users(value), -1) != Users(value).end();
  }

 private:
  std::vector<std::vector<int>> users_;  // -1: an output of the graph
  std::vector<int> producer_;
};

}  // namespace millpower::compile
