// One client connection: a coroutine that reads a request, waits for its answer while watching for
// the client to leave, sends it, and starts over. All of it runs on the connection's strand.
// Internal to the server (server.h).
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <memory>
#include <optional>

#include "serve/server.h"

namespace millpower::serve {

// What the connections of one server share.
struct ServerContext {
  HttpLimits limits;
  std::vector<std::string> cors_origins;
  HttpServer::Handler handler;
  HttpServer::Observer observer;
  std::atomic<bool> draining{false};
  std::atomic<int64_t> connection_count{0};
  // Set aside for bodies that are not yet understood.
  std::shared_ptr<std::atomic<size_t>> bodies_bytes = std::make_shared<std::atomic<size_t>>(0);
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // `socket`'s executor is a strand of its own. `context` outlives the connection.
  Connection(boost::asio::ip::tcp::socket socket, ServerContext& context);

  // Serves until either side closes; keeps itself alive meanwhile.
  void Start();

  // Both thread-safe. CloseIfIdle leaves a request that has begun alone; Close leaves nothing.
  void CloseIfIdle();
  void Close();

 private:
  template <typename T>
  using Task = boost::asio::awaitable<T>;
  using Milliseconds = std::chrono::milliseconds;

  struct Incoming {
    HttpRequest request;
    std::optional<HttpResponse> refusal;  // what to answer without asking the handler
  };

  Task<void> Serve();
  // nullopt: the client left, or stayed idle too long.
  Task<std::optional<Incoming>> ReadRequest();
  // False: the answer did not reach its end.
  Task<bool> SendAnswer(Exchange& exchange);
  Task<bool> Write(std::string bytes);
  Task<void> WatchForHangUp();
  Task<void> SendOutput(Exchange& exchange, bool& complete);
  // Lets the client read an answer it got before its request was read to the end.
  Task<void> Linger();
  void CloseNow();

  // Counts the connection until all of it is gone: the first member is destroyed last.
  struct Presence {
    explicit Presence(std::atomic<int64_t>& count) : count(count) { ++count; }
    ~Presence() { --count; }
    std::atomic<int64_t>& count;
  };

  const Presence presence_;
  boost::asio::ip::tcp::socket socket_;
  ServerContext& context_;
  boost::asio::steady_timer wake_;  // cancelled to wake SendOutput
  boost::beast::flat_buffer buffer_;
  bool idle_ = true;
  bool hung_up_ = false;  // the client's end has been read
};

}  // namespace millpower::serve
