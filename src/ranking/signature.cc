#include "ranking/signature.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "ranking/shape.h"

namespace millpower::ranking {
namespace {

constexpr int64_t kVersion = 1;

template <typename Named>
int FindByName(const std::vector<Named>& all, std::string_view name) {
  const auto found = std::ranges::find(all, name, &Named::name);
  return found == all.end() ? -1 : static_cast<int>(found - all.begin());
}

// ---- To JSON

bool IsUtf8(const std::string& text) {
  try {
    (void)Json(text).dump();
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

Json KeyToJson(const std::string& key) {
  if (IsUtf8(key)) return key;
  std::string hex;
  for (const char c : key) hex += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return {{"hex", hex}};
}

Json ToJson(const Size& size) {
  if (const auto constant = size.Constant()) return *constant;
  return size.ToString();
}

Json ToJson(const Port& port) {
  Json json = {{"name", port.name}, {"dtype", port.is_string ? "string" : Name(port.dtype)}};
  json["shape"] = Json::array();
  for (const Size& size : port.shape) json["shape"].push_back(ToJson(size));
  if (!port.buffer.empty()) json["buffer"] = port.buffer;
  if (!port.offsets_of.empty()) json["offsets_of"] = port.offsets_of;
  if (!port.id_policy.empty()) json["id_policy"] = port.id_policy;
  return json;
}

Json ToJson(const Lookup& lookup) {
  Json json = {{"input", lookup.input}, {"buffer", lookup.buffer}};
  json["keys"] = Json::array();
  for (const std::string& key : lookup.keys) json["keys"].push_back(KeyToJson(key));
  json["values"] = lookup.values;
  json["otherwise"] = lookup.otherwise;
  if (lookup.buckets != 0) json["buckets"] = lookup.buckets;
  if (lookup.bucket_base != 0) json["bucket_base"] = lookup.bucket_base;
  return json;
}

// ---- From JSON

std::unexpected<Error> Corrupt(const std::string& path, const char* what) {
  return Fail(ErrorCode::kCorrupt, "signature: " + path + " " + what);
}

// Reads one object; the first fault is kept.
class Reader {
 public:
  Reader(const Json& json, std::string path) : json_(json), path_(std::move(path)) {
    if (!json.is_object()) Refuse("", "is no object");
  }

  const Json* Find(const char* name) const {
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(name);
    return found == json_.end() ? nullptr : &*found;
  }
  void Read(const char* name, std::string& value) {
    const Json* field = Find(name);
    if (field == nullptr) return;
    if (!field->is_string()) return Refuse(name, "is no string");
    value = field->get<std::string>();
  }
  void Read(const char* name, bool& value) {
    const Json* field = Find(name);
    if (field == nullptr) return;
    if (!field->is_boolean()) return Refuse(name, "is no boolean");
    value = field->get<bool>();
  }
  void Read(const char* name, int64_t& value) {
    const Json* field = Find(name);
    if (field != nullptr && !ReadInteger(*field, value)) Refuse(name, "is no integer");
  }
  // Calls read(element, path of the element), which gives a Result<void>, for each.
  template <typename Function>
  void ReadEach(const char* name, Function read) {
    const Json* field = Find(name);
    if (field == nullptr || !status) return;
    if (!field->is_array()) return Refuse(name, "is no list");
    size_t index = 0;
    for (const Json& element : *field) {
      status = read(element, fmt::format("{}{}[{}]", path_, name, index++));
      if (!status) return;
    }
  }
  void Refuse(const std::string& name, const char* what) {
    if (status) status = Corrupt(path_ + name, what);
  }
  static bool ReadInteger(const Json& json, int64_t& value) {
    if (!json.is_number_integer()) return false;
    if (json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX) return false;
    value = json.get<int64_t>();
    return true;
  }

  Result<void> status;

 private:
  const Json& json_;
  const std::string path_;
};

Result<std::string> KeyFromJson(const Json& json, const std::string& path) {
  if (json.is_string()) return json.get<std::string>();
  std::string hex, key;
  Reader reader(json, path + ".");
  reader.Read("hex", hex);
  TRY(reader.status);
  for (size_t i = 0; i < hex.size(); i += 2) {
    uint8_t byte = 0;
    const char* const digits = hex.data() + i;
    if (i + 2 > hex.size() || std::from_chars(digits, digits + 2, byte, 16).ptr != digits + 2)
      return Corrupt(path, "is no hexadecimal string");
    key += static_cast<char>(byte);
  }
  return key;
}

Result<Size> SizeFromJson(const Json& json, const std::string& path) {
  int64_t constant = 0;
  if (Reader::ReadInteger(json, constant) && constant >= 0) return Size(constant);
  if (!json.is_string()) return Corrupt(path, "is no size");
  auto size = Size::Parse(json.get<std::string>());
  if (!size) return Corrupt(path, "is no size");
  return *std::move(size);
}

Result<void> PortFromJson(const Json& json, const std::string& path, std::vector<Port>& ports) {
  Port port;
  Reader reader(json, path + ".");
  std::string dtype;
  reader.Read("name", port.name);
  reader.Read("dtype", dtype);
  reader.Read("buffer", port.buffer);
  reader.Read("id_policy", port.id_policy);
  port.is_string = dtype == "string";
  const auto known = DTypeFromName(dtype);
  if (!port.is_string && !(known && IsElementType(*known)))
    reader.Refuse("dtype", "is no type of elements");
  port.dtype = port.is_string ? DType::kI64 : known.value_or(DType::kF32);
  reader.ReadEach("shape", [&](const Json& element, const std::string& where) -> Result<void> {
    TRY_ASSIGN(Size size, SizeFromJson(element, where));
    port.shape.push_back(std::move(size));
    return {};
  });
  reader.ReadEach("offsets_of", [&](const Json& element, const std::string& where) -> Result<void> {
    if (!element.is_string()) return Corrupt(where, "is no string");
    port.offsets_of.push_back(element.get<std::string>());
    return {};
  });
  TRY(reader.status);
  ports.push_back(std::move(port));
  return {};
}

Result<void> LookupFromJson(const Json& json, const std::string& path,
                            std::vector<Lookup>& prologue) {
  Lookup lookup;
  Reader reader(json, path + ".");
  reader.Read("input", lookup.input);
  reader.Read("buffer", lookup.buffer);
  reader.Read("otherwise", lookup.otherwise);
  reader.Read("buckets", lookup.buckets);
  reader.Read("bucket_base", lookup.bucket_base);
  reader.ReadEach("keys", [&](const Json& element, const std::string& where) -> Result<void> {
    TRY_ASSIGN(std::string key, KeyFromJson(element, where));
    lookup.keys.push_back(std::move(key));
    return {};
  });
  reader.ReadEach("values", [&](const Json& element, const std::string& where) -> Result<void> {
    int64_t value = 0;
    if (!Reader::ReadInteger(element, value)) return Corrupt(where, "is no integer");
    lookup.values.push_back(value);
    return {};
  });
  TRY(reader.status);
  prologue.push_back(std::move(lookup));
  return {};
}

// ---- Against the Program

std::unexpected<Error> Misfit(const std::string& port, const std::string& what) {
  return Fail(ErrorCode::kInvalidArgument, "'" + port + "' " + what);
}

class Checker {
 public:
  Checker(const Signature& signature, const isa::Program& program)
      : signature_(signature), program_(program) {}

  Result<void> Check() {
    if (!signature_.batch.empty()) {
      const int32_t reg = program_.FindRegister(signature_.batch);
      if (reg < 0 || !IsFree(program_.registers[static_cast<size_t>(reg)]))
        return Misfit(signature_.batch, "is not a size of the Program");
    }
    TRY(CheckNames(signature_.inputs));
    TRY(CheckNames(signature_.outputs));
    for (const Port& port : signature_.inputs) TRY(CheckInput(port));
    for (const Lookup& lookup : signature_.prologue) TRY(CheckLookup(lookup));
    for (const Port& port : signature_.outputs) TRY(CheckOutput(port));
    for (const Port& port : signature_.inputs) TRY(CheckOffsets(port));
    for (const isa::Buffer& buffer : program_.buffers)
      if (buffer.kind == isa::BufferKind::kInput && !filled_.contains(buffer.name))
        return Misfit(buffer.name, "is an input of the Program that nothing fills");
    for (const isa::Register& reg : program_.registers)
      if (IsFree(reg) && !known_.contains(reg.name))
        return Misfit(reg.name, "is a size that no input's shape tells");
    return {};
  }

 private:
  static Result<void> CheckNames(const std::vector<Port>& ports) {
    std::set<std::string_view> names;
    for (const Port& port : ports)
      if (port.name.empty() || !names.insert(port.name).second)
        return Misfit(port.name, "is not a name of one port only");
    return {};
  }

  Result<void> CheckInput(const Port& port) {
    for (const Size& size : port.shape) {
      const auto dimension = MakeDimension(size, program_);
      if (!dimension) return FailAt("'" + port.name + "'", dimension.error());
      if (dimension->is_line && dimension->symbol >= 0 && dimension->coefficient > 0)
        known_.insert(program_.registers[static_cast<size_t>(dimension->symbol)].name);
    }
    const bool is_looked_up = std::ranges::find(signature_.prologue, port.name, &Lookup::input) !=
                              signature_.prologue.end();
    if (port.buffer.empty() && !is_looked_up) return Misfit(port.name, "goes nowhere");
    if (port.is_string && !port.buffer.empty())
      return Misfit(port.name, "is of strings, which a Program cannot take");
    if (port.buffer.empty()) return {};
    TRY(Fill(port.name, port.buffer));
    return CheckBuffer(port, port.buffer, port.dtype, isa::BufferKind::kInput);
  }

  Result<void> CheckOutput(const Port& port) {
    if (port.is_string || !port.offsets_of.empty())
      return Misfit(port.name, "is an output of a kind that there is not");
    return CheckBuffer(port, port.buffer, port.dtype, isa::BufferKind::kOutput);
  }

  Result<void> CheckLookup(const Lookup& lookup) {
    const int input = signature_.FindInput(lookup.input);
    if (input < 0) return Misfit(lookup.input, "is looked up, but no input");
    const Port& port = signature_.inputs[static_cast<size_t>(input)];
    if (!port.is_string && !IsInteger(port.dtype))
      return Misfit(port.name, "is looked up, but neither of strings nor of integers");
    if (lookup.keys.size() != lookup.values.size())
      return Misfit(port.name, "is looked up with another number of keys than of values");
    if (lookup.buckets < 0) return Misfit(port.name, "is hashed to a negative number of buckets");
    if (!port.is_string)
      for (const std::string& key : lookup.keys) {
        int64_t value = 0;
        const char* const end = key.data() + key.size();
        const auto read = std::from_chars(key.data(), end, value);
        if (read.ec != std::errc() || read.ptr != end)
          return Misfit(port.name, "is of integers and looked up by '" + key + "'");
      }
    TRY(Fill(port.name, lookup.buffer));
    const int32_t id = program_.FindBuffer(lookup.buffer);
    const DType dtype = id >= 0 && program_.buffers[static_cast<size_t>(id)].dtype == DType::kI32
                            ? DType::kI32
                            : DType::kI64;
    return CheckBuffer(port, lookup.buffer, dtype, isa::BufferKind::kInput);
  }

  Result<void> Fill(const std::string& port, const std::string& buffer) {
    if (!filled_.insert(buffer).second)
      return Misfit(port, "fills the buffer '" + buffer + "', as another does");
    return {};
  }

  Result<void> CheckBuffer(const Port& port, const std::string& name, DType dtype,
                           isa::BufferKind kind) {
    const int32_t id = program_.FindBuffer(name);
    if (id < 0) return Misfit(port.name, "is the buffer '" + name + "', which is not there");
    const isa::Buffer& buffer = program_.buffers[static_cast<size_t>(id)];
    if (buffer.kind != kind || buffer.form != isa::Form::kRows || buffer.dtype != dtype)
      return Misfit(port.name,
                    fmt::format("should be {} rows of {}, but '{}' is {} {} of {}", isa::Name(kind),
                                Name(dtype), name, isa::Name(buffer.kind), isa::Name(buffer.form),
                                Name(buffer.dtype)));
    std::optional<Size> elements = Size(1);
    for (const Size& size : port.shape) {
      const auto dimension = MakeDimension(size, program_);
      if (!dimension) return FailAt("'" + port.name + "'", dimension.error());
      if (elements) elements = elements->Times(size);
    }
    TRY_ASSIGN(const Size rows, RowsOf(buffer, program_));
    const std::optional<Size> there = rows.Times(Size(buffer.cols));
    if (!elements || !there || *elements != *there)
      return Misfit(port.name, fmt::format("has {} elements, but '{}' has {}",
                                           elements ? elements->ToString() : "too many", name,
                                           there ? there->ToString() : "too many"));
    return {};
  }

  Result<void> CheckOffsets(const Port& port) {
    if (port.offsets_of.empty()) return {};
    const Size batch = Size::Symbol(signature_.batch);
    const bool is_list = !signature_.batch.empty() && port.shape.size() == 1 &&
                         (port.shape[0] == batch || port.shape[0] == batch.Plus(1).value()) &&
                         (port.dtype == DType::kI32 || port.dtype == DType::kI64) &&
                         !port.buffer.empty();
    if (!is_list)
      return Misfit(port.name,
                    "holds offsets, but is no list of i32 or i64, one a row or one more");
    for (const std::string& name : port.offsets_of) {
      const int input = signature_.FindInput(name);
      if (input < 0) return Misfit(port.name, "holds offsets of '" + name + "', which is no input");
      const Port& values = signature_.inputs[static_cast<size_t>(input)];
      if (values.shape.empty() || !values.offsets_of.empty() || !cut_.insert(name).second)
        return Misfit(port.name, "holds offsets of '" + name + "', which cannot be cut so");
      const auto symbols = values.shape[0].Symbols();
      if (symbols.size() != 1 || symbols[0] == signature_.batch ||
          values.shape[0] != Size::Symbol(symbols[0]))
        return Misfit(port.name,
                      "holds offsets of '" + name + "', whose length is no symbol of its own");
    }
    return {};
  }

  const Signature& signature_;
  const isa::Program& program_;
  std::set<std::string, std::less<>> filled_;  // buffers
  std::set<std::string> known_;                // registers
  std::set<std::string> cut_;                  // inputs that offsets cut
};

}  // namespace

int Signature::FindInput(std::string_view name) const { return FindByName(inputs, name); }
int Signature::FindOutput(std::string_view name) const { return FindByName(outputs, name); }

Json ToJson(const Signature& signature) {
  Json json = {{"version", kVersion},
               {"format", signature.format},
               {"batch", signature.batch},
               {"rows_are_independent", signature.rows_are_independent}};
  json["inputs"] = Json::array();
  for (const Port& port : signature.inputs) json["inputs"].push_back(ToJson(port));
  json["outputs"] = Json::array();
  for (const Port& port : signature.outputs) json["outputs"].push_back(ToJson(port));
  json["prologue"] = Json::array();
  for (const Lookup& lookup : signature.prologue) json["prologue"].push_back(ToJson(lookup));
  return json;
}

Result<Signature> SignatureFromJson(const Json& json) {
  Signature signature;
  int64_t version = 0;
  Reader reader(json, "");
  reader.Read("version", version);
  TRY(reader.status);
  if (version != kVersion)
    return Fail(ErrorCode::kUnsupported, fmt::format("signature: version {} is unknown", version));
  reader.Read("format", signature.format);
  reader.Read("batch", signature.batch);
  reader.Read("rows_are_independent", signature.rows_are_independent);
  const auto ports = [](std::vector<Port>& into) {
    return [&into](const Json& each, const std::string& path) {
      return PortFromJson(each, path, into);
    };
  };
  reader.ReadEach("inputs", ports(signature.inputs));
  reader.ReadEach("outputs", ports(signature.outputs));
  reader.ReadEach("prologue", [&](const Json& each, const std::string& path) {
    return LookupFromJson(each, path, signature.prologue);
  });
  TRY(reader.status);
  return signature;
}

Result<void> CheckSignature(const Signature& signature, const isa::Program& program) {
  return Checker(signature, program).Check();
}

}  // namespace millpower::ranking
