#include "serve/exchange.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <boost/beast/http/status.hpp>
#include <ctime>

namespace millpower::serve {
namespace {

std::string_view Reason(int status) {
  if (status == 499) return "Client Closed Request";
  const auto reason = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(status)));
  return {reason.data(), reason.size()};
}

}  // namespace

Exchange::Exchange(HttpRequest request, size_t unsent_bytes_max)
    : request_(std::move(request)), unsent_bytes_max_(unsent_bytes_max) {}

std::string Exchange::HeadLocked(int status, std::string_view content_type) const {
  std::string head = fmt::format(
      "HTTP/1.1 {} {}\r\ndate: {:%a, %d %b %Y %H:%M:%S GMT}\r\nserver: millpower\r\n"
      "x-request-id: {}\r\n",
      status, Reason(status), fmt::gmtime(std::time(nullptr)), request_.id);
  if (!content_type.empty()) head += fmt::format("content-type: {}\r\n", content_type);
  head += request_.cors_headers;
  if (!request_.keep_alive) head += "connection: close\r\n";
  for (const auto& [name, value] : headers_) head += fmt::format("{}: {}\r\n", name, value);
  return head;
}

std::string Exchange::TakeBody() {
  request_.body_room.reset();
  return std::move(request_.body);
}

void Exchange::OnReply(std::function<void(HttpResponse)> callback) {
  std::lock_guard lock(mutex_);
  on_reply_ = std::move(callback);
}

void Exchange::AddHeader(std::string name, std::string value) {
  std::lock_guard lock(mutex_);
  headers_.emplace_back(std::move(name), std::move(value));
}

void Exchange::Reply(HttpResponse response) {
  std::unique_lock lock(mutex_);
  if (streaming_ || complete_ || gone_) return;
  status_ = response.status;
  complete_ = true;
  on_gone_ = nullptr;
  if (on_reply_) {
    const auto on_reply = std::exchange(on_reply_, nullptr);
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    lock.unlock();
    on_reply(std::move(response));
    return;
  }
  const bool has_body = response.status != 204;
  std::string bytes = HeadLocked(response.status, has_body ? response.content_type : "");
  for (const auto& [name, value] : response.headers)
    bytes += fmt::format("{}: {}\r\n", name, value);
  if (has_body)
    bytes += fmt::format("content-length: {}\r\n", std::ssize(response.body) + response.rest_bytes);
  bytes += "\r\n";
  if (has_body && request_.method != "HEAD") {
    bytes += response.body;
    rest_bytes_ = response.rest_bytes;
    rest_ = std::move(response.rest);
  }
  unsent_ = std::move(bytes);
  WakeUnlocked(lock);
}

bool Exchange::Stream(std::string_view bytes) {
  std::unique_lock lock(mutex_);
  if (complete_ || gone_) return false;
  if (!streaming_) {
    streaming_ = true;
    status_ = 200;
    unsent_ = HeadLocked(200, "text/event-stream; charset=utf-8") + "cache-control: no-cache\r\n";
    unsent_ += request_.http_1_0 ? "\r\n" : "transfer-encoding: chunked\r\n\r\n";
  }
  const bool too_slow = unsent_.size() > unsent_bytes_max_;
  if (too_slow) {
    gone_ = true;
    unsent_.clear();
    on_gone_ = nullptr;  // the caller knows from our answer
  } else if (request_.http_1_0) {
    unsent_ += bytes;
  } else {
    unsent_ += fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
  }
  WakeUnlocked(lock);
  return !too_slow;
}

void Exchange::Finish() {
  std::unique_lock lock(mutex_);
  if (complete_ || gone_) return;
  complete_ = true;
  if (!request_.http_1_0) unsent_ += "0\r\n\r\n";
  on_gone_ = nullptr;
  WakeUnlocked(lock);
}

bool Exchange::streaming() const {
  std::lock_guard lock(mutex_);
  return streaming_;
}

bool Exchange::gone() const {
  std::lock_guard lock(mutex_);
  return gone_;
}

void Exchange::OnGone(std::function<void()> callback) {
  {
    std::lock_guard lock(mutex_);
    if (complete_) return;
    if (!gone_) {
      on_gone_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Exchange::CountTokens(int64_t prompt_count, int64_t completion_count) {
  std::lock_guard lock(mutex_);
  prompt_tokens_ += prompt_count;
  completion_tokens_ += completion_count;
}

Exchange::Output Exchange::Take() {
  std::lock_guard lock(mutex_);
  if (unsent_.empty() && rest_bytes_ > 0) {
    unsent_ = rest_();
    rest_bytes_ -= std::ssize(unsent_);
    if (unsent_.empty() || rest_bytes_ < 0) {
      gone_ = true;
      unsent_.clear();
      rest_bytes_ = 0;
    }
    if (rest_bytes_ == 0) rest_ = nullptr;
  }
  return {std::exchange(unsent_, {}), complete_ && rest_bytes_ == 0 && !gone_};
}

void Exchange::OnOutput(std::function<void()> wake) {
  std::lock_guard lock(mutex_);
  wake_ = std::move(wake);
}

void Exchange::Abandon() {
  std::unique_lock lock(mutex_);
  if (gone_) return;
  gone_ = true;
  unsent_.clear();
  rest_bytes_ = 0;
  rest_ = nullptr;
  const auto on_gone = std::exchange(on_gone_, nullptr);
  WakeUnlocked(lock);
  if (on_gone) on_gone();
}

void Exchange::WakeUnlocked(std::unique_lock<std::mutex>& lock) {
  const auto wake = wake_;
  lock.unlock();
  if (wake) wake();
}

Exchange::Summary Exchange::summary() const {
  std::lock_guard lock(mutex_);
  return {route_, status_, prompt_tokens_, completion_tokens_, gone_};
}

}  // namespace millpower::serve
