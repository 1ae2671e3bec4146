// Whether the rows of a batch can be computed together or apart with the same result.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace millpower::ir {

struct RowAnalysis {
  // Row i of every output depends on row i of the inputs only. False also where that can't be told.
  bool independent = false;
  std::string why_not;  // the first operator that may mix rows
  // Inputs that hold offsets, by name: the inputs, lists of items, that they cut into the rows'
  // bags.
  std::map<std::string, std::vector<std::string>> offsets_of;
};

// Of a verified graph, along the dimension `symbol` ("batch"): each value either does not depend on
// the batch, or has it as the outermost factor of one axis.
RowAnalysis AnalyseRows(const Graph& graph, const std::string& symbol);

}  // namespace millpower::ir
