#include "serve/inference/tfserving.h"

#include <fmt/format.h>

#include <algorithm>

#include "ranking/elements.h"
#include "serve/fields.h"

namespace millpower::serve::tfserving {
namespace {

// The only signature that a model here has; requests may name it, or what it is of.
constexpr const char* kSignatureName = "serving_default";
constexpr const char* kPredictMethod = "tensorflow/serving/predict";
constexpr std::string_view kSignatureNames[] = {"", kSignatureName, kPredictMethod,
                                                "tensorflow/serving/classify",
                                                "tensorflow/serving/regress"};

std::unexpected<Error> Bad(const std::string& message, const std::string& param = {}) {
  return Fail(ErrorCode::kInvalidArgument, message, param);
}

Result<void> CheckFields(const Json& body, std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : body.items())
    if (std::ranges::find(known, name) == known.end())
      return Bad(fmt::format("'{}' is unknown", name), name);
  std::string signature = kSignatureName;
  FieldReader fields(body);
  fields.Read("signature_name", signature);
  TRY(fields.status());
  if (std::ranges::find(kSignatureNames, signature) == std::end(kSignatureNames))
    return Fail(ErrorCode::kNotFound,
                fmt::format("there is no signature '{}', only '{}'", signature, kSignatureName),
                "signature_name");
  return {};
}

// A value of the input, given in lists within lists.
Result<ranking::InputTensor> ReadTensor(const ranking::Port& port, TensorStore& store,
                                        const Json& value) {
  TensorBuilder builder(port, store, ByteStrings::kBase64Objects);
  std::vector<int64_t> shape;
  TRY(builder.AddNested(value, shape));
  return builder.Build(std::move(shape));
}

// Whether a value is that of a model's only input, rather than values by name.
bool IsBare(const Json& value) {
  return !value.is_object() || (value.size() == 1 && value.contains("b64"));
}

Result<const ranking::Port*> OnlyInput(const ranking::Model& model) {
  const auto& ports = model.signature.inputs;
  if (ports.size() == 1) return &ports[0];
  return Bad(fmt::format("the model has {} inputs, which must be named", ports.size()));
}

Result<void> CheckNames(const ranking::Model& model, const Json& values) {
  for (const auto& [name, value] : values.items())
    if (model.signature.FindInput(name) < 0)
      return Bad(fmt::format("the model has no input '{}'", name), name);
  for (const ranking::Port& port : model.signature.inputs)
    if (!values.contains(port.name))
      return Bad(fmt::format("input '{}' is missing", port.name), port.name);
  return {};
}

// {"inputs": ...}
Result<void> ReadColumns(const ranking::Model& model, TensorStore& store, const Json& inputs,
                         ranking::Request& request) {
  if (IsBare(inputs)) {
    TRY_ASSIGN(const ranking::Port* port, OnlyInput(model));
    TRY_ASSIGN(ranking::InputTensor tensor, ReadTensor(*port, store, inputs));
    request.inputs.push_back(std::move(tensor));
    return {};
  }
  TRY(CheckNames(model, inputs));
  for (const ranking::Port& port : model.signature.inputs) {
    TRY_ASSIGN(ranking::InputTensor tensor, ReadTensor(port, store, inputs[port.name]));
    request.inputs.push_back(std::move(tensor));
  }
  return {};
}

// Each value is a row of the input.
Result<ranking::InputTensor> ReadRows(const ranking::Port& port, TensorStore& store,
                                      const Json& instances, bool named) {
  TensorBuilder builder(port, store, ByteStrings::kBase64Objects);
  std::vector<int64_t> whole = {std::ssize(instances)}, shape;
  for (const Json& instance : instances) {
    TRY(builder.AddNested(named ? instance[port.name] : instance, shape));
    if (whole.size() == 1) whole.insert(whole.end(), shape.begin(), shape.end());
    if (!std::ranges::equal(std::span(whole).subspan(1), shape))
      return Bad(fmt::format("input '{}' has rows of different shapes", port.name), port.name);
  }
  return builder.Build(std::move(whole));
}

// A list of rows.
Result<void> ReadInstances(const ranking::Model& model, TensorStore& store, const Json& instances,
                           const char* field, ranking::Request& request) {
  if (!instances.is_array() || instances.empty())
    return Bad(fmt::format("{} must be a list that is not empty", field), field);
  const bool named = !IsBare(instances[0]);
  for (const Json& instance : instances) {
    if (IsBare(instance) == named) return Bad(fmt::format("{} are not alike", field), field);
    if (named) TRY(CheckNames(model, instance));
  }
  if (!named) TRY(OnlyInput(model));
  const Size batch = Size::Symbol(model.signature.batch);
  for (const ranking::Port& port : model.signature.inputs) {
    if (model.signature.batch.empty() || port.shape.empty() || port.shape[0] != batch)
      return Bad(fmt::format("input '{}' has no row for each of {}: give inputs by column",
                             port.name, field),
                 port.name);
    TRY_ASSIGN(ranking::InputTensor tensor, ReadRows(port, store, instances, named));
    request.inputs.push_back(std::move(tensor));
  }
  return {};
}

std::string NestedText(const ranking::Port& port, const ranking::OutputTensor& tensor) {
  std::string json;
  AppendNested(tensor.bytes, port.dtype, tensor.shape, json);
  return json;
}

// Whether outputs can be told row by row.
Result<void> CheckHasRows(const ranking::Signature& signature) {
  const Size batch = Size::Symbol(signature.batch);
  for (const ranking::Port& port : signature.outputs)
    if (signature.batch.empty() || port.shape.empty() || port.shape[0] != batch)
      return Bad(
          fmt::format("output '{}' has no row for each instance: give inputs by column", port.name),
          "instances");
  return {};
}

// {"outputs": {...}}, or the only one's value.
HttpResponse ColumnsReply(const ranking::Model& model, const ranking::Answer& answer) {
  const auto& ports = model.signature.outputs;
  std::string json = "{\"outputs\":";
  if (ports.size() != 1) json += '{';
  for (size_t i = 0; i < ports.size(); ++i) {
    if (i != 0) json += ',';
    if (ports.size() != 1) json += DumpJson(ports[i].name) + ":";
    json += NestedText(ports[i], answer.outputs[i]);
  }
  json += ports.size() != 1 ? "}}" : "}";
  return {.body = std::move(json)};
}

// One row of an output that has a row for each instance.
ranking::OutputTensor RowOf(const ranking::OutputTensor& tensor, int64_t row) {
  const size_t bytes = tensor.bytes.size() / static_cast<size_t>(tensor.shape[0]);
  return {.shape = {tensor.shape.begin() + 1, tensor.shape.end()},
          .bytes = tensor.bytes.subspan(static_cast<size_t>(row) * bytes, bytes)};
}

// {"predictions": [...]}
HttpResponse RowsReply(const ranking::Model& model, const ranking::Answer& answer) {
  const auto& ports = model.signature.outputs;
  std::string json = "{\"predictions\":[";
  for (int64_t row = 0; row < answer.rows; ++row) {
    if (row != 0) json += ',';
    if (ports.size() != 1) json += '{';
    for (size_t i = 0; i < ports.size(); ++i) {
      if (i != 0) json += ',';
      if (ports.size() != 1) json += DumpJson(ports[i].name) + ":";
      json += NestedText(ports[i], RowOf(answer.outputs[i], row));
    }
    if (ports.size() != 1) json += '}';
  }
  json += "]}";
  return {.body = std::move(json)};
}

// Examples name their features; those of the context are every example's.
Result<Json> ReadExamples(const Json& body) {
  const auto examples = body.find("examples");
  if (examples == body.end() || !examples->is_array() || examples->empty())
    return Bad("examples must be a list that is not empty", "examples");
  const auto context = body.find("context");
  if (context != body.end() && !context->is_object())
    return Bad("context must be an object", "context");
  Json merged = Json::array();
  for (const Json& example : *examples) {
    if (!example.is_object()) return Bad("each example must be an object", "examples");
    Json one = context == body.end() ? Json::object() : *context;
    one.update(example);
    merged.push_back(std::move(one));
  }
  return merged;
}

// A feature of an Example is a list, of one where the input takes single values.
void Unwrap(const ranking::Model& model, Json& examples) {
  for (const ranking::Port& port : model.signature.inputs) {
    if (port.shape.size() != 1) continue;
    for (Json& example : examples) {
      const auto feature = example.find(port.name);
      if (feature != example.end() && feature->is_array() && feature->size() == 1) {
        Json only = std::move(feature->front());
        *feature = std::move(only);
      }
    }
  }
}

Result<InferenceCall> ReadExamplesCall(const ranking::ModelPtr& model,
                                       std::shared_ptr<TensorStore> store) {
  TRY_ASSIGN(const Json body, ParseBody(store->body));
  TRY(CheckFields(body, {"signature_name", "context", "examples"}));
  TRY_ASSIGN(Json examples, ReadExamples(body));
  Unwrap(*model, examples);
  InferenceCall call;
  TRY(ReadInstances(*model, *store, examples, "examples", call.request));
  call.request.owner = std::move(store);
  return call;
}

// The output that a method is about. Errors: kUnsupported.
Result<int> ResultOutput(const ranking::Model& model, const char* name) {
  const auto& ports = model.signature.outputs;
  int index = model.signature.FindOutput(name);
  if (index < 0 && ports.size() == 1) index = 0;
  const bool is_fit =
      index >= 0 && IsFloat(ports[static_cast<size_t>(index)].dtype) &&
      !ports[static_cast<size_t>(index)].shape.empty() &&
      ports[static_cast<size_t>(index)].shape[0] == Size::Symbol(model.signature.batch);
  if (is_fit) return index;
  return Fail(
      ErrorCode::kUnsupported,
      fmt::format("the model has no output '{}' with a row for each example: use :predict", name));
}

HttpResponse ClassifyReply(const ranking::Model& model, int scores_at,
                           const ranking::Answer& answer) {
  const auto at = static_cast<size_t>(scores_at);
  const int classes_at = model.signature.FindOutput("classes");
  const ranking::OutputTensor& scores = answer.outputs[at];
  const DType dtype = model.signature.outputs[at].dtype;
  const auto size = static_cast<size_t>(SizeBytes(dtype));
  const size_t per_row = scores.bytes.size() / size / static_cast<size_t>(answer.rows);
  const ranking::OutputTensor* classes = nullptr;
  DType class_type = DType::kI64;
  if (classes_at >= 0) {
    class_type = model.signature.outputs[static_cast<size_t>(classes_at)].dtype;
    classes = &answer.outputs[static_cast<size_t>(classes_at)];
    const bool fits = IsInteger(class_type) &&
                      classes->bytes.size() / static_cast<size_t>(SizeBytes(class_type)) ==
                          scores.bytes.size() / size;
    if (!fits) classes = nullptr;
  }
  std::string json = "{\"results\":[";
  for (size_t i = 0; i < scores.bytes.size() / size; ++i) {
    const bool begins = i % per_row == 0;
    if (i != 0) json += ',';
    if (begins) json += '[';
    std::string label;
    if (classes != nullptr)
      label = std::to_string(ranking::IntegerAt(
          classes->bytes.data() + i * static_cast<size_t>(SizeBytes(class_type)), class_type));
    json += "[\"" + label + "\",";
    AppendElements(scores.bytes.subspan(i * size, size), dtype, json);
    json += ']';
    if ((i + 1) % per_row == 0) json += ']';
  }
  json += "]}";
  return {.body = std::move(json)};
}

HttpResponse RegressReply(const ranking::Model& model, int output, const ranking::Answer& answer) {
  const auto at = static_cast<size_t>(output);
  std::string json = "{\"results\":[";
  AppendElements(answer.outputs[at].bytes, model.signature.outputs[at].dtype, json);
  json += "]}";
  return {.body = std::move(json)};
}

Json PortsJson(const std::vector<ranking::Port>& ports) {
  Json json = Json::object();
  for (const ranking::Port& port : ports) {
    Json dimensions = Json::array();
    for (const Size& size : port.shape)
      dimensions.push_back({{"size", std::to_string(size.Constant().value_or(-1))}, {"name", ""}});
    Json shape = {{"unknown_rank", false}};
    if (!dimensions.empty()) shape["dim"] = std::move(dimensions);
    json[port.name] = {
        {"dtype", TypeNameOf(port)}, {"tensor_shape", std::move(shape)}, {"name", port.name}};
  }
  return json;
}

}  // namespace

Result<InferenceCall> ReadPredict(const ranking::ModelPtr& model,
                                  std::shared_ptr<TensorStore> store) {
  TRY_ASSIGN(const Json body, ParseBody(store->body));
  TRY(CheckFields(body, {"signature_name", "instances", "inputs"}));
  const bool by_row = body.contains("instances");
  if (by_row == body.contains("inputs")) return Bad("give either instances or inputs");
  if (by_row) TRY(CheckHasRows(model->signature));
  InferenceCall call;
  if (by_row)
    TRY(ReadInstances(*model, *store, body["instances"], "instances", call.request));
  else
    TRY(ReadColumns(*model, *store, body["inputs"], call.request));
  call.request.owner = std::move(store);
  call.reply = [model, by_row](const ranking::Answer& answer) {
    return by_row ? RowsReply(*model, answer) : ColumnsReply(*model, answer);
  };
  return call;
}

Result<InferenceCall> ReadClassify(const ranking::ModelPtr& model,
                                   std::shared_ptr<TensorStore> store) {
  TRY_ASSIGN(const int output, ResultOutput(*model, "scores"));
  TRY_ASSIGN(InferenceCall call, ReadExamplesCall(model, std::move(store)));
  call.reply = [model, output](const ranking::Answer& answer) {
    return ClassifyReply(*model, output, answer);
  };
  return call;
}

Result<InferenceCall> ReadRegress(const ranking::ModelPtr& model,
                                  std::shared_ptr<TensorStore> store) {
  TRY_ASSIGN(const int output, ResultOutput(*model, "outputs"));
  const auto& shape = model->signature.outputs[static_cast<size_t>(output)].shape;
  const bool is_single = shape.size() == 1 || (shape.size() == 2 && shape[1] == Size(1));
  if (!is_single)
    return Fail(ErrorCode::kUnsupported,
                "the model gives more than one number for an example: use :predict");
  TRY_ASSIGN(InferenceCall call, ReadExamplesCall(model, std::move(store)));
  call.reply = [model, output](const ranking::Answer& answer) {
    return RegressReply(*model, output, answer);
  };
  return call;
}

const char* TypeNameOf(const ranking::Port& port) {
  if (port.is_string) return "DT_STRING";
  switch (port.dtype) {
    case DType::kBool:
      return "DT_BOOL";
    case DType::kU8:
      return "DT_UINT8";
    case DType::kU16:
      return "DT_UINT16";
    case DType::kU32:
      return "DT_UINT32";
    case DType::kU64:
      return "DT_UINT64";
    case DType::kI8:
      return "DT_INT8";
    case DType::kI16:
      return "DT_INT16";
    case DType::kI32:
      return "DT_INT32";
    case DType::kI64:
      return "DT_INT64";
    case DType::kF16:
      return "DT_HALF";
    case DType::kBf16:
      return "DT_BFLOAT16";
    case DType::kF64:
      return "DT_DOUBLE";
    default:
      return "DT_FLOAT";
  }
}

Json Metadata(const ranking::Model& model) {
  Json signature = {{"inputs", PortsJson(model.signature.inputs)},
                    {"outputs", PortsJson(model.signature.outputs)},
                    {"method_name", kPredictMethod}};
  Json signatures = Json::object();
  signatures[kSignatureName] = std::move(signature);
  Json metadata = Json::object();
  metadata["signature_def"] = {{"signature_def", std::move(signatures)}};
  return {
      {"model_spec",
       {{"name", model.name}, {"signature_name", ""}, {"version", std::to_string(model.version)}}},
      {"metadata", std::move(metadata)}};
}

Json Status(const std::vector<ranking::ModelPtr>& versions) {
  Json list = Json::array();
  for (const ranking::ModelPtr& model : versions)
    list.push_back({{"version", std::to_string(model->version)},
                    {"state", "AVAILABLE"},
                    {"status", {{"error_code", "OK"}, {"error_message", ""}}}});
  return {{"model_version_status", std::move(list)}};
}

}  // namespace millpower::serve::tfserving
