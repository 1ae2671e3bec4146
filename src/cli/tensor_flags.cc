#include "cli/tensor_flags.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "import/tensor/features.h"

namespace millpower::cli {
namespace {

Result<int64_t> ParsePositive(std::string_view text, const char* flag) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value > 0) return value;
  return Fail(ErrorCode::kInvalidArgument,
              std::string("--") + flag + ": '" + std::string(text) + "' is not a positive integer",
              flag);
}

// NAME=VALUE, at the last '='.
Result<std::pair<std::string, std::string>> Cut(const std::string& word, const char* flag) {
  const size_t equals = word.rfind('=');
  if (equals != std::string::npos && equals > 0)
    return std::pair(word.substr(0, equals), word.substr(equals + 1));
  return Fail(ErrorCode::kInvalidArgument,
              std::string("--") + flag + " '" + word + "' is not NAME=VALUE", flag);
}

}  // namespace

void AddTensorFlags(CLI::App& command, TensorFlags& flags) {
  command
      .add_option("--max-batch", flags.max_batch,
                  "Rows of one launch at most, where the model leaves its batch open")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--symbol-max", flags.symbol_max,
                     "Upper bound of another open dimension, as NAME=N");
  command.add_option("--input-shape", flags.input_shapes,
                     "Import with this shape of an input, as NAME=2,3");
  command.add_option("--signature", flags.signature, "Which signature of a SavedModel to import")
      ->capture_default_str();
  command
      .add_option("--tables", flags.table_type,
                  "Type of embedding tables: auto (the file's), f32, bf16, f16, int8 or int4")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16", "int8", "int4"}))
      ->capture_default_str();
  command
      .add_option("--feature", flags.features,
                  "What ids of an input that are no row of its tables do, as NAME=POLICY: error, "
                  "clamp, default:ROW, or hash, which hashes every id to a row; default: as the "
                  "framework has it. With several models, MODEL/NAME is the input of one")
      ->allow_extra_args(false);
}

Result<TensorLoadOptions> ToTensorLoadOptions(const TensorFlags& flags, const ModelFlags& shared) {
  TensorLoadOptions options;
  TRY_ASSIGN(const LoadOptions common, ToLoadOptions(shared));
  options.compile = common.compile;
  options.threads = common.threads;
  options.import.max_batch = flags.max_batch;
  options.import.signature = flags.signature;
  for (const std::string& word : flags.symbol_max) {
    TRY_ASSIGN(const auto named, Cut(word, "symbol-max"));
    TRY_ASSIGN(options.import.symbol_max[named.first], ParsePositive(named.second, "symbol-max"));
  }
  for (const std::string& word : flags.input_shapes) {
    TRY_ASSIGN(const auto named, Cut(word, "input-shape"));
    std::vector<int64_t>& shape = options.import.input_shapes[named.first];
    std::string_view rest = named.second;
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      TRY_ASSIGN(shape.emplace_back(), ParsePositive(rest.substr(0, comma), "input-shape"));
      rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    }
  }
  for (const std::string& word : flags.features) {
    TRY_ASSIGN(const auto named, Cut(word, "feature"));
    const auto policy = import::ParseIdPolicy(named.second);
    if (!policy) return FailAt("--feature " + named.first, policy.error());
    options.import.id_policies[named.first] = *policy;
  }
  if (flags.table_type == "int8") {
    options.compile.table_type = DType::kI8;
  } else if (flags.table_type == "int4") {
    options.compile.table_type = DType::kI4;
  } else if (flags.table_type != "auto") {
    options.compile.table_type = DTypeFromName(flags.table_type);
  }
  return options;
}

std::map<std::string, import::IdPolicy> PoliciesFor(
    const std::string& model, std::span<const std::string> names,
    const std::map<std::string, import::IdPolicy>& policies) {
  std::map<std::string, import::IdPolicy> found;
  for (const auto& [name, policy] : policies) {
    const auto owner = std::ranges::find_if(
        names, [&](const std::string& each) { return name.starts_with(each + "/"); });
    if (owner == names.end())
      found.try_emplace(name, policy);  // one that names the model goes before
    else if (*owner == model)
      found.insert_or_assign(name.substr(model.size() + 1), policy);
  }
  return found;
}

}  // namespace millpower::cli
