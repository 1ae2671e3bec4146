// One HTTP request and the answer being made to it. The connection that read the request sends the
// bytes; whoever answers (an I/O thread, a worker, an engine's thread) provides them. Knows no
// sockets, so that everything above it is tested without any.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace millpower::serve {

struct Caller;  // caller.h

struct HttpRequest {
  std::string method;
  std::string path;        // the target up to '?', not percent-decoded
  std::string query = {};  // what follows it, likewise
  std::string content_type;
  std::string id;                  // x-request-id: the client's if sane (ids.h), else ours
  std::string authorization = {};  // the header, as it came
  // Likewise, of the inference APIs: Content-Encoding, Accept-Encoding and
  // Inference-Header-Content-Length.
  std::string content_encoding = {}, accept_encoding = {}, inference_header_length = {};
  // On whose behalf we ask ourselves (batches); from the network it is null, and the key decides.
  std::shared_ptr<const Caller> caller = nullptr;
  std::string cors_headers = {};  // lines for whatever the answer is
  std::string body;
  std::shared_ptr<void> body_room = nullptr;  // let go of with the body
  bool http_1_0 = false;                      // no chunked answers; never kept alive
  bool keep_alive = true;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};  // further ones, lower case
  // What follows `body`, `rest_bytes` in all, made in pieces as the client takes them, so that a
  // large file is never whole in memory. Called on an I/O thread: must be quick. Nothing, or too
  // much, says that it can't go on, and the connection is cut.
  int64_t rest_bytes = 0;
  std::function<std::string()> rest = nullptr;
};

// Thread-safe. An answer is either one Reply, or Stream calls and a Finish.
class Exchange {
 public:
  // A stream is given up when there is more to send and over `unsent_bytes_max` are still unsent.
  Exchange(HttpRequest request, size_t unsent_bytes_max);

  const HttpRequest& request() const { return request_; }
  // The body, which need not be kept while its answer is made. Once, before anybody else looks.
  std::string TakeBody();

  // ---- For who asks ourselves, in place of a connection.

  // The whole answer goes to `callback`, once, on any thread, rather than to Take as bytes; nothing
  // is called if the exchange is abandoned first. Before it is handled. Such a request must not ask
  // for a stream.
  void OnReply(std::function<void(HttpResponse)> callback);

  // ---- For whoever answers.

  // A header, in lower case, for whatever the answer is, streams included. Before it begins.
  void AddHeader(std::string name, std::string value);

  // The whole answer. Ignored once there is an answer.
  void Reply(HttpResponse response);

  // Sends a piece of a server-sent event stream; the first one sends status 200 before it. False:
  // the client is gone, or reads so slowly that it has been given up. Stop producing then.
  bool Stream(std::string_view bytes);
  void Finish();

  // Whether Stream has been called, so that the status can't be changed any more.
  bool streaming() const;
  bool gone() const;

  // `callback` is called once, on any thread, when the client goes away before the answer is
  // complete; at once if it has. It must not call this exchange's OnGone.
  void OnGone(std::function<void()> callback);

  // For the log line and the metrics: what the request is called there ("chat"), and its tokens.
  void SetRoute(const char* route) { route_ = route; }
  void CountTokens(int64_t prompt_count, int64_t completion_count);

  // ---- For the connection.

  struct Output {
    std::string bytes;      // head and framing included
    bool complete = false;  // nothing follows
  };
  // Takes what is there to send now.
  Output Take();
  // `wake` is called, on any thread, when Take has something new.
  void OnOutput(std::function<void()> wake);
  // The client went away, or could not be written to.
  void Abandon();

  // ---- For the observer, after the answer.

  struct Summary {
    const char* route;
    int status;  // 0: none was given before the client went away
    int64_t prompt_tokens, completion_tokens;
    bool gone;
  };
  Summary summary() const;

 private:
  std::string HeadLocked(int status, std::string_view content_type) const;
  void WakeUnlocked(std::unique_lock<std::mutex>& lock);

  HttpRequest request_;  // constant but for the body
  const size_t unsent_bytes_max_;
  const char* route_ = "other";

  mutable std::mutex mutex_;
  std::vector<std::pair<std::string, std::string>> headers_;
  std::string unsent_;
  int status_ = 0;
  bool streaming_ = false;
  bool complete_ = false;   // the answerer is done
  int64_t rest_bytes_ = 0;  // of the answer's rest, to be made
  std::function<std::string()> rest_;
  bool gone_ = false;
  int64_t prompt_tokens_ = 0;
  int64_t completion_tokens_ = 0;
  std::function<void()> wake_;
  std::function<void()> on_gone_;
  std::function<void(HttpResponse)> on_reply_;
};

}  // namespace millpower::serve
