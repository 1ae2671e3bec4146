#include "import/torch/program.h"

#include <algorithm>

namespace millpower::import::torch {
namespace {

constexpr int kMaxDepth = 64;

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

// Python's json module writes Infinity, -Infinity and NaN bare, which JSON does not have.
std::string QuoteBareNumbers(std::string_view text) {
  std::string quoted;
  quoted.reserve(text.size() + 64);
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') in_string = !in_string;
    if (in_string && c == '\\' && i + 1 < text.size()) {
      quoted += c;
      quoted += text[++i];
      continue;
    }
    const auto* token = in_string ? nullptr : [&]() -> const std::string_view* {
      static constexpr std::string_view kTokens[] = {"-Infinity", "Infinity", "NaN"};
      const auto* found = std::ranges::find_if(
          kTokens, [&](std::string_view name) { return text.substr(i).starts_with(name); });
      return found == std::end(kTokens) ? nullptr : found;
    }();
    if (token == nullptr) {
      quoted += c;
      continue;
    }
    quoted += '"';
    quoted += *token;
    quoted += '"';
    i += token->size() - 1;
  }
  return quoted;
}

// What a graph does not need: stack traces, which are most of the text, and module calls but for
// the root's.
bool KeepOfProgram(const std::string& key) { return key != "metadata" && key != "guards_code"; }

Result<std::string> TensorNameOf(const ProgramJson& json) {
  TRY_ASSIGN(const ProgramJson* const argument, FieldOf(json, "arg"));
  return TextOf(*argument, "name");
}

Result<ProgramInput> TargetInput(const ProgramJson& spec, ProgramInput::Kind kind,
                                 const char* target) {
  ProgramInput input;
  input.kind = kind;
  TRY_ASSIGN(input.value, TensorNameOf(spec));
  TRY_ASSIGN(input.target, TextOf(spec, target));
  return input;
}

Result<ProgramInput> UserInput(const ProgramJson& spec) {
  ProgramInput input;
  TRY_ASSIGN(const ProgramJson* const argument, FieldOf(spec, "arg"));
  TRY_ASSIGN(input.argument, UnionOf(*argument));
  const std::string_view type = input.argument.type;
  if (type == "as_tensor") {
    TRY_ASSIGN(input.value, TextOf(*input.argument.value, "name"));
    return input;
  }
  if (type == "as_sym_int" && input.argument.value->contains("as_name")) {
    TRY_ASSIGN(const std::string name, TextOf(*input.argument.value, "as_name"));
    return Fail(ErrorCode::kUnsupported, "input '" + name + "' is a size, not a tensor");
  }
  if (type == "as_sym_float" || type == "as_sym_bool" || type == "as_custom_obj")
    return Fail(ErrorCode::kUnsupported, "an input is " + std::string(type));
  input.kind = ProgramInput::Kind::kFixed;
  return input;
}

Result<ProgramInput> ParseInput(const ProgramJson& json) {
  TRY_ASSIGN(const ProgramArgument spec, UnionOf(json));
  using Kind = ProgramInput::Kind;
  if (spec.type == "user_input") return UserInput(*spec.value);
  if (spec.type == "parameter") return TargetInput(*spec.value, Kind::kParameter, "parameter_name");
  if (spec.type == "buffer") return TargetInput(*spec.value, Kind::kBuffer, "buffer_name");
  if (spec.type == "tensor_constant")
    return TargetInput(*spec.value, Kind::kConstant, "tensor_constant_name");
  if (spec.type == "constant_input") return ProgramInput{Kind::kFixed, {}, {}, {}};
  return Fail(ErrorCode::kUnsupported, "input of kind '" + std::string(spec.type) + "'");
}

Result<ProgramOutput> ParseOutput(const ProgramJson& json) {
  TRY_ASSIGN(const ProgramArgument spec, UnionOf(json));
  if (spec.type == "user_input_mutation") return ProgramOutput{{}, true};
  if (spec.type == "buffer_mutation" || spec.type == "parameter_mutation") {
    const bool is_buffer = spec.type == "buffer_mutation";
    TRY_ASSIGN(const std::string name,
               TextOf(*spec.value, is_buffer ? "buffer_name" : "parameter_name"));
    return Fail(ErrorCode::kUnsupported, "changes '" + name + "', a weight of the model");
  }
  if (spec.type != "user_output")
    return Fail(ErrorCode::kUnsupported, "output of kind '" + std::string(spec.type) + "'");
  TRY_ASSIGN(const ProgramJson* const argument, FieldOf(*spec.value, "arg"));
  TRY_ASSIGN(const ProgramArgument value, UnionOf(*argument));
  if (value.type == "as_none") return ProgramOutput{{}, true};
  if (value.type != "as_tensor")
    return Fail(ErrorCode::kUnsupported, "an output is " + std::string(value.type));
  TRY_ASSIGN(std::string name, TextOf(*value.value, "name"));
  return ProgramOutput{std::move(name), false};
}

// Every element of the list `key` of `json` through `parse`; what is not supported is left out and
// told in `refusals`.
template <typename T, typename Parse>
Result<std::vector<T>> ParseEach(const ProgramJson& json, const char* key, Parse parse,
                                 std::vector<std::string>& refusals) {
  TRY_ASSIGN(const ProgramJson* const list, FieldOf(json, key));
  if (!list->is_array()) return Corrupt(std::string(key) + " is not a list");
  std::vector<T> parsed;
  for (const ProgramJson& item : *list) {
    Result<T> one = parse(item);
    if (one) {
      parsed.push_back(*std::move(one));
    } else if (one.error().code == ErrorCode::kUnsupported) {
      refusals.push_back(std::move(one).error().message);
    } else {
      return FailAt(key, std::move(one).error());
    }
  }
  return parsed;
}

Result<ProgramNode> ParseNode(const ProgramJson& json) {
  ProgramNode node;
  TRY_ASSIGN(node.target, TextOf(json, "target"));
  if (json.contains("name") && json["name"].is_string())
    node.name = json["name"].get<std::string>();
  TRY_ASSIGN(const ProgramJson* const inputs, FieldOf(json, "inputs"));
  TRY_ASSIGN(const ProgramJson* const outputs, FieldOf(json, "outputs"));
  if (!inputs->is_array() || !outputs->is_array()) return Corrupt("a node has no lists");
  for (const ProgramJson& input : *inputs) {
    TRY_ASSIGN(std::string name, TextOf(input, "name"));
    TRY_ASSIGN(const ProgramJson* const argument, FieldOf(input, "arg"));
    TRY_ASSIGN(const ProgramArgument value, UnionOf(*argument));
    node.inputs.emplace_back(std::move(name), value);
  }
  for (const ProgramJson& output : *outputs) {
    TRY_ASSIGN(const ProgramArgument value, UnionOf(output));
    node.outputs.push_back(value);
  }
  if (node.name.empty() && !node.outputs.empty() && node.outputs[0].type == "as_tensor") {
    TRY_ASSIGN(node.name, TextOf(*node.outputs[0].value, "name"));
  }
  return node;
}

Result<void> ParseValues(const ProgramJson& graph, ExportedProgram& program) {
  TRY_ASSIGN(const ProgramJson* const tensors, FieldOf(graph, "tensor_values"));
  TRY_ASSIGN(const ProgramJson* const sym_ints, FieldOf(graph, "sym_int_values"));
  if (!tensors->is_object() || !sym_ints->is_object()) return Corrupt("values are no objects");
  for (const auto& [name, json] : tensors->items()) {
    Result<ProgramTensor> tensor = ParseTensorMeta(json);
    if (!tensor) return FailAt("'" + name + "'", std::move(tensor).error());
    program.tensors.emplace(name, *std::move(tensor));
  }
  for (const auto& [name, json] : sym_ints->items()) {
    TRY_ASSIGN(const ProgramArgument size, UnionOf(json));
    program.sym_ints.emplace(name, size);
  }
  return {};
}

Result<void> ParseRanges(const ProgramJson& document, ExportedProgram& program) {
  const auto ranges = document.find("range_constraints");
  if (ranges == document.end() || !ranges->is_object()) return {};
  for (const auto& [symbol, json] : ranges->items()) {
    if (!json.is_object()) return Corrupt("a range constraint is no object");
    ProgramRange range;
    for (const bool is_max : {false, true}) {
      const auto bound = json.find(is_max ? "max_val" : "min_val");
      if (bound == json.end() || !bound->is_number_integer()) continue;
      Result<int64_t> value = IntegerOf(*bound);
      if (value) (is_max ? range.max : range.min) = *value;
    }
    program.ranges.emplace(symbol, range);
  }
  return {};
}

// Keys of a dict that the model returns, when each holds one tensor: out_spec of the root module
// is "[1, {"type": "builtins.dict", "context": "[\"score\", ...]", "children_spec": [leaf, ...]}]"
// (torch/utils/_pytree.py). Only names depend on it; what is otherwise is no error.
std::vector<std::string> OutputKeys(const ProgramJson& graph_module) {
  const auto calls = graph_module.find("module_call_graph");
  if (calls == graph_module.end() || !calls->is_array() || calls->empty()) return {};
  const ProgramJson& root = (*calls)[0];
  const auto signature = root.is_object() ? root.find("signature") : root.end();
  if (signature == root.end() || !signature->is_object()) return {};
  const auto spec = signature->find("out_spec");
  if (spec == signature->end() || !spec->is_string()) return {};
  const auto tree = ParseProgramJson(spec->get_ref<const std::string&>(), nullptr);
  if (!tree || !tree->is_array() || tree->size() != 2 || !(*tree)[1].is_object()) return {};
  const ProgramJson& dict = (*tree)[1];
  const auto type = dict.find("type"), context = dict.find("context");
  const auto children = dict.find("children_spec");
  if (type == dict.end() || *type != "builtins.dict" || context == dict.end() ||
      !context->is_string() || children == dict.end() || !children->is_array())
    return {};
  const auto keys = ParseProgramJson(context->get_ref<const std::string&>(), nullptr);
  if (!keys || !keys->is_array() || keys->size() != children->size()) return {};
  std::vector<std::string> names;
  for (size_t i = 0; i < keys->size(); ++i) {
    const ProgramJson& child = (*children)[i];
    const bool is_leaf = child.is_object() && child.contains("type") && child["type"].is_null();
    if (!is_leaf || !(*keys)[i].is_string()) return {};
    names.push_back((*keys)[i].get<std::string>());
  }
  return names;
}

Result<void> CheckVersion(const ProgramJson& document) {
  TRY_ASSIGN(const ProgramJson* const version, FieldOf(document, "schema_version"));
  TRY_ASSIGN(const ProgramJson* const major_field, FieldOf(*version, "major"));
  TRY_ASSIGN(const int64_t major, IntegerOf(*major_field));
  if (major == kProgramSchemaMajor) return {};
  return Fail(ErrorCode::kUnsupported,
              "exported program has schema version " + std::to_string(major) + ", and we read 8");
}

}  // namespace

Result<ProgramJson> ParseProgramJson(std::string_view text, bool (*keep)(const std::string& key)) {
  bool too_deep = false;
  const auto inspect = [&](int depth, ProgramJson::parse_event_t event, ProgramJson& parsed) {
    too_deep = too_deep || depth > kMaxDepth;
    if (event == ProgramJson::parse_event_t::key && keep != nullptr)
      return !too_deep && keep(parsed.get_ref<const std::string&>());
    return !too_deep;  // what is too deep is not kept
  };
  try {
    ProgramJson json = ProgramJson::parse(QuoteBareNumbers(text), inspect);
    if (too_deep) return Corrupt("JSON nests too deep");
    return json;
  } catch (const ProgramJson::exception& error) {
    return Corrupt(std::string("malformed JSON: ") + error.what());
  }
}

Result<ProgramArgument> UnionOf(const ProgramJson& json) {
  if (!json.is_object() || json.size() != 1) return Corrupt("a union has not one field");
  const auto field = json.begin();
  return ProgramArgument{field.key(), &*field};
}

Result<const ProgramJson*> FieldOf(const ProgramJson& json, const char* key) {
  if (json.is_object()) {
    const auto field = json.find(key);
    if (field != json.end()) return &*field;
  }
  return Corrupt(std::string(key) + " is missing");
}

Result<std::string> TextOf(const ProgramJson& json, const char* key) {
  TRY_ASSIGN(const ProgramJson* const field, FieldOf(json, key));
  if (!field->is_string()) return Corrupt(std::string(key) + " is no text");
  return field->get<std::string>();
}

Result<int64_t> IntegerOf(const ProgramJson& json) {
  const bool fits =
      json.is_number_unsigned() ? json.get<uint64_t>() <= INT64_MAX : json.is_number_integer();
  if (!fits) return Corrupt("a number is no whole number of 64 bits");
  return json.get<int64_t>();
}

Result<ProgramTensor> ParseTensorMeta(const ProgramJson& json) {
  ProgramTensor tensor;
  TRY_ASSIGN(const ProgramJson* const dtype, FieldOf(json, "dtype"));
  TRY_ASSIGN(tensor.scalar_type, IntegerOf(*dtype));
  TRY_ASSIGN(const ProgramJson* const sizes, FieldOf(json, "sizes"));
  if (!sizes->is_array()) return Corrupt("sizes is not a list");
  for (const ProgramJson& size : *sizes) {
    TRY_ASSIGN(const ProgramArgument argument, UnionOf(size));
    tensor.sizes.push_back(argument);
  }
  return tensor;
}

Result<ExportedProgram> ParseProgram(std::string_view text) {
  ExportedProgram program;
  TRY_ASSIGN(program.document, ParseProgramJson(text, KeepOfProgram));
  TRY(CheckVersion(program.document));
  TRY_ASSIGN(const ProgramJson* const module, FieldOf(program.document, "graph_module"));
  TRY_ASSIGN(const ProgramJson* const graph, FieldOf(*module, "graph"));
  TRY_ASSIGN(const ProgramJson* const signature, FieldOf(*module, "signature"));
  TRY_ASSIGN(program.inputs,
             ParseEach<ProgramInput>(*signature, "input_specs", ParseInput, program.refusals));
  TRY_ASSIGN(program.outputs,
             ParseEach<ProgramOutput>(*signature, "output_specs", ParseOutput, program.refusals));
  TRY_ASSIGN(program.nodes, ParseEach<ProgramNode>(*graph, "nodes", ParseNode, program.refusals));
  TRY(ParseValues(*graph, program));
  TRY(ParseRanges(program.document, program));
  program.output_names = OutputKeys(*module);
  if (program.document.contains("torch_version") && program.document["torch_version"].is_string())
    program.torch_version = program.document["torch_version"].get<std::string>();
  return program;
}

}  // namespace millpower::import::torch
