// Which models are served; loading and unloading them.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <thread>

#include "cli/admin/menu.h"
#include "cli/size.h"

namespace millpower::cli::admin {
namespace {

constexpr std::chrono::milliseconds kPollInterval{200};
const std::string kModels = "/admin/v1/models";

struct Flags {
  std::string name, path, weights = "auto", kv, kv_memory;
  bool wait = false;
};

std::string StateText(const Json& model) {
  std::string state = model.value("state", "");
  const Json progress = model.value("progress", Json::object());
  const int64_t total_bytes = progress.value("total_bytes", int64_t{0});
  if (state == "loading" && total_bytes > 0)
    state += fmt::format(" {}%", 100 * progress.value("done_bytes", int64_t{0}) / total_bytes);
  if (model.value("error", Json()).is_string()) state += ": " + model["error"].get<std::string>();
  return state;
}

std::string One(const Json& model) {
  std::string line = fmt::format("{:<24} {}", model.value("id", ""), StateText(model));
  if (model.contains("memory"))
    line += fmt::format(", {} of weights, {} of KV memory",
                        FormatSize(model["memory"].value("weights_bytes", int64_t{0})),
                        FormatSize(model["memory"].value("kv_bytes", int64_t{0})));
  if (model.contains("stats"))
    line += fmt::format(", {} running, {} waiting", model["stats"].value("requests_running", 0),
                        model["stats"].value("requests_waiting", 0));
  return line + "\n";
}

std::string All(const Json& answer) {
  std::string lines;
  for (const Json& model : answer.value("data", Json::array())) lines += One(model);
  return lines;
}

// Until the model is no longer in `state`; nullopt: it is gone.
Result<std::optional<Json>> WaitWhile(const Client& client, const std::string& name,
                                      const std::string& state) {
  for (;;) {
    TRY_ASSIGN(const Json all, client.Get(kModels));
    std::optional<Json> found;
    for (const Json& model : all.value("data", Json::array()))
      if (model.value("id", "") == name) found = model;
    if (!found || found->value("state", "") != state) return found;
    std::this_thread::sleep_for(kPollInterval);
  }
}

Result<void> Load(const Menu::Call& call, const Flags& flags) {
  // The server has a folder of its own to start from.
  std::error_code ignored;
  const bool is_here = std::filesystem::exists(flags.path, ignored);
  Json body = {
      {"name", flags.name},
      {"path", is_here ? std::filesystem::absolute(flags.path, ignored).string() : flags.path},
      {"weights", flags.weights}};
  if (!flags.kv.empty()) body["kv"] = flags.kv;
  if (!flags.kv_memory.empty()) {
    TRY_ASSIGN(body["kv_memory"], ParseSize(flags.kv_memory));
  }
  TRY_ASSIGN(const Json answer, call.client.Post(kModels, body));
  if (!flags.wait) {
    Print(call, answer, One);
    return {};
  }
  TRY_ASSIGN(const std::optional<Json> model, WaitWhile(call.client, flags.name, "loading"));
  if (!model) return Fail(ErrorCode::kCancelled, flags.name + " was unloaded meanwhile");
  if (model->value("state", "") == "failed")
    return Fail(ErrorCode::kInvalidArgument, flags.name + " " + StateText(*model));
  Print(call, *model, One);
  return {};
}

Result<void> Unload(const Menu::Call& call, const Flags& flags) {
  TRY_ASSIGN(const Json answer, call.client.Delete(kModels + "/" + PercentEncoded(flags.name)));
  if (!flags.wait) {
    Print(call, answer, One);
    return {};
  }
  TRY(WaitWhile(call.client, flags.name, "loading"));
  TRY(WaitWhile(call.client, flags.name, "unloading"));
  Print(call, {{"id", flags.name}, {"state", "unloaded"}}, One);
  return {};
}

}  // namespace

void AddModels(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* models = menu.AddGroup("models", "The models it serves");
  menu.AddCommand(models, "list", "What is loaded, and how far",
                  [](const Menu::Call& call) -> Result<void> {
                    TRY_ASSIGN(const Json answer, call.client.Get(kModels));
                    Print(call, answer, All);
                    return {};
                  });
  CLI::App* load = menu.AddCommand(models, "load", "Load another model while the others answer",
                                   [flags](const Menu::Call& call) { return Load(call, *flags); });
  load->add_option("name", flags->name, "Name clients will call it by")->required();
  load->add_option("path", flags->path, "Model folder or file")->required();
  load->add_option("--weights", flags->weights, "As serve's")->capture_default_str();
  load->add_option("--kv", flags->kv, "As serve's");
  load->add_option("--kv-memory", flags->kv_memory, "Its memory for keys and values, e.g. 2GiB");
  CLI::App* unload =
      menu.AddCommand(models, "unload", "Take a model away when its requests have ended",
                      [flags](const Menu::Call& call) { return Unload(call, *flags); });
  unload->add_option("name", flags->name, "Its name")->required();
  for (CLI::App* command : {load, unload})
    command->add_flag("--wait", flags->wait, "Return when it is done");
}

}  // namespace millpower::cli::admin
