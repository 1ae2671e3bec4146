// How a model's ports lie in the buffers of its Program, and how those of several requests are
// joined: worked out once, when it is loaded. Internal to the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "ranking/lookup.h"
#include "ranking/shape.h"
#include "ranking/signature.h"

namespace millpower::ranking {

// What joining does to a tensor.
enum class Joining : uint8_t {
  kSame,            // nothing: only requests with equal ones are joined
  kAppend,          // one after the other along the first dimension
  kOffsets,         // likewise, moved along by the values before them
  kOffsetsWithEnd,  // and only the last request's end is kept
};

// An input buffer of the Program, and where its elements come from.
struct Fill {
  int port = 0;
  int32_t buffer = 0;
  DType dtype = DType::kF32;  // of the buffer
  Joining joining = Joining::kSame;
  int32_t values = -1;  // of offsets: the register that counts the values they cut
  std::unique_ptr<const LookupTable> lookup = nullptr;
};

struct OutputPlace {
  int32_t buffer = 0;
  int64_t element_bytes = 4;
  std::vector<Dimension> shape;
};

// Immutable.
struct Layout {
  std::shared_ptr<const isa::Program> program;
  int32_t batch = -1;                   // the register; -1: there is none
  std::vector<int32_t> free_registers;  // that launches set
  std::vector<bool> adds;               // by register: joined requests' values add up
  bool joins = false;
  std::vector<std::vector<Dimension>> inputs;  // shapes by port
  std::vector<Fill> fills;
  std::vector<OutputPlace> outputs;  // by port

  int64_t most(int32_t reg) const { return program->registers[static_cast<size_t>(reg)].max; }
};

// The signature has been checked against the Program.
Layout MakeLayout(const Signature& signature, std::shared_ptr<const isa::Program> program);

}  // namespace millpower::ranking
