#include "serve/connection.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>

#include "serve/cors.h"
#include "serve/errors.h"
#include "serve/ids.h"

namespace millpower::serve {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::experimental::awaitable_operators::operator||;
using boost::system::error_code;
using Parser = http::request_parser<http::string_body>;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kSmallBodyBytes = 64 << 10;  // always welcome
constexpr size_t kReadAheadBytes = 64 << 10;  // of pipelined requests, while one is answered
constexpr size_t kLingerBytes = 64 << 20;
constexpr std::chrono::milliseconds kLingerTime{2'000};

// The result of an operation, or timed_out after `limit`.
template <typename T>
asio::awaitable<std::tuple<error_code, T>> Within(std::chrono::milliseconds limit,
                                                  asio::awaitable<std::tuple<error_code, T>> work) {
  asio::steady_timer timer(co_await asio::this_coro::executor, limit);
  auto first = co_await (std::move(work) || timer.async_wait(kTuple));
  if (first.index() == 0) co_return std::get<0>(std::move(first));
  co_return std::tuple{error_code(asio::error::timed_out), T()};
}

// The client left, or we closed: there is nobody to answer.
bool IsHangUp(error_code error) {
  return error == http::error::end_of_stream || error == http::error::partial_message ||
         error == asio::error::eof || error == asio::error::connection_reset ||
         error == asio::error::operation_aborted || error == asio::error::bad_descriptor;
}

std::string ToString(boost::beast::string_view view) { return {view.data(), view.size()}; }

HttpRequest Describe(const Parser& parser, const ServerContext& context) {
  const auto& message = parser.get();
  const std::string target = ToString(message.target());
  const std::string id = ToString(message["x-request-id"]);
  const std::string asked = ToString(message["access-control-request-headers"]);
  const bool preflight =
      message.method() == http::verb::options && message.count("access-control-request-method") > 0;
  return {.method = ToString(message.method_string()),
          .path = target.substr(0, target.find('?')),
          .query = target.find('?') == std::string::npos ? "" : target.substr(target.find('?') + 1),
          .content_type = ToString(message[http::field::content_type]),
          .id = IsSaneId(id) ? id : NewId("req-"),
          .authorization = ToString(message[http::field::authorization]),
          .content_encoding = ToString(message[http::field::content_encoding]),
          .accept_encoding = ToString(message[http::field::accept_encoding]),
          .inference_header_length = ToString(message["inference-header-content-length"]),
          .cors_headers = CorsHeaders(context.cors_origins, ToString(message[http::field::origin]),
                                      preflight ? &asked : nullptr),
          .body = {},
          .http_1_0 = message.version() < 11,
          .keep_alive = message.version() >= 11 && message.keep_alive()};
}

HttpResponse RefusalOf(error_code error, const HttpLimits& limits) {
  if (error == asio::error::timed_out)
    return ErrorResponse(HttpFault::kTimeout, "the request did not arrive in time");
  if (error == http::error::header_limit)
    return ErrorResponse(
        HttpFault::kHeaderTooLarge,
        "the headers exceed " + std::to_string(limits.header_bytes_max) + " bytes");
  if (error == http::error::body_limit)
    return ErrorResponse(HttpFault::kBodyTooLarge,
                         "the body exceeds " + std::to_string(limits.body_bytes_max) + " bytes");
  return ErrorResponse(HttpFault::kMalformed, "malformed HTTP request: " + error.message());
}

// Room for one body among all that wait to be read and understood, given back with the last copy.
// nullopt: there is none.
std::optional<std::shared_ptr<void>> TakeBodyRoom(ServerContext& context, size_t bytes) {
  const size_t total = *context.bodies_bytes += bytes;
  // The body may outlive the server, and so the total does too.
  std::shared_ptr<void> room(
      nullptr, [bodies_bytes = context.bodies_bytes, bytes](void*) { *bodies_bytes -= bytes; });
  if (bytes > kSmallBodyBytes && total > context.limits.bodies_bytes_max) return std::nullopt;
  return room;
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, ServerContext& context)
    : presence_(context.connection_count),
      socket_(std::move(socket)),
      context_(context),
      wake_(socket_.get_executor()),
      buffer_(context.limits.header_bytes_max + kReadAheadBytes) {}

void Connection::Start() {
  asio::co_spawn(
      socket_.get_executor(), [self = shared_from_this()] { return self->Serve(); },
      [self = shared_from_this()](std::exception_ptr) { self->CloseNow(); });
}

void Connection::CloseIfIdle() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->idle_) self->CloseNow();
  });
}

void Connection::Close() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->CloseNow(); });
}

void Connection::CloseNow() {
  error_code ignored;
  socket_.close(ignored);
  wake_.cancel();
}

Connection::Task<void> Connection::Serve() {
  while (!context_.draining) {
    auto incoming = co_await ReadRequest();
    if (!incoming) break;
    const auto start = std::chrono::steady_clock::now();
    const bool unread = incoming->refusal.has_value();
    if (unread || context_.draining) incoming->request.keep_alive = false;
    const auto exchange =
        std::make_shared<Exchange>(std::move(incoming->request), context_.limits.unsent_bytes_max);
    if (unread)
      exchange->Reply(std::move(*incoming->refusal));
    else
      context_.handler(exchange);
    const bool sent = co_await SendAnswer(*exchange);
    context_.observer(*exchange, std::chrono::steady_clock::now() - start);
    if (sent && unread) co_await Linger();
    // An end that arrives with the last byte of an answer is seen by the watch alone: Asio's
    // reactor waits for an edge before it reads again from a socket that had nothing more to give.
    if (!sent || hung_up_ || !exchange->request().keep_alive) break;
  }
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  CloseNow();
}

Connection::Task<std::optional<Connection::Incoming>> Connection::ReadRequest() {
  const HttpLimits& limits = context_.limits;
  idle_ = true;
  if (buffer_.size() == 0) {
    const auto [error, count] = co_await Within(
        limits.idle_timeout, socket_.async_read_some(buffer_.prepare(4096), kTuple));
    if (error) co_return std::nullopt;
    buffer_.commit(count);
  }
  idle_ = false;

  Parser parser;
  parser.header_limit(static_cast<uint32_t>(limits.header_bytes_max));
  parser.body_limit(limits.body_bytes_max);
  const auto refuse = [&](HttpResponse response) {
    return Incoming{Describe(parser, context_), std::move(response)};
  };
  auto [error, count] = co_await Within(limits.header_timeout,
                                        http::async_read_header(socket_, buffer_, parser, kTuple));
  if (IsHangUp(error)) co_return std::nullopt;
  if (error) co_return refuse(RefusalOf(error, limits));

  const auto& message = parser.get();
  if (message.version() >= 11 && message.count(http::field::host) != 1)
    co_return refuse(ErrorResponse(HttpFault::kMalformed, "HTTP/1.1 wants one Host header"));
  if (parser.chunked() && message.count(http::field::content_length) != 0)
    co_return refuse(
        ErrorResponse(HttpFault::kMalformed, "both Content-Length and Transfer-Encoding"));

  const size_t length =
      parser.content_length().value_or(parser.chunked() ? limits.body_bytes_max : 0);
  std::optional<std::shared_ptr<void>> room = TakeBodyRoom(context_, length);
  if (!room)
    co_return refuse(ErrorResponse(
        Error{ErrorCode::kUnavailable, "too many large requests are being read", ""}));
  if (const auto expect = message[http::field::expect]; !expect.empty()) {
    if (!boost::beast::iequals(expect, "100-continue"))
      co_return refuse(ErrorResponse(HttpFault::kExpectationFailed, "unknown Expect header"));
    if (!parser.is_done() && !co_await Write("HTTP/1.1 100 Continue\r\n\r\n"))
      co_return std::nullopt;
  }

  std::tie(error, count) =
      co_await Within(limits.body_timeout, http::async_read(socket_, buffer_, parser, kTuple));
  if (IsHangUp(error)) co_return std::nullopt;
  if (error) co_return refuse(RefusalOf(error, limits));
  Incoming incoming{Describe(parser, context_), std::nullopt};
  incoming.request.body = std::move(parser.get().body());
  incoming.request.body_room = std::move(*room);
  co_return incoming;
}

Connection::Task<bool> Connection::SendAnswer(Exchange& exchange) {
  exchange.OnOutput([weak = weak_from_this()] {
    if (const auto self = weak.lock())
      asio::post(self->socket_.get_executor(), [self] { self->wake_.cancel(); });
  });
  bool complete = false;
  co_await (SendOutput(exchange, complete) || WatchForHangUp());
  exchange.OnOutput(nullptr);
  if (!complete) exchange.Abandon();
  co_return complete;
}

Connection::Task<void> Connection::SendOutput(Exchange& exchange, bool& complete) {
  while (socket_.is_open() && !exchange.gone()) {
    Exchange::Output output = exchange.Take();
    if (output.bytes.empty() && !output.complete) {
      // What comes after Take posts a wake-up to this strand, which runs after the wait has begun.
      wake_.expires_at(asio::steady_timer::time_point::max());
      co_await wake_.async_wait(kTuple);
      continue;
    }
    if (!co_await Write(std::move(output.bytes))) co_return;
    if (output.complete) {
      complete = true;
      co_return;
    }
  }
}

Connection::Task<bool> Connection::Write(std::string bytes) {
  for (asio::const_buffer rest = asio::buffer(bytes); rest.size() > 0;) {
    const auto [error, count] =
        co_await Within(context_.limits.write_timeout, socket_.async_write_some(rest, kTuple));
    if (error) co_return false;
    rest += count;
  }
  co_return true;
}

// Reads ahead into the buffer, which is where the next request will be looked for. When that is
// full, a client that leaves is noticed by the next write.
Connection::Task<void> Connection::WatchForHangUp() {
  while (buffer_.size() < kReadAheadBytes) {
    const auto [error, count] = co_await socket_.async_read_some(buffer_.prepare(4096), kTuple);
    hung_up_ = error && error != asio::error::operation_aborted;
    if (error) co_return;
    buffer_.commit(count);
  }
  asio::steady_timer never(socket_.get_executor(), asio::steady_timer::time_point::max());
  co_await never.async_wait(kTuple);
}

Connection::Task<void> Connection::Linger() {
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  buffer_.clear();
  const auto end = std::chrono::steady_clock::now() + kLingerTime;
  for (size_t total = 0; total < kLingerBytes;) {
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) co_return;
    const auto [error, count] =
        co_await Within(std::chrono::duration_cast<Milliseconds>(left),
                        socket_.async_read_some(buffer_.prepare(64 << 10), kTuple));
    if (error) co_return;
    total += count;
  }
}

}  // namespace millpower::serve
