// HTTP/1.1 over TCP: reads requests within limits, hands each to a handler, sends what its Exchange
// is given, and tells it when the client goes away. Asio and Beast stay behind this header.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "serve/exchange.h"

namespace millpower::serve {

struct HttpLimits {
  size_t header_bytes_max = 16 << 10;                // request line and headers; 431
  size_t body_bytes_max = 32 << 20;                  // 413
  size_t bodies_bytes_max = 512 << 20;               // of all not yet understood; 503
  size_t unsent_bytes_max = 1 << 20;                 // of one stream, before its client is given up
  int connection_count_max = 1024;                   // one more is answered 503 and closed
  std::chrono::milliseconds idle_timeout{75'000};    // between requests: closed
  std::chrono::milliseconds header_timeout{10'000};  // from the first byte to the last; 408
  std::chrono::milliseconds body_timeout{60'000};    // for the whole body; 408
  std::chrono::milliseconds write_timeout{30'000};   // without the client taking a byte: closed
};

struct HttpConfig {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0: any free one
  int io_threads = 2;
  std::vector<std::string> cors_origins = {};  // whose pages' scripts may use it (cors.h)
  HttpLimits limits = {};
};

class HttpServer {
 public:
  // Called on an I/O thread; must not block. Whoever it passes the exchange to answers it.
  using Handler = std::function<void(std::shared_ptr<Exchange>)>;
  // Called on an I/O thread when an answer has been sent or its client is gone.
  using Observer = std::function<void(const Exchange&, std::chrono::nanoseconds elapsed)>;

  HttpServer(HttpConfig config, Handler handler, Observer observer);
  ~HttpServer();  // Drain(0)

  // Listens and serves. Call once. Errors: kInvalidArgument (a host that does not resolve), kIo
  // (the address is in use or not ours).
  Result<void> Start();

  // The port it listens on; valid after Start.
  uint16_t port() const;
  int64_t connection_count() const;

  // Stops accepting, closes idle connections, waits until the requests being served are answered or
  // `timeout` has passed, then cuts the rest off. Idempotent; returns when no handler or callback
  // of this server runs any more.
  void Drain(std::chrono::milliseconds timeout);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
