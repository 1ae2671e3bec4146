#include "serve/test_client.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "base/check.h"

namespace millpower::serve {
namespace {

constexpr int kReadLimitSeconds = 60;

std::string Lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string KeyLine(std::string_view key) {
  return key.empty() ? "" : "Authorization: Bearer " + std::string(key) + "\r\n";
}

}  // namespace

TestClient::TestClient(uint16_t port, int receive_buffer_bytes)
    : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
  if (receive_buffer_bytes > 0)
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
  const timeval limit{kReadLimitSeconds, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0)
      << "port " << port;
}

TestClient::~TestClient() { Close(); }

bool TestClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

void TestClient::Get(std::string_view path, std::string_view key) {
  Send("GET " + std::string(path) + " HTTP/1.1\r\nHost: test\r\n" + KeyLine(key) + "\r\n");
}

void TestClient::Post(std::string_view path, std::string_view json, std::string_view key) {
  Send("POST " + std::string(path) + " HTTP/1.1\r\nHost: test\r\n" + KeyLine(key) +
       "Content-Type: application/json\r\nContent-Length: " + std::to_string(json.size()) +
       "\r\n\r\n" + std::string(json));
}

bool TestClient::Fill() {
  char bytes[16384];
  const ssize_t count = recv(fd_, bytes, sizeof(bytes), 0);
  if (count <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(count));
  return true;
}

std::string TestClient::Consume(size_t count) {
  std::string bytes = buffer_.substr(0, count);
  buffer_.erase(0, count);
  return bytes;
}

std::optional<std::string> TestClient::ReadUntil(std::string_view text) {
  size_t at;
  while ((at = buffer_.find(text)) == std::string::npos)
    if (!Fill()) return std::nullopt;
  return Consume(at + text.size());
}

std::optional<TestResponse> TestClient::Read(bool head) {
  const auto lines = ReadUntil("\r\n\r\n");
  if (!lines) return std::nullopt;
  TestResponse response;
  response.status = std::atoi(lines->c_str() + sizeof("HTTP/1.1"));
  for (size_t at = lines->find("\r\n") + 2, end; (end = lines->find("\r\n", at)) > at;
       at = end + 2) {
    const std::string line = lines->substr(at, end - at);
    const size_t colon = line.find(": ");
    response.headers[Lower(line.substr(0, colon))] = line.substr(colon + 2);
  }
  if (head || response.status == 100 || response.status == 204) return response;
  if (response.headers["transfer-encoding"] == "chunked") {
    while (true) {
      const auto size_line = ReadUntil("\r\n");
      if (!size_line) return std::nullopt;
      const size_t size = std::stoul(*size_line, nullptr, 16);
      while (buffer_.size() < size + 2)
        if (!Fill()) return std::nullopt;
      response.body += Consume(size + 2).substr(0, size);
      if (size == 0) return response;
    }
  }
  if (!response.headers.contains("content-length")) {
    while (Fill()) {
    }
    response.body = Consume(buffer_.size());
    return response;
  }
  const size_t length = std::stoul(response.headers["content-length"]);
  while (buffer_.size() < length)
    if (!Fill()) return std::nullopt;
  response.body = Consume(length);
  return response;
}

bool TestClient::ReadEnd() {
  char bytes[16384];
  ssize_t count;
  while ((count = recv(fd_, bytes, sizeof(bytes), 0)) > 0) {
  }
  return count == 0 || errno == ECONNRESET;
}

void TestClient::Close(bool reset) {
  if (fd_ < 0) return;
  if (reset) {
    const linger now{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  }
  close(fd_);
  fd_ = -1;
}

}  // namespace millpower::serve
