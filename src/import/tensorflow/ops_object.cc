// Variables, hash tables and strings: what the graph itself cannot hold. Variables become weights;
// tables and strings become lookups in the host prologue, where they are applied to inputs.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/mapped_file.h"
#include "import/tensorflow/call.h"

namespace millpower::import {
namespace {

constexpr size_t kMaxAssetBytes = size_t{1} << 30;
constexpr int kTypeInt64 = 9;

// ---- variables ----

// The shared name is what makes two nodes the same resource; without one each node is its own.
template <bool is_table>
Result<Values> MakeHandle(Call& call) {
  std::string name = call.StringOr("shared_name", "");
  if (name.empty()) name = call.node.name();
  const int resource = call.state.FindResource(is_table, name);
  if (is_table) {
    const auto* key = call.Find("key_dtype");
    const auto* value = call.Find("value_dtype");
    call.state.resource(resource).key_type = key ? key->type() : 0;
    call.state.resource(resource).value_type = value ? value->type() : 0;
  }
  return Values{Value{Handle{resource}}};
}

// Names of assets are variables, too.
Result<Values> ReadVariable(Call& call) {
  TRY_ASSIGN(const Handle variable, call.Resource(0, false));
  const auto& value = call.state.resource(variable.resource).value;
  if (value && value->As<StringLiteral>()) return Values{*value};
  TRY_ASSIGN(const Tensor x, call.state.Read(variable.resource));
  return One(x);
}

Result<Tensor> VariableShape(Call& call) {
  TRY_ASSIGN(const Handle variable, call.Resource(0, false));
  TRY_ASSIGN(const Tensor x, call.state.Read(variable.resource));
  std::vector<Size> sizes;
  for (const ir::Dim& dim : call.b.shape(x)) sizes.push_back(ir::SizeOf(dim));
  return call.b.Sizes(sizes, call.TypeOr("out_type", DType::kI32));
}

Result<Values> Assign(Call& call) {
  TRY_ASSIGN(const Handle variable, call.Resource(0, false));
  TRY_ASSIGN(const Value* value, call.At(1));
  Resource& assigned = call.state.resource(variable.resource);
  // The first read made it a weight; a graph that goes on changing it is not one of answers.
  if (assigned.weight) return Unsupported("is changed after it was read");
  assigned.value = *value;
  return Values{};
}

// prefix, names, parts -> the tensors of the bundle
Result<Values> Restore(Call& call) {
  Values restored;
  TRY_ASSIGN(const Value* names, call.At(1));
  TRY_ASSIGN(const Value* parts, call.At(2));
  const auto* keys = names->As<StringLiteral>();
  const auto* slices = parts->As<StringLiteral>();
  if (!keys || !slices || keys->values.size() != slices->values.size())
    return Unsupported("its names are not constants");
  for (size_t i = 0; i < keys->values.size(); ++i)
    restored.push_back(Value{Stored{keys->values[i], slices->values[i]}});
  return restored;
}

// ---- tables ----

Result<std::vector<std::string>> KeysOf(Call& call, int operand) {
  TRY_ASSIGN(const Value* value, call.At(operand));
  if (const auto* strings = value->As<StringLiteral>()) return strings->values;
  TRY_ASSIGN(const std::vector<int64_t> integers, call.Integers(operand, "list of keys"));
  std::vector<std::string> keys;
  for (const int64_t key : integers) keys.push_back(std::to_string(key));
  return keys;
}

// table, keys, values
Result<Values> ImportTable(Call& call) {
  TRY_ASSIGN(const Handle handle, call.Resource(0, true));
  TableContent content;
  TRY_ASSIGN(content.keys, KeysOf(call, 1));
  TRY_ASSIGN(const Tensor values, call.In(2));
  if (IsFloat(call.b.dtype(values))) {
    auto reals = call.b.KnownReals(values);
    if (!reals) return Unsupported("its values are not known");
    content.reals = *std::move(reals);
  } else {
    TRY_ASSIGN(content.integers, call.Integers(2, "list of values"));
  }
  if (std::max(content.integers.size(), content.reals.size()) != content.keys.size())
    return Fail(ErrorCode::kInvalidArgument, "has not as many values as keys");
  call.state.resource(handle.resource).content = std::move(content);
  return Values{};
}

std::optional<int64_t> ParseInteger(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Column -2 of a text file is the whole line, -1 its number, others are what delimiters separate.
std::optional<std::string> FieldOf(std::string_view line, int64_t number, int64_t column,
                                   char delimiter) {
  if (column == -2) return std::string(line);
  if (column == -1) return std::to_string(number);
  for (int64_t i = 0;; ++i) {
    const size_t end = line.find(delimiter);
    if (i == column) return std::string(line.substr(0, end));
    if (end == std::string_view::npos) return std::nullopt;
    line.remove_prefix(end + 1);
  }
}

Result<TableContent> ReadTextTable(Call& call, std::string_view text) {
  const int64_t key_column = call.IntOr("key_index", -2);
  const int64_t value_column = call.IntOr("value_index", -1);
  const int64_t vocabulary = call.IntOr("vocab_size", -1);
  const std::string delimiter = call.StringOr("delimiter", "\t");
  if (key_column < -2 || value_column < -2 || delimiter.size() != 1)
    return Fail(ErrorCode::kInvalidArgument, "its columns");
  TableContent content;
  for (int64_t skipped = call.IntOr("offset", 0); skipped > 0 && !text.empty(); --skipped)
    text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  for (int64_t number = 0; !text.empty() && number != vocabulary; ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    auto key = FieldOf(line, number, key_column, delimiter[0]);
    const auto field = FieldOf(line, number, value_column, delimiter[0]);
    const auto value = field ? ParseInteger(*field) : std::nullopt;
    if (!key || !value)
      return Unsupported(fmt::format("line {} of its file has no key with a number", number + 1));
    content.keys.push_back(*std::move(key));
    content.integers.push_back(*value);
  }
  return content;
}

// table, name of a text file
Result<Values> ImportTableFromText(Call& call) {
  TRY_ASSIGN(const Handle handle, call.Resource(0, true));
  TRY_ASSIGN(const Value* value, call.At(1));
  const auto* name = value->As<StringLiteral>();
  if (!name || !name->asset) return Unsupported("reads a file that is not among the assets");
  TRY_ASSIGN(const std::string text, ReadFile(*name->asset, kMaxAssetBytes));
  TRY_ASSIGN(call.state.resource(handle.resource).content, ReadTextTable(call, text));
  return Values{};
}

Result<const TableContent*> ContentOf(Call& call, Handle handle) {
  const Resource& table = call.state.resource(handle.resource);
  if (table.content) return &*table.content;
  const std::string& why = call.state.preparation_failure;
  return Unsupported(fmt::format("table '{}' is not filled when the model is loaded{}", table.name,
                                 why.empty() ? "" : "; " + why));
}

// table, keys, default
Result<Tensor> FindInTable(Call& call) {
  TRY_ASSIGN(const Handle handle, call.Resource(0, true));
  TRY_ASSIGN(const TableContent* content, ContentOf(call, handle));
  TRY_ASSIGN(const Value* keys, call.At(1));
  const auto* view = keys->As<PortView>();
  if (!view) return Unsupported("looks up what is not an input, as it came");
  Lookup lookup{.input = {}, .value = {}, .keys = content->keys, .values = content->integers};
  const auto dtype = DTypeOf(call.state.resource(handle.resource).value_type);
  if (!dtype) return Unsupported("gives strings");
  if (content->reals.empty()) {
    TRY_ASSIGN(lookup.otherwise, call.Integer(2, "default"));
    TRY_ASSIGN(const Tensor found, call.state.LookUp(*view, std::move(lookup)));
    return call.b.Cast(found, *dtype);
  }
  // Reals: the prologue says which, and the default comes behind the last.
  TRY_ASSIGN(const Tensor given, call.In(2));
  const auto otherwise = call.b.KnownReals(given);
  if (!otherwise || otherwise->size() != 1) return Unsupported("its default is not known");
  for (size_t i = 0; i < content->keys.size(); ++i)
    lookup.values.push_back(static_cast<int64_t>(i));
  lookup.otherwise = static_cast<int64_t>(content->keys.size());
  std::vector<double> values = content->reals;
  values.push_back(otherwise->front());
  TRY_ASSIGN(const Tensor table, call.b.Constant(*dtype, {static_cast<int64_t>(values.size())},
                                                 ToBytes(*dtype, std::span<const double>(values))));
  TRY_ASSIGN(const Tensor found, call.state.LookUp(*view, std::move(lookup)));
  return call.b.Take(table, found, 0, IndexPolicy::kError);
}

Result<Tensor> TableSize(Call& call) {
  TRY_ASSIGN(const Handle handle, call.Resource(0, true));
  TRY_ASSIGN(const TableContent* content, ContentOf(call, handle));
  return call.b.SizeScalar(Size(static_cast<int64_t>(content->keys.size())));
}

// ---- strings ----

Result<Tensor> HashToBucket(Call& call) {
  TRY_ASSIGN(const Value* text, call.At(0));
  const auto* view = text->As<PortView>();
  if (!view) return Unsupported("hashes what is not an input, as it came");
  Lookup lookup;
  lookup.buckets = call.IntOr("num_buckets", 0);
  if (lookup.buckets < 1) return Fail(ErrorCode::kInvalidArgument, "has no buckets");
  return call.state.LookUp(*view, std::move(lookup));
}

// Decimal digits, as the prologue's keys of integers are.
Result<Values> AsString(Call& call) {
  TRY_ASSIGN(const Value* value, call.At(0));
  const auto* view = value->As<PortView>();
  const bool plain = call.IntOr("width", -1) == -1 && call.StringOr("fill", "").empty();
  if (!view || call.state.port(view->port).is_string || !plain ||
      !IsInteger(call.state.port(view->port).dtype))
    return Unsupported("of what is not an input of integers, as it came");
  PortView as_text = *view;
  as_text.as_text = true;
  return Values{Value{as_text}};
}

// An input's strings compared with one constant: a lookup with that constant as the only key.
Result<Tensor> EqualsConstant(Call& call, const PortView& view, const StringLiteral& constant) {
  if (constant.values.size() != 1) return Unsupported("compares with several strings");
  Lookup lookup{.input = {}, .value = {}, .keys = constant.values, .values = {1}, .otherwise = 0};
  TRY_ASSIGN(const Tensor found, call.state.LookUp(view, std::move(lookup)));
  return call.b.Cast(found, DType::kBool);
}

template <bool equal>
Result<Tensor> Compare(Call& call) {
  TRY_ASSIGN(const Value* first, call.At(0));
  TRY_ASSIGN(const Value* second, call.At(1));
  const bool turned = first->As<StringLiteral>() != nullptr;
  const auto* view = (turned ? second : first)->As<PortView>();
  const auto* constant = (turned ? first : second)->As<StringLiteral>();
  if (view && constant) {
    TRY_ASSIGN(const Tensor same, EqualsConstant(call, *view, *constant));
    if (equal) return same;
    return call.b.Unary(MapOp::kLogicalNot, same);
  }
  TRY_ASSIGN(const Tensor x, call.In(0));
  TRY_ASSIGN(const Tensor y, call.In(1));
  return call.b.Binary(equal ? MapOp::kEqual : MapOp::kNotEqual, x, y);
}

constexpr OpEntry kOps[] = {
    {"VarHandleOp", nullptr, MakeHandle<false>},
    {"ReadVariableOp", nullptr, ReadVariable},
    {"VariableShape", VariableShape},
    {"AssignVariableOp", nullptr, Assign, true},
    {"RestoreV2", nullptr, Restore, true},
    {"HashTableV2", nullptr, MakeHandle<true>},
    {"LookupTableImportV2", nullptr, ImportTable},
    {"InitializeTableV2", nullptr, ImportTable},
    {"InitializeTableFromTextFileV2", nullptr, ImportTableFromText},
    {"LookupTableFindV2", FindInTable},
    {"LookupTableSizeV2", TableSize},
    {"StringToHashBucketFast", HashToBucket},
    {"AsString", nullptr, AsString},
    {"Equal", Compare<true>},
    {"NotEqual", Compare<false>},
};

}  // namespace

std::span<const OpEntry> ObjectOps() { return kOps; }

}  // namespace millpower::import
