// An exported program as PyTorch serialises it (torch/_export/serde/schema.py, major version 8):
// JSON with the graph's nodes, what every value is, and which inputs are parameters. Fields that
// are not known are ignored, as the format asks. The text is not trusted.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace millpower::import::torch {

// Objects are sorted maps, so that a hostile file cannot make inserting slow.
using ProgramJson = nlohmann::json;

inline constexpr int64_t kProgramSchemaMajor = 8;

// `type` names which of the schema's unions' fields is there ("as_tensor", "as_sym_ints" ...);
// value points into the document.
struct ProgramArgument {
  std::string_view type;
  const ProgramJson* value = nullptr;
};

struct ProgramNode {
  std::string target;  // "torch.ops.aten.add.Tensor", "_operator.mul"
  std::string name;    // of the node; of its first output when the file has none
  std::vector<std::pair<std::string, ProgramArgument>> inputs;
  std::vector<ProgramArgument> outputs;
};

struct ProgramInput {
  enum class Kind { kUser, kParameter, kBuffer, kConstant, kFixed };
  Kind kind = Kind::kUser;
  std::string value;   // in the graph; empty for a number or nothing
  std::string target;  // of parameters, buffers and constants: the name of the tensor in the file
  ProgramArgument argument;  // of kUser
};

struct ProgramOutput {
  std::string value;
  bool is_mutation = false;  // of an input by the caller, which nobody sees here
};

struct ProgramTensor {
  int64_t scalar_type = 0;             // see strided.h
  std::vector<ProgramArgument> sizes;  // as_int, or as_expr with expr_str
};

struct ProgramRange {
  std::optional<int64_t> min, max;
};

struct ExportedProgram {
  ProgramJson document;  // what the arguments point into
  std::vector<ProgramInput> inputs;
  std::vector<ProgramOutput> outputs;
  std::vector<ProgramNode> nodes;
  std::map<std::string, ProgramTensor> tensors;     // what the graph's values are
  std::map<std::string, ProgramArgument> sym_ints;  // as_int or as_expr, by value
  std::map<std::string, ProgramRange> ranges;       // by symbol
  std::vector<std::string> output_names;            // of a dict that is returned; else empty
  std::string torch_version;
  std::vector<std::string> refusals;  // inputs and outputs that are not modelled
};

// Errors: kCorrupt: malformed JSON, nested deeper than 64, a field that is missing or of another
// type; kUnsupported: another major version. Inputs and outputs that are not modelled (custom
// objects, tokens, mutated buffers) are told in `refusals`, so that operators can be looked at too.
Result<ExportedProgram> ParseProgram(std::string_view text);

// JSON of any number of keys, in limits of depth, with bare Infinity and NaN (which Python writes)
// as strings. `keep` says by key what is kept. Errors: kCorrupt.
Result<ProgramJson> ParseProgramJson(std::string_view text, bool (*keep)(const std::string& key));

// The one field of a union that is there. Errors: kCorrupt.
Result<ProgramArgument> UnionOf(const ProgramJson& json);

// Fields of objects. Errors: kCorrupt, naming the field.
Result<const ProgramJson*> FieldOf(const ProgramJson& json, const char* key);
Result<std::string> TextOf(const ProgramJson& json, const char* key);
Result<int64_t> IntegerOf(const ProgramJson& json);

// dtype and sizes of a TensorMeta. Errors: kCorrupt.
Result<ProgramTensor> ParseTensorMeta(const ProgramJson& json);

}  // namespace millpower::import::torch
