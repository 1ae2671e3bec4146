#include "serve/server.h"

#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <thread>
#include <vector>

#include "serve/connection.h"
#include "serve/errors.h"

namespace millpower::serve {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

struct HttpServer::Impl {
  Impl(HttpConfig config, Handler handler, Observer observer);

  Result<void> Listen();
  void Accept();
  void OnAccepted(error_code error, tcp::socket socket);
  void Refuse(tcp::socket socket);
  // Calls `action` on every connection that is still there.
  void ForEach(void (Connection::*action)());
  bool WaitUntilEmpty(std::chrono::milliseconds timeout);

  const HttpConfig config;
  ServerContext context;
  asio::io_context io;
  asio::executor_work_guard<asio::io_context::executor_type> work = make_work_guard(io);
  tcp::acceptor acceptor{asio::make_strand(io)};
  asio::steady_timer retry{acceptor.get_executor()};
  uint16_t port = 0;
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::vector<std::weak_ptr<Connection>> connections;  // guarded by mutex
};

HttpServer::Impl::Impl(HttpConfig config_in, Handler handler, Observer observer)
    : config(std::move(config_in)) {
  context.limits = config.limits;
  context.cors_origins = config.cors_origins;
  context.handler = std::move(handler);
  context.observer = std::move(observer);
}

Result<void> HttpServer::Impl::Listen() {
  const std::string where = config.host + ":" + std::to_string(config.port);
  error_code error;
  const auto found = tcp::resolver(io).resolve(config.host, std::to_string(config.port),
                                               tcp::resolver::passive, error);
  if (error || found.empty())
    return Fail(ErrorCode::kInvalidArgument, "cannot resolve " + where + ": " + error.message(),
                "host");
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return Fail(ErrorCode::kIo, "cannot listen on " + where + ": " + error.message());
  port = acceptor.local_endpoint(error).port();
  return {};
}

void HttpServer::Impl::Accept() {
  acceptor.async_accept(asio::make_strand(io), [this](error_code error, tcp::socket socket) {
    OnAccepted(error, std::move(socket));
  });
}

void HttpServer::Impl::OnAccepted(error_code error, tcp::socket socket) {
  if (!acceptor.is_open()) return;
  if (error) {  // out of file descriptors, for one: the clients wait in the kernel's queue
    spdlog::warn("accept: {}", error.message());
    retry.expires_after(std::chrono::milliseconds(100));
    retry.async_wait([this](error_code) {
      if (acceptor.is_open()) Accept();
    });
    return;
  }
  if (context.connection_count >= config.limits.connection_count_max) {
    Refuse(std::move(socket));
  } else {
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    const auto connection = std::make_shared<Connection>(std::move(socket), context);
    {
      std::lock_guard lock(mutex);
      std::erase_if(connections, [](const auto& weak) { return weak.expired(); });
      connections.push_back(connection);
    }
    connection->Start();
  }
  Accept();
}

// A short answer that fits the socket's buffer, without waiting for anything.
void HttpServer::Impl::Refuse(tcp::socket socket) {
  Exchange exchange(
      {.method = "", .path = "", .content_type = "", .id = "-", .body = "", .keep_alive = false},
      0);
  exchange.Reply(ErrorResponse(HttpFault::kTooManyConnections, "too many connections"));
  const std::string bytes = exchange.Take().bytes;
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(bytes), ignored);
}

void HttpServer::Impl::ForEach(void (Connection::*action)()) {
  std::lock_guard lock(mutex);
  for (const auto& weak : connections)
    if (const auto connection = weak.lock()) (connection.get()->*action)();
}

bool HttpServer::Impl::WaitUntilEmpty(std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  while (context.connection_count > 0) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

HttpServer::HttpServer(HttpConfig config, Handler handler, Observer observer)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(handler), std::move(observer))) {}

HttpServer::~HttpServer() { Drain(std::chrono::milliseconds(0)); }

Result<void> HttpServer::Start() {
  TRY(impl_->Listen());
  asio::post(impl_->acceptor.get_executor(), [impl = impl_.get()] { impl->Accept(); });
  for (int i = 0; i < impl_->config.io_threads; ++i)
    impl_->threads.emplace_back([impl = impl_.get()] { impl->io.run(); });
  return {};
}

uint16_t HttpServer::port() const { return impl_->port; }

int64_t HttpServer::connection_count() const { return impl_->context.connection_count; }

void HttpServer::Drain(std::chrono::milliseconds timeout) {
  if (impl_->threads.empty()) return;
  impl_->context.draining = true;
  asio::post(impl_->acceptor.get_executor(), [impl = impl_.get()] {
    error_code ignored;
    impl->acceptor.close(ignored);
    impl->retry.cancel();
    impl->ForEach(&Connection::CloseIfIdle);
  });
  if (!impl_->WaitUntilEmpty(timeout)) {
    impl_->ForEach(&Connection::Close);
    impl_->WaitUntilEmpty(std::chrono::seconds(10));
  }
  impl_->work.reset();
  impl_->io.stop();
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->threads.clear();
}

}  // namespace millpower::serve
