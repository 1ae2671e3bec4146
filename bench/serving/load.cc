#include "bench/serving/load.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/rng.h"
#include "bench/serving/sse.h"

namespace millpower::bench {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadBytes = 64 << 10;
constexpr size_t kMaxErrorBytes = 64 << 10;  // of an answer that is no stream

std::unexpected<Error> BadUrl(std::string_view url, const std::string& why) {
  return Fail(ErrorCode::kInvalidArgument, "--url '" + std::string(url) + "' " + why, "url");
}

// What a piece of a stream says.
struct Piece {
  bool output = false;  // part of the answer came with it
  bool choice = false;
  std::string error;
};

// Reads one event into `outcome`'s usage.
Piece ReadEvent(const std::string& data, Api api, Outcome& outcome) {
  Piece piece;
  const auto event = ParseJson(data);
  if (!event || !event->is_object()) {
    piece.error = "an event of the stream is no JSON object";
    return piece;
  }
  if (const auto error = event->find("error"); error != event->end() && !error->is_null()) {
    piece.error = DumpJson(*error);
    return piece;
  }
  auto count = [](const Json& object, const char* key, int64_t& into) {
    if (!object.is_object()) return;
    const auto found = object.find(key);
    if (found != object.end() && found->is_number_integer()) into = found->get<int64_t>();
  };
  if (const auto usage = event->find("usage"); usage != event->end() && usage->is_object()) {
    count(*usage, "prompt_tokens", outcome.prompt_tokens);
    count(*usage, "completion_tokens", outcome.output_tokens);
    if (const auto details = usage->find("prompt_tokens_details"); details != usage->end())
      count(*details, "cached_tokens", outcome.cached_tokens);
  }
  const auto choices = event->find("choices");
  if (choices == event->end() || !choices->is_array() || choices->empty()) return piece;
  piece.choice = true;
  const Json& choice = (*choices)[0];
  auto text = [](const Json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() &&
           !found->get_ref<const std::string&>().empty();
  };
  if (!choice.is_object()) return piece;
  if (api == Api::kCompletions) {
    // A token may be part of a character, and have no text yet; but what only ends is no token.
    const auto finish = choice.find("finish_reason");
    piece.output = text(choice, "text") || finish == choice.end() || finish->is_null();
  } else if (const auto delta = choice.find("delta"); delta != choice.end() && delta->is_object()) {
    piece.output = text(*delta, "content") || text(*delta, "reasoning_content");
  }
  return piece;
}

// All requests of a run, on one thread.
class Load {
 public:
  explicit Load(const LoadOptions& options) : options_(options) {}

  std::vector<Outcome> Run() {
    outcomes_.assign(static_cast<size_t>(options_.requests), {});
    for (Outcome& outcome : outcomes_) outcome.error = "not sent: the time limit came first";
    start_ = std::chrono::steady_clock::now();
    asio::steady_timer limit(context_, options_.timeout);
    limit.async_wait([this](error_code error) {
      if (!error) context_.stop();
    });
    asio::co_spawn(context_, All(), [&](std::exception_ptr) { limit.cancel(); });
    context_.run();
    return std::move(outcomes_);
  }

 private:
  double Now() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  asio::awaitable<void> All() {
    warming_ = options_.warmup;
    co_await Workers(std::min(options_.concurrency, options_.warmup));
    start_ = std::chrono::steady_clock::now();
    if (options_.rate > 0)
      co_await AsTheyArrive();
    else
      co_await Workers(std::min(options_.concurrency, options_.requests));
  }

  // `count` workers, each with one request at a time, until none is left.
  asio::awaitable<void> Workers(int count) {
    running_ = count;
    for (int i = 0; i < count; ++i) asio::co_spawn(context_, Worker(), asio::detached);
    co_await AllDone();
  }

  asio::awaitable<void> Worker() {
    while (warming_ > 0) {
      const int index = -warming_--;
      co_await Send(index);
    }
    while (started_ && next_ < options_.requests) {
      const int index = next_++;
      co_await Send(index);
    }
    Done();
  }

  asio::awaitable<void> AsTheyArrive() {
    const std::vector<double> arrivals = Arrivals(options_);
    running_ = options_.requests;
    asio::steady_timer timer(context_);
    for (int index = 0; index < options_.requests; ++index) {
      timer.expires_at(start_ +
                       std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                           std::chrono::duration<double>(arrivals[static_cast<size_t>(index)])));
      co_await timer.async_wait(kTuple);
      asio::co_spawn(context_, Arrived(index), asio::detached);
    }
    co_await AllDone();
  }

  asio::awaitable<void> Arrived(int index) {
    co_await Send(index);
    Done();
  }

  asio::awaitable<void> AllDone() {
    while (running_ > 0) {
      done_.expires_at(asio::steady_timer::time_point::max());
      co_await done_.async_wait(kTuple);
    }
    started_ = true;
  }

  void Done() {
    if (--running_ == 0) done_.cancel();
  }

  asio::awaitable<void> Send(int index) {
    Outcome outcome;
    outcome.start_s = Now();
    Outcome* kept = index >= 0 ? &outcomes_[static_cast<size_t>(index)] : nullptr;
    if (kept != nullptr) kept->error = "not answered within the time limit";
    outcome.error = co_await Exchange(index, outcome);
    outcome.end_s = Now();
    if (kept != nullptr) *kept = std::move(outcome);
  }

  // Why it failed, or "".
  asio::awaitable<std::string> Exchange(int index, Outcome& outcome) {
    beast::tcp_stream stream(context_);
    const tcp::endpoint endpoint(asio::ip::make_address(options_.target.address),
                                 options_.target.port);
    const auto [connect_error] = co_await stream.async_connect(endpoint, kTuple);
    if (connect_error) co_return "cannot connect: " + connect_error.message();
    error_code ignored;
    stream.socket().set_option(tcp::no_delay(true), ignored);

    const char* path = options_.api == Api::kChat ? "/v1/chat/completions" : "/v1/completions";
    http::request<http::string_body> request(http::verb::post, options_.target.prefix + path, 11);
    request.set(http::field::host, options_.target.host);
    request.set(http::field::content_type, "application/json");
    request.set(http::field::connection, "close");
    if (!options_.key.empty()) request.set(http::field::authorization, "Bearer " + options_.key);
    request.body() = DumpJson(RequestBody(options_, index));
    request.prepare_payload();
    const auto [write_error, written] = co_await http::async_write(stream, request, kTuple);
    if (write_error) co_return "cannot send: " + write_error.message();

    beast::flat_buffer buffer;
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    const auto [header_error, header_bytes] =
        co_await http::async_read_header(stream, buffer, parser, kTuple);
    if (header_error) co_return "no answer: " + header_error.message();
    outcome.status = static_cast<int>(parser.get().result_int());
    const bool is_stream = outcome.status == 200;

    SseParser events;
    std::vector<char> bytes(kReadBytes);
    std::string other;  // an answer that is no stream
    std::optional<double> first_choice_s;
    bool done = false;
    int64_t pieces = 0;
    while (!parser.is_done()) {
      parser.get().body().data = bytes.data();
      parser.get().body().size = bytes.size();
      const auto [read_error, count] =
          co_await http::async_read_some(stream, buffer, parser, kTuple);
      if (read_error && read_error != http::error::need_buffer)
        co_return "the answer broke off: " + read_error.message();
      const double now = Now();
      const std::string_view got(bytes.data(), bytes.size() - parser.get().body().size);
      if (!is_stream) {
        other += got.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, other.size()));
        continue;
      }
      const auto pushed = events.Push(got);
      if (!pushed) co_return pushed.error().message;
      for (const std::string& data : *pushed) {
        if (data == "[DONE]") {
          done = true;
          continue;
        }
        const Piece piece = ReadEvent(data, options_.api, outcome);
        if (!piece.error.empty()) co_return piece.error;
        if (piece.choice && !first_choice_s) first_choice_s = now;
        if (!piece.output) continue;
        if (pieces++ == 0)
          outcome.first_token_s = now;
        else
          outcome.gaps_s.push_back(now - outcome.last_token_s);
        outcome.last_token_s = now;
      }
    }
    if (!is_stream) co_return "HTTP " + std::to_string(outcome.status) + ": " + other;
    if (!first_choice_s) co_return std::string("the answer has no events with output");
    if (!done) co_return std::string("the stream ended without [DONE]");
    if (pieces == 0) outcome.first_token_s = outcome.last_token_s = *first_choice_s;
    if (outcome.output_tokens == 0) outcome.output_tokens = pieces;
    co_return std::string();
  }

  const LoadOptions options_;
  asio::io_context context_{1};
  asio::steady_timer done_{context_};
  std::chrono::steady_clock::time_point start_;
  std::vector<Outcome> outcomes_;
  int warming_ = 0;       // warm-ups not sent yet
  bool started_ = false;  // they are all over
  int next_ = 0;          // request
  int running_ = 0;
};

}  // namespace

Result<Target> ParseUrl(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return BadUrl(url, "does not begin with http://");
  std::string_view rest = url.substr(kScheme.size());
  Target target;
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view path = rest.substr(slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.ends_with("/v1")) path.remove_suffix(3);
  if (path.find_first_of("?# ") != std::string_view::npos)
    return BadUrl(url, "has more than a path behind the host");
  target.prefix = path;
  target.host = rest.substr(0, slash);
  std::string_view host = target.host, port;
  if (host.starts_with('[')) {
    const size_t close = host.find(']');
    if (close == std::string_view::npos) return BadUrl(url, "has a '[' without a ']'");
    port = host.substr(close + 1);
    host = host.substr(1, close - 1);
  } else if (const size_t colon = host.find(':'); colon != std::string_view::npos) {
    port = host.substr(colon);
    host = host.substr(0, colon);
  }
  if (!port.empty()) {
    const auto [end, error] =
        std::from_chars(port.data() + 1, port.data() + port.size(), target.port);
    if (port[0] != ':' || error != std::errc() || end != port.data() + port.size() ||
        target.port == 0)
      return BadUrl(url, "has no valid port");
  }
  target.address = host == "localhost" ? "127.0.0.1" : std::string(host);
  error_code error;
  const asio::ip::address address = asio::ip::make_address(target.address, error);
  if (error || !address.is_loopback())
    return BadUrl(url,
                  "is not on this machine: load is sent to loopback addresses only (127.0.0.1, "
                  "localhost, [::1])");
  return target;
}

Json RequestBody(const LoadOptions& options, int index) {
  const auto vocab = static_cast<uint64_t>(options.vocab);
  Rng shared(options.seed);
  Rng own(Mix64(options.seed) + static_cast<uint64_t>(static_cast<int64_t>(index)) + 1);
  Json ids = Json::array();
  for (int64_t i = 0; i < options.input_tokens; ++i)
    ids.push_back((i < options.shared_prefix ? shared : own).Below(vocab));
  Json body = {{"model", options.model}, {"max_tokens", options.output_tokens},
               {"temperature", 0},       {"ignore_eos", true},
               {"stream", true},         {"stream_options", {{"include_usage", true}}}};
  if (options.api == Api::kCompletions) {
    body["prompt"] = std::move(ids);
    return body;
  }
  static constexpr const char* kWords[] = {"ship", "port", "crane", "rate", "load",  "fee",
                                           "dock", "rail", "truck", "bill", "trade", "cost",
                                           "box",  "sea",  "tax",   "route"};
  std::string text;
  for (const Json& id : ids)
    text += std::string(text.empty() ? "" : " ") + kWords[id.get<uint64_t>() % std::size(kWords)];
  body["messages"] = Json::array({{{"role", "user"}, {"content", text}}});
  return body;
}

std::vector<double> Arrivals(const LoadOptions& options) {
  Rng rng(options.seed ^ 0x5eed);
  std::vector<double> arrivals;
  double at = 0;
  for (int i = 0; i < options.requests; ++i) {
    arrivals.push_back(at);
    at -= std::log1p(-static_cast<double>(rng.Uniform())) / options.rate;
  }
  return arrivals;
}

std::vector<Outcome> RunLoad(const LoadOptions& options) { return Load(options).Run(); }

}  // namespace millpower::bench
