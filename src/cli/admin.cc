// millpower admin models list|load|unload: speaks to the admin API of a server on this machine.
#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/size.h"

namespace millpower::cli {
namespace {

namespace http = boost::beast::http;

constexpr std::chrono::seconds kTimeout{30};
constexpr std::chrono::milliseconds kPollInterval{200};
const std::string kModels = "/admin/v1/models";

struct Flags {
  uint16_t port = 8081;
  std::string key_file;
  std::string name, path, weights = "auto", kv, kv_memory;
  bool wait = false, json = false;
};

struct Answer {
  unsigned status = 0;
  Json body;
};

// Names may hold what a path may not.
std::string PercentEncoded(const std::string& text) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '-' || c == '_' || c == '.' || c == '~';
    encoded += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

Result<Answer> Exchange(const Flags& flags, http::verb method, const std::string& path,
                        const Json& body = nullptr) {
  TRY_ASSIGN(const std::string key, ReadAdminKey(flags.key_file));
  if (key.empty())
    return Fail(ErrorCode::kInvalidArgument,
                "no admin key: give --key-file or set MILLPOWER_ADMIN_KEY", "key-file");
  http::response<http::string_body> response;
  try {
    boost::asio::io_context io;
    boost::beast::tcp_stream stream(io);
    stream.expires_after(kTimeout);
    stream.connect({boost::asio::ip::address_v4::loopback(), flags.port});
    http::request<http::string_body> request(method, path, 11);
    request.set(http::field::host, fmt::format("127.0.0.1:{}", flags.port));
    request.set(http::field::authorization, "Bearer " + key);
    request.set(http::field::content_type, "application/json");
    if (!body.is_null()) request.body() = DumpJson(body);
    request.prepare_payload();
    http::write(stream, request);
    boost::beast::flat_buffer buffer;
    http::read(stream, buffer, response);
  } catch (const boost::system::system_error& error) {
    return Fail(ErrorCode::kIo,
                fmt::format("no answer from 127.0.0.1:{}: {}", flags.port, error.code().message()));
  }
  Answer answer{.status = response.result_int(), .body = {}};
  TRY_ASSIGN(answer.body, ParseJson(response.body()));
  if (answer.status < 400) return answer;
  std::string message = fmt::format("status {}", answer.status);
  if (answer.body.is_object() && answer.body["error"].is_object())
    message = answer.body["error"].value("message", message);
  return Fail(ErrorCode::kInvalidArgument, message);
}

std::string StateText(const Json& model) {
  std::string state = model.value("state", "");
  const Json progress = model.value("progress", Json::object());
  const int64_t total_bytes = progress.value("total_bytes", int64_t{0});
  if (state == "loading" && total_bytes > 0)
    state += fmt::format(" {}%", 100 * progress.value("done_bytes", int64_t{0}) / total_bytes);
  if (model.value("error", Json()).is_string()) state += ": " + model["error"].get<std::string>();
  return state;
}

void Print(const Json& model) {
  fmt::print("{:<24} {}", model.value("id", ""), StateText(model));
  if (model.contains("memory"))
    fmt::print(", {} of weights, {} of KV memory",
               FormatSize(model["memory"].value("weights_bytes", int64_t{0})),
               FormatSize(model["memory"].value("kv_bytes", int64_t{0})));
  if (model.contains("stats"))
    fmt::print(", {} running, {} waiting", model["stats"].value("requests_running", 0),
               model["stats"].value("requests_waiting", 0));
  fmt::print("\n");
}

Result<void> List(const Flags& flags) {
  TRY_ASSIGN(const Answer answer, Exchange(flags, http::verb::get, kModels));
  if (flags.json) {
    fmt::print("{}\n", DumpJson(answer.body));
    return {};
  }
  for (const Json& model : answer.body.value("data", Json::array())) Print(model);
  return {};
}

// Until the model is no longer in `state`; nullopt: it is gone.
Result<std::optional<Json>> WaitWhile(const Flags& flags, const std::string& state) {
  for (;;) {
    TRY_ASSIGN(const Answer all, Exchange(flags, http::verb::get, kModels));
    std::optional<Json> found;
    for (const Json& model : all.body.value("data", Json::array()))
      if (model.value("id", "") == flags.name) found = model;
    if (!found || found->value("state", "") != state) return found;
    std::this_thread::sleep_for(kPollInterval);
  }
}

Result<void> Load(const Flags& flags) {
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
  TRY_ASSIGN(const Answer answer, Exchange(flags, http::verb::post, kModels, body));
  if (!flags.wait) {
    Print(answer.body);
    return {};
  }
  TRY_ASSIGN(const std::optional<Json> model, WaitWhile(flags, "loading"));
  if (!model) return Fail(ErrorCode::kCancelled, flags.name + " was unloaded meanwhile");
  if (model->value("state", "") == "failed")
    return Fail(ErrorCode::kInvalidArgument, flags.name + " " + StateText(*model));
  Print(*model);
  return {};
}

Result<void> Unload(const Flags& flags) {
  TRY_ASSIGN(const Answer answer,
             Exchange(flags, http::verb::delete_, kModels + "/" + PercentEncoded(flags.name)));
  if (!flags.wait) {
    Print(answer.body);
    return {};
  }
  TRY(WaitWhile(flags, "loading"));
  TRY(WaitWhile(flags, "unloading"));
  fmt::print("{:<24} unloaded\n", flags.name);
  return {};
}

}  // namespace

Command AddAdmin(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  const auto run = std::make_shared<std::function<Result<void>(const Flags&)>>();
  CLI::App* admin = app.add_subcommand("admin", "Manage a running server on this machine");
  admin->add_option("--port", flags->port, "Its --admin-port")->capture_default_str();
  admin->add_option("--key-file", flags->key_file,
                    "File with its admin key; default: the variable MILLPOWER_ADMIN_KEY");
  CLI::App* models = admin->add_subcommand("models", "The models it serves");
  for (CLI::App* group : {admin, models}) group->require_subcommand(1)->fallthrough();
  const auto add = [&](const char* name, const char* help, Result<void> (*function)(const Flags&)) {
    CLI::App* command = models->add_subcommand(name, help)->fallthrough();
    command->callback([run, function] { *run = function; });
    return command;
  };
  CLI::App* list = add("list", "What is loaded, and how far", List);
  list->add_flag("--json", flags->json, "As the API says it");
  CLI::App* load = add("load", "Load another model while the others answer", Load);
  load->add_option("name", flags->name, "Name clients will call it by")->required();
  load->add_option("path", flags->path, "Model folder or file")->required();
  load->add_option("--weights", flags->weights, "As serve's")->capture_default_str();
  load->add_option("--kv", flags->kv, "As serve's");
  load->add_option("--kv-memory", flags->kv_memory, "Its memory for keys and values, e.g. 2GiB");
  CLI::App* unload = add("unload", "Take a model away when its requests have ended", Unload);
  unload->add_option("name", flags->name, "Its name")->required();
  for (CLI::App* command : {load, unload})
    command->add_flag("--wait", flags->wait, "Return when it is done");
  return [flags, run] { return (*run)(*flags); };
}

}  // namespace millpower::cli
