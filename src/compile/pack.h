// From the tensors of a model's files to the bytes a Program declares.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/threads.h"
#include "ir/weights.h"
#include "isa/package.h"
#include "isa/program.h"

namespace millpower::compile {

// How one weight buffer is made.
struct PackRule {
  enum class Kind {
    kConcat,      // rows of the sources, one after the other
    kInterleave,  // 16 rows of the first source, 16 of the second, and so on (gate and up); what
                  // the last 16 lack is zeros
    kValues,      // computed by the importer
  };
  Kind kind = Kind::kConcat;
  std::vector<std::string> sources;  // tensor names
  std::vector<float> values;         // of kValues
};

// By name of the Program's weight buffer.
using PackPlan = std::map<std::string, PackRule>;

// Writes `buffer`'s bytes to `out` (exactly its size). Matrix weights are rounded or widened to the
// buffer's type; vectors become f32. Work is split over `team`.
// Errors: those of the source; kInvalidArgument when a tensor's shape is not what the graph said.
Result<void> PackWeight(const isa::Buffer& buffer, const PackRule& rule,
                        const ir::WeightSource& source, ThreadTeam& team, std::span<std::byte> out);

// All weights of a Program, packed into one allocation that the result owns.
Result<isa::BoundWeights> PackAll(const isa::Program& program, const PackPlan& plan,
                                  const ir::WeightSource& source, ThreadTeam& team,
                                  const isa::Progress& progress);

}  // namespace millpower::compile
