#include "cli/config.h"

#include <algorithm>
#include <sstream>

#include "base/mapped_file.h"
#include "base/toml.h"

namespace millpower::cli {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

std::unexpected<Error> Bad(const std::filesystem::path& path, const toml::source_region& where,
                           const std::string& message) {
  return Fail(ErrorCode::kInvalidArgument,
              path.string() + ":" + std::to_string(where.begin.line) + ": " + message);
}

// A value as it would stand on the command line; nullopt for tables and dates.
std::optional<std::string> AsArgument(const toml::node& node) {
  if (const auto text = node.value_exact<std::string>()) return *text;
  if (const auto flag = node.value_exact<bool>()) return *flag ? "true" : "false";
  if (const auto number = node.value_exact<int64_t>()) return std::to_string(*number);
  if (const auto real = node.value_exact<double>()) {
    std::ostringstream out;
    out << *real;
    return out.str();
  }
  return std::nullopt;
}

}  // namespace

Result<void> ApplyConfig(CLI::App& command, const std::filesystem::path& path) {
  TRY_ASSIGN(const std::string text, ReadFile(path, kMaxConfigBytes));
  TRY_ASSIGN(const toml::table table, ParseToml(text, path.string()));
  for (const auto& [key, node] : table) {
    std::string name(key.str());
    std::ranges::replace(name, '_', '-');
    CLI::Option* option = command.get_option_no_throw("--" + name);
    if (option == nullptr || name == "config" || name == "help")
      return Bad(path, key.source(), "there is no setting '" + std::string(key.str()) + "'");
    if (option->count() > 0) continue;  // the flag has the last word
    std::vector<std::string> values;
    const toml::array* array = node.as_array();
    const size_t count = array != nullptr ? array->size() : 1;
    for (size_t i = 0; i < count; ++i) {
      const auto value = AsArgument(array != nullptr ? *array->get(i) : node);
      if (!value)
        return Bad(path, node.source(), "'" + std::string(key.str()) + "' is not a plain value");
      values.push_back(*value);
    }
    try {
      option->add_result(values);
      option->run_callback();
    } catch (const CLI::Error& error) {
      return Bad(path, node.source(), error.what());
    }
  }
  return {};
}

}  // namespace millpower::cli
