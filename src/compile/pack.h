// From the tensors of a model's files to the bytes a Program declares.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/threads.h"
#include "ir/graph.h"
#include "ir/weights.h"
#include "isa/package.h"
#include "isa/program.h"

namespace millpower::compile {

// How one weight buffer is made.
struct PackRule {
  enum class Kind {
    kConcat,      // the rows of `slices`, one after the other
    kInterleave,  // 16 rows of `slices`, 16 of `others`, and so on (gate and up)
    kValues,      // computed by the importer
    kRaw,         // the bytes of `slices`, one after the other, or of `literal`
  };
  Kind kind = Kind::kConcat;
  // Rows of tensors, or columns of these; one whose `rows` are 0 means the whole tensor.
  std::vector<ir::TensorSlice> slices = {};
  std::vector<ir::TensorSlice> others = {};
  int64_t cols = 0;  // of a matrix: values in a row; what the buffer has beyond is 0
  // Not 0: the rows are those of so many experts, each of which has as many channels of the buffer;
  // what an expert's rows leave of them is 0.
  int64_t experts = 0;
  std::vector<float> values = {};  // of kValues
  // The tensor's rows are steps of the reduction, its columns the channels.
  bool transposed = false;
  // Instead of slices: a tensor that the importer holds.
  struct Literal {
    DType dtype = DType::kF32;
    std::vector<int64_t> shape = {};
    std::vector<std::byte> bytes = {};
  };
  Literal literal = {};
};

// By name of the Program's weight buffer.
using PackPlan = std::map<std::string, PackRule>;

// Writes `buffer`'s bytes to `out` (exactly its size). Matrix weights take the buffer's type: a
// block type takes the file's scales and integers as they are, when the file has that type; else
// values are widened to f32 and rounded. Vectors become f32; rows of tables take the buffer's type,
// integers with a scale for each row. Work is split over `team`, and source
// pages are released as they are done with.
// Errors: those of the source; kInvalidArgument when a tensor's shape is not what the graph said.
Result<void> PackWeight(const isa::Buffer& buffer, const PackRule& rule,
                        const ir::WeightSource& source, ThreadTeam& team, std::span<std::byte> out);

struct PackOptions {
  // Embedding tables whose file already has the bytes that the Program declares are not copied but
  // bound to memory of the source, if it shares any (WeightSource::Share): 4-byte aligned, and
  // paged in as rows are read. Rows may be written there like in a copy.
  bool share_tables = false;
};

// All weights of a Program, packed into one allocation that the result owns, or shared. Never more
// than they take at the end, and a few rows for each thread: of tables that are converted, source
// pages go as their rows come.
Result<isa::BoundWeights> PackAll(const isa::Program& program, const PackPlan& plan,
                                  const ir::WeightSource& source, ThreadTeam& team,
                                  const isa::Progress& progress, const PackOptions& options = {});

}  // namespace millpower::compile
