#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "ranking/elements.h"
#include "serve/fields.h"
#include "serve/inference/kserve.h"

namespace millpower::serve::kserve {
namespace {

constexpr int64_t kTimeoutMaxUs = 3'600'000'000;
constexpr size_t kIdMaxBytes = 256;

std::unexpected<Error> Bad(const std::string& message, const std::string& param = {},
                           ErrorCode code = ErrorCode::kInvalidArgument) {
  return Fail(code, message, param);
}

// Where the JSON ends and binary tensors begin.
Result<size_t> HeaderLength(std::string_view text, size_t body_bytes) {
  if (text.empty()) return body_bytes;
  size_t length = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), length);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size() || length > body_bytes)
    return Bad("Inference-Header-Content-Length is no length within the body");
  return length;
}

struct Wanted {
  int output = 0;
  bool is_binary = false;
};

class Reader {
 public:
  Reader(const ranking::ModelPtr& model, std::shared_ptr<TensorStore> store)
      : model_(model), store_(std::move(store)) {}

  Result<InferenceCall> Read(std::string_view header_length) {
    const std::string_view body = store_->body;
    TRY_ASSIGN(const size_t length, HeaderLength(header_length, body.size()));
    binary_ = body.substr(length);
    TRY_ASSIGN(const Json json, ParseBody(body.substr(0, length)));
    FieldReader fields(json);
    fields.Read("id", id_);
    if (id_.size() > kIdMaxBytes) fields.Refuse("id", "is too long");
    TRY(fields.status());
    TRY(ReadParameters(fields));
    TRY(ReadInputs(fields));
    if (!binary_.empty())
      return Bad(fmt::format("{} bytes follow the last binary tensor", binary_.size()));
    TRY(ReadOutputs(fields));
    call_.request.owner = store_;
    call_.reply = [model = model_, id = std::move(id_), wanted = std::move(wanted_)](
                      const ranking::Answer& answer) { return Reply(*model, id, wanted, answer); };
    return std::move(call_);
  }

 private:
  static Result<void> CheckObject(const Json* json, const char* name) {
    if (json != nullptr && !json->is_object())
      return Bad(fmt::format("{} must be an object", name), name);
    return {};
  }

  Result<void> ReadParameters(const FieldReader& fields) {
    const Json* parameters = fields.Find("parameters");
    TRY(CheckObject(parameters, "parameters"));
    if (parameters == nullptr) return {};
    FieldReader reader(*parameters, "parameters.");
    reader.Read("binary_data_output", all_binary_);
    reader.Read("timeout", call_.timeout_us, int64_t{0}, kTimeoutMaxUs);
    reader.Read("priority", call_.priority, int64_t{0}, INT64_MAX);
    return reader.status();
  }

  Result<void> ReadInputs(const FieldReader& fields) {
    const Json* inputs = fields.Find("inputs");
    if (inputs == nullptr || !inputs->is_array()) return Bad("inputs must be a list", "inputs");
    const auto& ports = model_->signature.inputs;
    std::vector<bool> given(ports.size(), false);
    call_.request.inputs.resize(ports.size());
    for (const Json& input : *inputs) {
      TRY(CheckObject(&input, "inputs"));
      FieldReader reader(input, "inputs.");
      std::string name;
      reader.Read("name", name);
      TRY(reader.status());
      const int index = model_->signature.FindInput(name);
      if (index < 0) return Bad(fmt::format("the model has no input '{}'", name), name);
      const auto at = static_cast<size_t>(index);
      if (given[at]) return Bad(fmt::format("input '{}' is given twice", name), name);
      given[at] = true;
      TRY_ASSIGN(call_.request.inputs[at], ReadInput(reader, ports[at]));
    }
    for (size_t i = 0; i < ports.size(); ++i)
      if (!given[i]) return Bad(fmt::format("input '{}' is missing", ports[i].name), ports[i].name);
    return {};
  }

  Result<ranking::InputTensor> ReadInput(FieldReader& reader, const ranking::Port& port) {
    const auto bad = [&](const std::string& what) {
      return Bad(fmt::format("input '{}' {}", port.name, what), port.name);
    };
    std::string datatype;
    reader.Read("datatype", datatype);
    TRY(reader.status());
    if (datatype != DatatypeOf(port))
      return bad(fmt::format("is of datatype {}, not '{}'", DatatypeOf(port), datatype));
    std::vector<int64_t> shape;
    TRY(ReadShape(reader.Find("shape"), port, shape));
    TRY_ASSIGN(const int64_t count, CountElements(shape));
    int64_t binary_bytes = -1;
    if (const Json* parameters = reader.Find("parameters")) {
      TRY(CheckObject(parameters, "inputs.parameters"));
      FieldReader inner(*parameters, "inputs.parameters.");
      inner.Read("binary_data_size", binary_bytes, int64_t{0}, INT64_MAX);
      TRY(inner.status());
      if (parameters->contains("shared_memory_region"))
        return Bad("shared memory is not supported", port.name, ErrorCode::kUnsupported);
    }
    const Json* data = reader.Find("data");
    if ((data != nullptr) == (binary_bytes >= 0))
      return bad("must have either data or parameters.binary_data_size");
    if (data == nullptr) return TakeBinary(port, std::move(shape), count, binary_bytes);
    TensorBuilder builder(port, *store_, ByteStrings::kPlain);
    if (!data->is_array()) return bad("has data that is no list");
    TRY(builder.AddFlat(*data));
    if (builder.count() != count)
      return bad(
          fmt::format("has {} elements in data, but its shape wants {}", builder.count(), count));
    return builder.Build(std::move(shape));
  }

  static Result<void> ReadShape(const Json* json, const ranking::Port& port,
                                std::vector<int64_t>& shape) {
    const auto bad = [&] {
      return Bad(fmt::format("input '{}' needs a shape: a list of sizes", port.name), port.name);
    };
    constexpr size_t kRankMax = 16;
    if (json == nullptr || !json->is_array() || json->size() > kRankMax) return bad();
    for (const Json& size : *json) {
      if (!size.is_number_integer() || size.get<int64_t>() < 0) return bad();
      shape.push_back(size.get<int64_t>());
    }
    return {};
  }

  Result<ranking::InputTensor> TakeBinary(const ranking::Port& port, std::vector<int64_t> shape,
                                          int64_t count, int64_t bytes) {
    const auto bad = [&](const std::string& what) {
      return Bad(fmt::format("input '{}' {}", port.name, what), port.name);
    };
    if (bytes > std::ssize(binary_))
      return bad(fmt::format("has {} binary bytes, but only {} are left", bytes, binary_.size()));
    const std::string_view taken = binary_.substr(0, static_cast<size_t>(bytes));
    binary_.remove_prefix(taken.size());
    ranking::InputTensor tensor{.shape = std::move(shape)};
    if (!port.is_string) {
      if (bytes != count * SizeBytes(port.dtype))
        return bad(fmt::format("has {} binary bytes, but its shape wants {}", bytes,
                               count * SizeBytes(port.dtype)));
      tensor.bytes = std::as_bytes(std::span(taken));
      return tensor;
    }
    // Each string behind its length, a u32.
    std::string_view rest = taken;
    while (!rest.empty()) {
      uint32_t length = 0;
      if (rest.size() < sizeof length) return bad("ends within the length of a string");
      std::memcpy(&length, rest.data(), sizeof length);
      rest.remove_prefix(sizeof length);
      if (length > rest.size()) return bad("ends within a string");
      tensor.strings.push_back(rest.substr(0, length));
      rest.remove_prefix(length);
    }
    if (std::ssize(tensor.strings) != count)
      return bad(
          fmt::format("has {} strings, but its shape wants {}", tensor.strings.size(), count));
    return tensor;
  }

  Result<void> ReadOutputs(const FieldReader& fields) {
    const auto& ports = model_->signature.outputs;
    const Json* outputs = fields.Find("outputs");
    if (outputs == nullptr || (outputs->is_array() && outputs->empty())) {
      for (size_t i = 0; i < ports.size(); ++i)
        wanted_.push_back({static_cast<int>(i), all_binary_});
      return {};
    }
    if (!outputs->is_array()) return Bad("outputs must be a list", "outputs");
    for (const Json& output : *outputs) {
      TRY(CheckObject(&output, "outputs"));
      FieldReader reader(output, "outputs.");
      std::string name;
      reader.Read("name", name);
      TRY(reader.status());
      Wanted wanted{.output = model_->signature.FindOutput(name), .is_binary = all_binary_};
      if (wanted.output < 0) return Bad(fmt::format("the model has no output '{}'", name), name);
      if (std::ranges::find(wanted_, wanted.output, &Wanted::output) != wanted_.end())
        return Bad(fmt::format("output '{}' is asked for twice", name), name);
      if (const Json* parameters = reader.Find("parameters")) {
        TRY(CheckObject(parameters, "outputs.parameters"));
        FieldReader inner(*parameters, "outputs.parameters.");
        inner.Read("binary_data", wanted.is_binary);
        int64_t classes = 0;
        inner.Read("classification", classes, int64_t{0}, INT64_MAX);
        TRY(inner.status());
        if (classes != 0 || parameters->contains("shared_memory_region"))
          return Bad("classification and shared memory are not supported", name,
                     ErrorCode::kUnsupported);
      }
      wanted_.push_back(wanted);
    }
    return {};
  }

  static HttpResponse Reply(const ranking::Model& model, const std::string& id,
                            const std::vector<Wanted>& wanted, const ranking::Answer& answer) {
    std::string json = fmt::format("{{\"model_name\":{},\"model_version\":\"{}\"",
                                   DumpJson(model.name), model.version);
    if (!id.empty()) json += fmt::format(",\"id\":{}", DumpJson(id));
    json += ",\"outputs\":[";
    std::string binary;
    bool any_binary = false;
    for (const Wanted& one : wanted) {
      const auto at = static_cast<size_t>(one.output);
      const ranking::Port& port = model.signature.outputs[at];
      const ranking::OutputTensor& tensor = answer.outputs[at];
      if (&one != &wanted.front()) json += ',';
      json += fmt::format("{{\"name\":{},\"datatype\":\"{}\",\"shape\":[{}]", DumpJson(port.name),
                          DatatypeOf(port), fmt::join(tensor.shape, ","));
      if (one.is_binary) {
        any_binary = true;
        json += fmt::format(",\"parameters\":{{\"binary_data_size\":{}}}}}", tensor.bytes.size());
        binary.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
      } else {
        json += ",\"data\":[";
        AppendElements(tensor.bytes, port.dtype, json);
        json += "]}";
      }
    }
    json += "]}";
    if (!any_binary) return {.body = std::move(json)};
    HttpResponse response;
    response.content_type = "application/octet-stream";
    response.headers.emplace_back("inference-header-content-length", std::to_string(json.size()));
    response.body = std::move(json);
    response.body += binary;
    return response;
  }

  const ranking::ModelPtr model_;
  const std::shared_ptr<TensorStore> store_;
  std::string_view binary_;  // what has not been taken
  InferenceCall call_;
  std::string id_;
  bool all_binary_ = false;
  std::vector<Wanted> wanted_;
};

}  // namespace

const char* DatatypeOf(const ranking::Port& port) {
  if (port.is_string) return "BYTES";
  switch (port.dtype) {
    case DType::kBool:
      return "BOOL";
    case DType::kU8:
      return "UINT8";
    case DType::kU16:
      return "UINT16";
    case DType::kU32:
      return "UINT32";
    case DType::kU64:
      return "UINT64";
    case DType::kI8:
      return "INT8";
    case DType::kI16:
      return "INT16";
    case DType::kI32:
      return "INT32";
    case DType::kI64:
      return "INT64";
    case DType::kF16:
      return "FP16";
    case DType::kBf16:
      return "BF16";
    case DType::kF64:
      return "FP64";
    default:
      return "FP32";
  }
}

Result<InferenceCall> ReadInfer(const ranking::ModelPtr& model, std::shared_ptr<TensorStore> store,
                                std::string_view header_length) {
  return Reader(model, std::move(store)).Read(header_length);
}

}  // namespace millpower::serve::kserve
