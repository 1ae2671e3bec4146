// A raw HTTP client for tests: sends bytes as they are, well-formed or not.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace millpower::serve {

struct TestResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
};

// Blocking, with a time limit on every read. Not thread-safe.
class TestClient {
 public:
  // Stops the process when there is nobody at 127.0.0.1:`port`. `receive_buffer_bytes` > 0 keeps
  // the kernel from taking much on behalf of a client that does not read.
  explicit TestClient(uint16_t port, int receive_buffer_bytes = 0);
  ~TestClient();
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  // False when the server has closed.
  bool Send(std::string_view bytes);
  // With a `key` in the Authorization header, if there is one.
  void Get(std::string_view path, std::string_view key = "");
  void Post(std::string_view path, std::string_view json, std::string_view key = "");

  // The next response; nullopt when the server closes, or says nothing for the time limit. `head`:
  // there is no body.
  std::optional<TestResponse> Read(bool head = false);
  // Until `text` has come, or nullopt as above; returns all that was not consumed before.
  std::optional<std::string> ReadUntil(std::string_view text);
  // Whether the server closes within the time limit; what it sends before is dropped.
  bool ReadEnd();

  // Leaves at once: with a reset rather than a polite end, if `reset`.
  void Close(bool reset = false);

 private:
  bool Fill();
  std::string Consume(size_t count);

  int fd_;
  std::string buffer_;
};

}  // namespace millpower::serve
