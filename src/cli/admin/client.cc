#include "cli/admin/client.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <optional>
#include <vector>

#include "cli/commands.h"

namespace millpower::cli::admin {
namespace {

namespace http = boost::beast::http;

constexpr uint64_t kAnswerMaxBytes = uint64_t{1} << 30;  // years of usage as CSV

// The id of the only one in `matches`.
Result<std::string> OnlyOne(const char* what, const std::string& text,
                            const std::vector<std::string>& matches) {
  if (matches.size() == 1) return matches[0];
  if (matches.empty())
    return Fail(ErrorCode::kNotFound, fmt::format("there is no {} '{}'", what, text));
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("'{}' may be any of {}: give the id", text, fmt::join(matches, ", ")));
}

// What an error says, in either of the forms that the APIs have: {"error": {"message": "..."}} and
// {"error": "..."}.
std::optional<std::string> MessageOf(const std::string& body) {
  const auto answer = ParseJson(body);
  if (!answer || !answer->is_object() || !answer->contains("error")) return std::nullopt;
  const Json& error = (*answer)["error"];
  if (error.is_string()) return error.get<std::string>();
  if (error.is_object() && error.contains("message") && error["message"].is_string())
    return error["message"].get<std::string>();
  return std::nullopt;
}

}  // namespace

std::string PercentEncoded(const std::string& text) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '-' || c == '_' || c == '.' || c == '~';
    encoded += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

std::string QueryOf(std::initializer_list<std::pair<const char*, std::string>> parameters) {
  std::string query;
  for (const auto& [name, value] : parameters)
    if (!value.empty())
      query += fmt::format("{}{}={}", query.empty() ? '?' : '&', name, PercentEncoded(value));
  return query;
}

// Blocking: an operator who is tired of waiting has Ctrl-C.
Result<std::string> Client::Exchange(const char* method, const std::string& path, Body body) const {
  TRY_ASSIGN(const std::string key, ReadAdminKey(key_file_));
  if (key.empty())
    return Fail(ErrorCode::kInvalidArgument,
                "no admin key: give --key-file or set MILLPOWER_ADMIN_KEY", "key-file");
  http::response_parser<http::string_body> parser;
  parser.body_limit(kAnswerMaxBytes);
  try {
    boost::asio::io_context io;
    boost::beast::tcp_stream stream(io);
    stream.connect({boost::asio::ip::address_v4::loopback(), port_});
    http::request<http::string_body> request(http::string_to_verb(method), path, 11);
    request.set(http::field::host, fmt::format("127.0.0.1:{}", port_));
    request.set(http::field::authorization, "Bearer " + key);
    request.set(http::field::content_type, body.type);
    request.body() = std::move(body.bytes);
    request.prepare_payload();
    http::write(stream, request);
    boost::beast::flat_buffer buffer;
    http::read(stream, buffer, parser);
  } catch (const boost::system::system_error& error) {
    return Fail(ErrorCode::kIo,
                fmt::format("no answer from 127.0.0.1:{}: {}", port_, error.code().message()));
  }
  const unsigned status = parser.get().result_int();
  if (status < 400) return std::move(parser.get().body());
  return Fail(ErrorCode::kInvalidArgument,
              MessageOf(parser.get().body()).value_or(fmt::format("status {}", status)));
}

Result<Json> Client::Get(const std::string& path) const {
  TRY_ASSIGN(const std::string text, Exchange("GET", path, {}));
  return ParseJson(text);
}

Result<Json> Client::Post(const std::string& path, const Json& body) const {
  TRY_ASSIGN(const std::string text, Exchange("POST", path, {.bytes = DumpJson(body)}));
  return ParseJson(text);
}

Result<Json> Client::PostBytes(const std::string& path, std::string body) const {
  TRY_ASSIGN(
      const std::string text,
      Exchange("POST", path, {.type = "application/octet-stream", .bytes = std::move(body)}));
  return ParseJson(text);
}

Result<Json> Client::Patch(const std::string& path, const Json& body) const {
  TRY_ASSIGN(const std::string text, Exchange("PATCH", path, {.bytes = DumpJson(body)}));
  return ParseJson(text);
}

Result<Json> Client::Delete(const std::string& path) const {
  TRY_ASSIGN(const std::string text, Exchange("DELETE", path, {}));
  return ParseJson(text);
}

Result<std::string> Client::GetText(const std::string& path) const {
  return Exchange("GET", path, {});
}

Result<std::string> Client::ResolveProject(const std::string& text) const {
  if (text.starts_with("proj_")) return text;
  TRY_ASSIGN(const Json all, Get("/admin/v1/projects"));
  std::vector<std::string> matches;
  for (const Json& project : all.value("data", Json::array())) {
    const std::string name = project.value("name", "");
    if (name == text || project.value("tenant_name", "") + "/" + name == text)
      matches.push_back(project.value("id", ""));
  }
  return OnlyOne("project", text, matches);
}

Result<std::string> Client::ResolveKey(const std::string& text) const {
  if (text.starts_with("key_")) return text;
  TRY_ASSIGN(const Json all, Get("/admin/v1/keys"));
  std::vector<std::string> matches;
  for (const Json& key : all.value("data", Json::array())) {
    const std::string prefix = key.value("prefix", "");
    if (prefix == text || (key.value("name", "") == text && key.value("state", "") == "active"))
      matches.push_back(key.value("id", ""));
  }
  return OnlyOne("key", text, matches);
}

}  // namespace millpower::cli::admin
