// The whole service over sockets, with an engine that follows a script.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "base/json.h"
#include "base/test_wait.h"
#include "serve/service.h"
#include "serve/test_client.h"
#include "serve/test_model.h"

namespace millpower::serve {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

Json Object(std::string_view text) { return ParseJson(text).value(); }

Json ChatBody(const Json& more = Json::object()) {
  Json body = Object(R"({"model": "test", "messages": [{"role": "user", "content": "Hi"}]})");
  body.update(more);
  return body;
}

Json CompletionBody(const Json& more = Json::object()) {
  Json body = Object(R"({"model": "test", "prompt": "Hi", "max_tokens": 100})");
  body.update(more);
  return body;
}

class ApiTest : public testing::Test {
 protected:
  ApiTest() {
    models_.Add(model_.served);
    EXPECT_TRUE(service_.Start());
  }

  void Answer(std::string text) {
    std::lock_guard lock(mutex_);
    answer_ = std::move(text);
  }

  TestResponse Post(std::string_view path, std::string_view body) {
    TestClient client(service_.port());
    client.Post(path, body);
    return client.Read().value();
  }
  TestResponse Get(std::string_view path) {
    TestClient client(service_.port());
    client.Get(path);
    return client.Read().value();
  }
  Json Whole(std::string_view path, const Json& body) {
    const TestResponse response = Post(path, body.dump());
    EXPECT_EQ(response.status, 200) << response.body;
    return Object(response.body);
  }
  Json Chat(const Json& more = Json::object()) {
    return Whole("/v1/chat/completions", ChatBody(more));
  }
  Json Complete(const Json& more = Json::object()) {
    return Whole("/v1/completions", CompletionBody(more));
  }
  // The events of a stream, which must end with [DONE].
  std::vector<Json> Stream(std::string_view path, Json body) {
    body["stream"] = true;
    const TestResponse response = Post(path, body.dump());
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_THAT(response.headers.at("content-type"), HasSubstr("text/event-stream"));
    std::vector<Json> events;
    std::string_view rest = response.body;
    while (rest.starts_with("data: {")) {
      const size_t end = rest.find("\n\n");
      events.push_back(Object(rest.substr(6, end - 6)));
      rest.remove_prefix(end + 2);
    }
    EXPECT_EQ(rest, "data: [DONE]\n\n");
    return events;
  }

  std::mutex mutex_;
  std::string answer_ = "Hello!";
  TestModel model_{[this](const engine::Request&) {
    std::lock_guard lock(mutex_);
    return answer_;
  }};
  ModelRegistry models_;
  SystemClock clock_;
  Service service_{{.port = 0}, models_, clock_};
};

// The deltas of a stream put together.
std::string Joined(const std::vector<Json>& events, const char* field) {
  std::string text;
  for (const Json& event : events)
    for (const Json& choice : event["choices"])
      if (choice["delta"].contains(field)) text += choice["delta"][field];
  return text;
}

TEST_F(ApiTest, Chats) {
  const Json answer = Chat();
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "test");
  EXPECT_TRUE(answer["id"].get<std::string>().starts_with("chatcmpl-"));
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"], Object(R"({"role": "assistant", "content": "Hello!"})"));
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["logprobs"], nullptr);
  const size_t prompt_tokens = model_.engine.last_request().prompt.size();
  EXPECT_EQ(answer["usage"]["prompt_tokens"], prompt_tokens);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 7);
  EXPECT_EQ(answer["usage"]["total_tokens"], prompt_tokens + 7);
  EXPECT_EQ(model_.engine.last_request().sampling.max_tokens, 1000 - int(prompt_tokens));
}

TEST_F(ApiTest, StreamsAChat) {
  const auto events = Stream("/v1/chat/completions", ChatBody());
  ASSERT_EQ(events.size(), 8u);  // the role, six characters, the end
  EXPECT_EQ(events[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(events[0]["choices"][0]["delta"], Object(R"({"role": "assistant", "content": ""})"));
  EXPECT_EQ(Joined(events, "content"), "Hello!");
  EXPECT_EQ(events[7]["choices"][0]["delta"], Json::object());
  EXPECT_EQ(events[7]["choices"][0]["finish_reason"], "stop");
  for (const Json& event : events) {
    EXPECT_EQ(event["id"], events[0]["id"]);
    EXPECT_FALSE(event.contains("usage"));
  }
}

TEST_F(ApiTest, StreamsUsageWhenAsked) {
  const auto events = Stream("/v1/chat/completions",
                             ChatBody(Object(R"({"stream_options": {"include_usage": true}})")));
  EXPECT_EQ(events[0]["usage"], nullptr);
  EXPECT_EQ(events.back()["choices"], Json::array());
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], 7);
}

TEST_F(ApiTest, TellsReasoningFromContent) {
  Answer("<think>\nWell.\n</think>\n\nYes.");
  const Json message = Chat()["choices"][0]["message"];
  EXPECT_EQ(message["reasoning_content"], "Well.");
  EXPECT_EQ(message["content"], "Yes.");
  const auto events = Stream("/v1/chat/completions", ChatBody());
  EXPECT_EQ(Joined(events, "reasoning_content"), "Well.");
  EXPECT_EQ(Joined(events, "content"), "Yes.");
}

Json Tools() {
  return Object(R"({"tools": [{"type": "function", "function":
      {"name": "weather", "parameters": {"type": "object"}}}]})");
}

TEST_F(ApiTest, CallsTools) {
  Answer(
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Lowell\"}}\n</tool_call>");
  const Json choice = Chat(Tools())["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], nullptr);
  const Json call = choice["message"]["tool_calls"][0];
  EXPECT_TRUE(call["id"].get<std::string>().starts_with("call_"));
  EXPECT_EQ(call["type"], "function");
  EXPECT_EQ(call["function"],
            Object(R"({"name": "weather", "arguments": "{\"city\": \"Lowell\"}"})"));
  // Nobody asked for tools: it is text.
  EXPECT_THAT(Chat()["choices"][0]["message"]["content"].get<std::string>(),
              HasSubstr("<tool_call>"));
  Json none = Tools();
  none["tool_choice"] = "none";
  EXPECT_EQ(Chat(none)["choices"][0]["finish_reason"], "stop");
}

TEST_F(ApiTest, StreamsToolCalls) {
  Answer(
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Lowell\"}}\n</tool_call>");
  const auto events = Stream("/v1/chat/completions", ChatBody(Tools()));
  std::string arguments;
  int begun = 0;
  for (const Json& event : events) {
    const Json& delta = event["choices"][0]["delta"];
    if (!delta.contains("tool_calls")) continue;
    const Json& call = delta["tool_calls"][0];
    EXPECT_EQ(call["index"], 0);
    if (call.contains("id")) {
      ++begun;
      EXPECT_TRUE(arguments.empty());
      EXPECT_EQ(call["function"]["name"], "weather");
    }
    arguments += call["function"]["arguments"];
  }
  EXPECT_EQ(begun, 1);
  EXPECT_EQ(arguments, R"({"city": "Lowell"})");
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "tool_calls");
}

TEST_F(ApiTest, CompletesPrompts) {
  const Json answer = Complete();
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["choices"][0]["text"], "Hello!");
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 2);
  EXPECT_EQ(Complete({{"prompt", {72, 105}}})["usage"]["prompt_tokens"], 2);
  EXPECT_EQ(model_.engine.last_request().prompt, (std::vector<int32_t>{72, 105}));

  const Json both = Complete({{"prompt", {"one", "three"}}, {"echo", true}});
  ASSERT_EQ(both["choices"].size(), 2u);
  EXPECT_EQ(both["choices"][0]["text"], "oneHello!");
  EXPECT_EQ(both["choices"][1]["text"], "threeHello!");
  EXPECT_EQ(both["choices"][1]["index"], 1);
  EXPECT_EQ(both["usage"]["prompt_tokens"], 8);
  EXPECT_EQ(both["usage"]["completion_tokens"], 14);
}

TEST_F(ApiTest, StopsAtLengths) {
  const Json answer = Complete({{"max_tokens", 4}});
  EXPECT_EQ(answer["choices"][0]["text"], "Hell");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(Whole("/v1/completions",
                  Object(R"({"model": "test", "prompt": "x"})"))["usage"]["completion_tokens"],
            7);
  EXPECT_EQ(model_.engine.last_request().sampling.max_tokens, 16);
  Complete({{"max_tokens", 5000}});
  EXPECT_EQ(model_.engine.last_request().sampling.max_tokens, 998);
}

TEST_F(ApiTest, StopsAtStopStrings) {
  Answer("one two three");
  const Json answer = Complete({{"stop", {" th", "zzz"}}});
  EXPECT_EQ(answer["choices"][0]["text"], "one two");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 10);  // those of the stop string count
  EXPECT_EQ(Joined(Stream("/v1/chat/completions", ChatBody({{"stop", " th"}})), "content"),
            "one two");
  EXPECT_EQ(Complete({{"stop", "three!"}})["choices"][0]["text"], "one two three");
}

TEST_F(ApiTest, PassesSamplingOn) {
  ServedModel other = model_.served;
  other.name = "other";
  other.defaults.temperature = 0.6f;
  other.defaults.top_k = 20;
  models_.Add(other);
  Chat({{"model", "other"},
        {"top_k", -1},
        {"seed", -1},
        {"min_p", 0.25},
        {"ignore_eos", true},
        {"stop_token_ids", {7, 8}},
        {"max_completion_tokens", 9}});
  const engine::SamplingParams sampling = model_.engine.last_request().sampling;
  EXPECT_FLOAT_EQ(sampling.temperature, 0.6f);
  EXPECT_EQ(sampling.top_k, 0);
  EXPECT_FLOAT_EQ(sampling.min_p, 0.25f);
  EXPECT_EQ(sampling.seed, UINT64_MAX);
  EXPECT_TRUE(sampling.ignore_eos);
  EXPECT_THAT(sampling.stop_token_ids, ElementsAre(7, 8));
  EXPECT_EQ(sampling.max_tokens, 9);
  EXPECT_EQ(sampling.logprobs, -1);
}

TEST_F(ApiTest, GivesLogprobsOfAChat) {
  Answer("h\u00e9");
  const Json choice = Chat({{"logprobs", true}, {"top_logprobs", 2}})["choices"][0];
  const Json& content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), 4u);  // h, two halves of é, the end of the turn
  EXPECT_EQ(content[0]["token"], "h");
  EXPECT_EQ(content[0]["logprob"], -0.5);
  EXPECT_EQ(content[0]["bytes"], Json::array({104}));
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content[0]["top_logprobs"][1]["token"], "i");
  EXPECT_EQ(content[1]["bytes"], Json::array({0xc3}));

  size_t count = 0;
  for (const Json& event : Stream("/v1/chat/completions", ChatBody({{"logprobs", true}})))
    if (const Json& part = event["choices"][0]["logprobs"]; !part.is_null())
      count += part["content"].size();
  EXPECT_EQ(count, 4u);
}

TEST_F(ApiTest, GivesLogprobsOfACompletion) {
  Answer("h\u00e9y");
  const Json choice =
      Complete({{"logprobs", 2}, {"echo", true}, {"prompt", "\u00e9!"}})["choices"][0];
  EXPECT_EQ(choice["text"], "\u00e9!h\u00e9y");
  const Json& logprobs = choice["logprobs"];
  EXPECT_EQ(logprobs["text_offset"], Json::array({0, 0, 1, 2, 3, 3, 4, 5}));
  EXPECT_EQ(logprobs["token_logprobs"][0], nullptr);
  EXPECT_EQ(logprobs["top_logprobs"][0], nullptr);
  EXPECT_EQ(logprobs["token_logprobs"][1], -0.5);
  EXPECT_EQ(logprobs["tokens"][3], "h");
  EXPECT_EQ(logprobs["top_logprobs"][3], Object(R"({"h": -0.5, "i": -1.0})"));
}

TEST_F(ApiTest, GivesChoicesOfAChat) {
  const Json answer = Chat({{"n", 3}, {"seed", 7}});
  ASSERT_EQ(answer["choices"].size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["message"]["content"], "Hello!");
    EXPECT_EQ(model_.engine.requests()[i].sampling.seed, 7 + i);
  }
  // The prompt is one.
  const auto requests = model_.engine.requests();
  EXPECT_EQ(answer["usage"]["prompt_tokens"], requests[0].prompt.size());
  EXPECT_EQ(requests[2].prompt, requests[0].prompt);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 21);

  Chat({{"n", 2}});
  EXPECT_EQ(model_.engine.last_request().sampling.seed, std::nullopt);
  Chat({{"n", 2}, {"seed", -1}});
  EXPECT_EQ(model_.engine.last_request().sampling.seed, 0u);
}

TEST_F(ApiTest, StreamsChoicesByTheirIndex) {
  const auto events =
      Stream("/v1/chat/completions",
             ChatBody(Object(R"({"n": 3, "stream_options": {"include_usage": true}})")));
  std::map<int, std::string> texts, roles, ends;
  std::vector<int> order;
  for (const Json& event : events) {
    if (event["choices"].empty()) continue;
    const Json& choice = event["choices"][0];
    const int index = choice["index"];
    order.push_back(index);
    if (choice["delta"].contains("role")) roles[index] += choice["delta"]["role"];
    if (choice["delta"].contains("content")) texts[index] += choice["delta"]["content"];
    if (!choice["finish_reason"].is_null()) ends[index] += choice["finish_reason"];
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(roles[i], "assistant");
    EXPECT_EQ(texts[i], "Hello!");
    EXPECT_EQ(ends[i], "stop");
  }
  EXPECT_FALSE(std::ranges::is_sorted(order)) << "one after the other";
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], 21);
}

TEST_F(ApiTest, GivesChoicesOfEveryPrompt) {
  const Json answer = Complete({{"prompt", {"a", "bc"}},
                                {"n", 2},
                                {"best_of", 2},
                                {"echo", true},
                                {"seed", 5},
                                {"return_token_ids", true}});
  ASSERT_EQ(answer["choices"].size(), 4u);
  const char* texts[] = {"aHello!", "aHello!", "bcHello!", "bcHello!"};
  const uint64_t seeds[] = {5, 6, 5, 6};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["text"], texts[i]);
    EXPECT_EQ(answer["choices"][i]["prompt_token_ids"].size(), i < 2 ? 1u : 2u);
    EXPECT_EQ(model_.engine.requests()[i].sampling.seed, seeds[i]);
  }
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 3);
}

TEST_F(ApiTest, CancelsAllChoicesOfAClientThatLeft) {
  Answer(std::string(900, 'x'));
  model_.engine.SetStepDelay(milliseconds(20));
  TestClient client(service_.port());
  client.Post("/v1/chat/completions", ChatBody({{"stream", true}, {"n", 4}}).dump());
  ASSERT_TRUE(client.ReadUntil("\"index\":3"));
  client.Close();
  EXPECT_TRUE(Eventually([&] { return model_.engine.Stats().requests_cancelled == 4; }));
  EXPECT_TRUE(Eventually([&] {
    return Get("/metrics")
        .body.contains(
            "millpower_generations_finished_total{model=\"test\",reason=\"cancelled\"} 4");
  }));
}

TEST_F(ApiTest, PassesPenaltiesOn) {
  Chat({{"presence_penalty", -0.5},
        {"frequency_penalty", 1.5},
        {"repetition_penalty", 1.25},
        {"logit_bias", {{"0", -100}, {"262", 2.5}, {"7", 0}}},
        {"min_tokens", 3},
        {"max_tokens", 9}});
  const engine::SamplingParams sampling = model_.engine.last_request().sampling;
  EXPECT_EQ(sampling.presence_penalty, -0.5f);
  EXPECT_EQ(sampling.frequency_penalty, 1.5f);
  EXPECT_EQ(sampling.repetition_penalty, 1.25f);
  EXPECT_EQ(sampling.min_tokens, 3);
  ASSERT_EQ(sampling.logit_bias.size(), 2u);
  EXPECT_EQ(sampling.logit_bias[0].token, 0);
  EXPECT_EQ(sampling.logit_bias[0].bias, -100);
  EXPECT_EQ(sampling.logit_bias[1].token, 262);
  EXPECT_EQ(sampling.logit_bias[1].bias, 2.5f);
}

TEST_F(ApiTest, StopStringsWaitForMinTokens) {
  Answer("one two three two");
  EXPECT_EQ(Complete({{"stop", "two"}})["choices"][0]["text"], "one ");
  EXPECT_EQ(Complete({{"stop", "two"}, {"min_tokens", 8}})["choices"][0]["text"], "one two three ");
}

TEST_F(ApiTest, TiersArePriorities) {
  EXPECT_FALSE(Chat().contains("service_tier"));
  EXPECT_EQ(model_.engine.last_request().priority, engine::Priority::kStandard);
  EXPECT_EQ(Chat({{"service_tier", "auto"}})["service_tier"], "default");
  EXPECT_EQ(Chat({{"service_tier", "flex"}})["service_tier"], "flex");
  EXPECT_EQ(model_.engine.last_request().priority, engine::Priority::kBatch);
  EXPECT_EQ(
      Stream("/v1/completions", CompletionBody({{"service_tier", "flex"}}))[0]["service_tier"],
      "flex");
  ServedModel other = model_.served;
  other.priority_tier = true;
  models_.Add(other);
  EXPECT_EQ(Chat({{"service_tier", "priority"}})["service_tier"], "priority");
  EXPECT_EQ(model_.engine.last_request().priority, engine::Priority::kInteractive);
}

TEST_F(ApiTest, SaysThatACapStoppedIt) {
  model_.engine.SetBudget(3);
  Json choice = Chat()["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "Hel");
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["millpower"]["stopped_by"], "budget");
  EXPECT_THAT(choice["millpower"]["message"].get<std::string>(), HasSubstr("spending cap"));
  choice = Stream("/v1/chat/completions", ChatBody()).back()["choices"][0];
  EXPECT_EQ(choice["millpower"]["stopped_by"], "budget");
  choice = Complete()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["millpower"]["stopped_by"], "budget");
  choice = Stream("/v1/completions", CompletionBody()).back()["choices"][0];
  EXPECT_EQ(choice["millpower"]["stopped_by"], "budget");
  EXPECT_FALSE(Complete({{"max_tokens", 2}})["choices"][0].contains("millpower"));
}

TEST_F(ApiTest, TellsWhatWasCached) {
  model_.engine.SetCachedTokens(2);
  EXPECT_EQ(Chat({{"n", 2}})["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
}

TEST_F(ApiTest, GivesPromptLogprobs) {
  // Beside other logprobs, with a number of alternatives of its own.
  const Json choice =
      Complete({{"prompt", "ab"}, {"prompt_logprobs", 2}, {"logprobs", 1}})["choices"][0];
  EXPECT_EQ(choice["prompt_logprobs"],
            Object(R"([null, {"98": {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
                              "99": {"logprob": -1.0, "rank": 2, "decoded_token": "c"}}])"));
  EXPECT_EQ(choice["logprobs"]["tokens"].size(), 7u);  // of the output alone
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][0].size(), 1u);
  EXPECT_EQ(choice["text"], "Hello!");
  // Without alternatives nobody knows the rank.
  const Json chat = Chat({{"prompt_logprobs", 0}, {"n", 2}});
  EXPECT_EQ(chat["prompt_logprobs"][0], nullptr);
  EXPECT_EQ(chat["prompt_logprobs"].size(), model_.engine.last_request().prompt.size());
  EXPECT_EQ(chat["prompt_logprobs"].back().size(), 1u);
  EXPECT_EQ(chat["prompt_logprobs"].back().front()["rank"], nullptr);
  EXPECT_EQ(chat["choices"][0]["logprobs"], nullptr);
  EXPECT_TRUE(model_.engine.requests()[1].sampling.prompt_logprobs);
  EXPECT_FALSE(model_.engine.requests()[2].sampling.prompt_logprobs);  // scored once
}

TEST_F(ApiTest, ScoresAPromptWithoutGenerating) {
  const Json answer = Complete({{"logprobs", 0}, {"echo", true}, {"max_tokens", 0}});
  EXPECT_EQ(answer["choices"][0]["text"], "Hi");
  EXPECT_EQ(answer["choices"][0]["logprobs"]["tokens"], Json::array({"H", "i"}));
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 0);
}

TEST_F(ApiTest, ReturnsTokenIds) {
  Answer("ok");
  const Json choice = Complete({{"return_token_ids", true}})["choices"][0];
  EXPECT_EQ(choice["prompt_token_ids"], Json::array({72, 105}));
  EXPECT_EQ(choice["token_ids"], Json::array({111, 107, kImEnd}));
  const Json chat = Chat({{"return_token_ids", true}});
  EXPECT_EQ(chat["choices"][0]["token_ids"], Json::array({111, 107, kImEnd}));
  EXPECT_EQ(chat["prompt_token_ids"][0], kImStart);
  Json streamed = Json::array();
  for (const Json& event : Stream("/v1/completions", CompletionBody({{"return_token_ids", true}})))
    for (const Json& id : event["choices"][0]["token_ids"]) streamed.push_back(id);
  EXPECT_EQ(streamed, Json::array({111, 107, kImEnd}));
}

TEST_F(ApiTest, KeepsControlTokensOfUsersAsText) {
  Chat({{"messages", Object(R"([{"role": "user", "content": "<|im_end|>"}])")}});
  const auto prompt = model_.engine.last_request().prompt;
  EXPECT_EQ(std::ranges::count(prompt, kImEnd), 1);  // ours
}

TEST_F(ApiTest, TokenizesAndBack) {
  const Json tokens = Whole("/tokenize", {{"model", "test"}, {"prompt", "Hi\u00e9"}});
  EXPECT_EQ(tokens,
            Object(R"({"count": 4, "max_model_len": 1000, "tokens": [72, 105, 195, 169]})"));
  EXPECT_EQ(Whole("/detokenize", {{"model", "test"}, {"tokens", tokens["tokens"]}}),
            Object("{\"prompt\": \"Hi\u00e9\"}"));
  const Json chat = Whole("/tokenize", ChatBody());
  Chat();
  EXPECT_EQ(chat["count"], model_.engine.last_request().prompt.size());
  EXPECT_LT(Whole("/tokenize", ChatBody({{"add_generation_prompt", false}}))["count"].get<int>(),
            chat["count"].get<int>());
}

TEST_F(ApiTest, ListsModels) {
  ServedModel slash = model_.served;
  slash.name = "Org/Name";
  models_.Add(slash);
  const Json list = Object(Get("/v1/models").body);
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["data"][0]["id"], "test");
  EXPECT_EQ(list["data"][0]["created"], 1'700'000'000);
  EXPECT_EQ(Object(Get("/v1/models/Org/Name").body)["id"], "Org/Name");
  EXPECT_EQ(Object(Get("/v1/models/Org%2FName").body)["id"], "Org/Name");
  EXPECT_EQ(Get("/v1/models/none").status, 404);
  EXPECT_EQ(Get("/v1/models/%").status, 404);
}

struct Bad {
  const char* path;
  Json body;
  int status;
  const char* param;
};

TEST_F(ApiTest, RefusesWhatItCannotHonour) {
  const char* chat = "/v1/chat/completions";
  const char* completions = "/v1/completions";
  const auto message = [](const char* text) { return ChatBody({{"messages", Object(text)}}); };
  const Bad cases[] = {
      {chat, Object(R"({"messages": []})"), 400, "model"},
      {chat, ChatBody({{"model", 3}}), 400, "model"},
      {chat, ChatBody({{"model", "other"}}), 404, "model"},
      {chat, Object(R"({"model": "test"})"), 400, "messages"},
      {chat, message("[]"), 400, "messages"},
      {chat, message("[3]"), 400, "messages[0]"},
      {chat, message(R"([{"role": "king", "content": "x"}])"), 400, "messages[0].role"},
      {chat, message(R"([{"role": "user", "content": 3}])"), 400, "messages[0].content"},
      {chat, ChatBody({{"n", 0}}), 400, "n"},
      {chat, ChatBody({{"n", 17}}), 400, "n"},
      {chat, ChatBody({{"n", 2}, {"best_of", 3}}), 400, "best_of"},
      {chat, ChatBody({{"temperature", 2.5}}), 400, "temperature"},
      {chat, ChatBody({{"temperature", "hot"}}), 400, "temperature"},
      {chat, ChatBody({{"top_p", 0}}), 400, "top_p"},
      {chat, ChatBody({{"max_tokens", 0}}), 400, "max_tokens"},
      {chat, ChatBody({{"max_tokens", 1.5}}), 400, "max_tokens"},
      {chat, ChatBody({{"max_tokens", 1e300}}), 400, "max_tokens"},
      {chat, ChatBody({{"presence_penalty", 2.1}}), 400, "presence_penalty"},
      {chat, ChatBody({{"frequency_penalty", -3}}), 400, "frequency_penalty"},
      {chat, ChatBody({{"repetition_penalty", 0}}), 400, "repetition_penalty"},
      {chat, ChatBody({{"repetition_penalty", 2.5}}), 400, "repetition_penalty"},
      {chat, ChatBody({{"logit_bias", Json::array({1})}}), 400, "logit_bias"},
      {chat, ChatBody({{"logit_bias", {{"263", 1}}}}), 400, "logit_bias"},
      {chat, ChatBody({{"logit_bias", {{"-1", 1}}}}), 400, "logit_bias"},
      {chat, ChatBody({{"logit_bias", {{"05", 1}}}}), 400, "logit_bias"},
      {chat, ChatBody({{"logit_bias", {{"5 ", 1}}}}), 400, "logit_bias"},
      {chat, ChatBody({{"logit_bias", {{"", 1}}}}), 400, "logit_bias"},
      {chat, ChatBody({{"logit_bias", {{"5", 101}}}}), 400, "logit_bias.5"},
      {chat, ChatBody({{"logit_bias", {{"5", "1"}}}}), 400, "logit_bias.5"},
      {chat, ChatBody({{"logit_bias", {{"5", nullptr}}}}), 400, "logit_bias.5"},
      {chat, ChatBody({{"min_tokens", -1}}), 400, "min_tokens"},
      {chat, ChatBody({{"min_tokens", 5}, {"max_tokens", 4}}), 400, "min_tokens"},
      {chat, ChatBody({{"service_tier", "gold"}}), 400, "service_tier"},
      {chat, ChatBody({{"service_tier", "priority"}}), 400, "service_tier"},
      {chat, ChatBody({{"service_tier", 3}}), 400, "service_tier"},
      {chat, ChatBody({{"priority", 1}}), 400, "priority"},
      {chat, ChatBody({{"prompt_logprobs", 21}}), 400, "prompt_logprobs"},
      {chat, ChatBody({{"prompt_logprobs", -1}}), 400, "prompt_logprobs"},
      {chat, ChatBody({{"prompt_logprobs", 1}, {"stream", true}}), 400, "prompt_logprobs"},
      {chat, ChatBody({{"response_format", {{"type", "json_object"}}}}), 400, "response_format"},
      {chat, ChatBody({{"tool_choice", "required"}}), 400, "tool_choice"},
      {chat, ChatBody({{"tools", Json::array({3})}}), 400, "tools[0]"},
      {chat, ChatBody({{"parallel_tool_calls", false}}), 400, "parallel_tool_calls"},
      {chat, ChatBody({{"top_logprobs", 2}}), 400, "top_logprobs"},
      {chat, ChatBody({{"logprobs", true}, {"top_logprobs", 21}}), 400, "top_logprobs"},
      {chat, ChatBody({{"stop", Json::array({""})}}), 400, "stop"},
      {chat, ChatBody({{"stop", Json(std::vector<std::string>(17, "x"))}}), 400, "stop"},
      {chat, ChatBody({{"stream", "yes"}}), 400, "stream"},
      {chat, ChatBody(Object(R"({"stream_options": {"include_usage": true}})")), 400,
       "stream_options"},
      {chat, ChatBody(Object(R"({"stream": true, "stream_options": {"include_usage": 1}})")), 400,
       "stream_options.include_usage"},
      {chat, ChatBody({{"stop_token_ids", {263}}}), 400, "stop_token_ids[0]"},
      {chat, ChatBody(Object(R"({"chat_template_kwargs": {"x": 1}})")), 400,
       "chat_template_kwargs.x"},
      {completions, CompletionBody({{"prompt", ""}}), 400, "prompt"},
      {completions, CompletionBody({{"prompt", Json::array()}}), 400, "prompt"},
      {completions, CompletionBody({{"prompt", {1, 2, -3}}}), 400, "prompt[2]"},
      {completions, CompletionBody({{"suffix", "x"}}), 400, "suffix"},
      {completions, CompletionBody({{"prompt", Json(std::vector<std::string>(17, "x"))}, {"n", 8}}),
       400, "n"},
      {completions, CompletionBody({{"max_tokens", 0}}), 400, "max_tokens"},
      {completions, CompletionBody({{"prompt", std::string(1000, 'x')}}), 400, "prompt"},
      {"/tokenize", Object(R"({"model": "test"})"), 400, "prompt"},
      {"/detokenize", Object(R"({"model": "test", "tokens": ["x"]})"), 400, "tokens[0]"},
  };
  for (const Bad& item : cases) {
    const TestResponse response = Post(item.path, item.body.dump());
    EXPECT_EQ(response.status, item.status) << item.body << response.body;
    const Json error = Object(response.body)["error"];
    EXPECT_EQ(error["type"], "invalid_request_error");
    EXPECT_EQ(error["param"], item.param) << response.body;
  }
  EXPECT_EQ(model_.engine.Stats().steps, 0);
}

TEST_F(ApiTest, SaysHowFarAPromptIsTooLong) {
  const TestResponse response =
      Post("/v1/completions", CompletionBody({{"prompt", std::string(1234, 'x')}}).dump());
  const Json error = Object(response.body)["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("1234"));
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("1000"));
}

TEST_F(ApiTest, AcceptsWhatIsHarmless) {
  const Json more = Object(R"({"n": 1, "user": "u", "metadata": {"a": "b"}, "store": true,
      "presence_penalty": 0.0, "logit_bias": {}, "response_format": {"type": "text"}, "seed": null,
      "tool_choice": "auto", "parallel_tool_calls": true, "never_heard_of": [1], "service_tier": "auto"})");
  EXPECT_EQ(Chat(more)["choices"][0]["finish_reason"], "stop");
}

TEST_F(ApiTest, RefusesBodiesThatAreNotJson) {
  std::string many_keys = "{";
  for (int i = 0; i < 2000; ++i) many_keys += "\"" + std::to_string(i) + "\":1,";
  for (const std::string& body : {std::string(""), std::string("{"), std::string("[]"),
                                  std::string("nul"), std::string("{\"model\": \"\xff\"}"),
                                  std::string(5000, '['), many_keys + "\"model\":\"test\"}"})
    EXPECT_EQ(Post("/v1/completions", body).status, 400) << body.substr(0, 20);
  TestClient client(service_.port());
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n"
      "Content-Length: 2\r\n\r\n{}");
  EXPECT_EQ(client.Read()->status, 415);
}

TEST_F(ApiTest, KnowsItsPathsAndMethods) {
  EXPECT_EQ(Get("/nowhere").status, 404);
  EXPECT_EQ(Object(Get("/nowhere").body)["error"]["code"], "not_found");
  const TestResponse wrong = Get("/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST, OPTIONS");
  TestClient client(service_.port());
  client.Send("OPTIONS /v1/models HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(client.Read()->status, 204);
  client.Send("HEAD /health/live HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(client.Read(true)->status, 200);
  EXPECT_EQ(Object(Get("/?x=1").body)["name"], "millpower");
}

TEST_F(ApiTest, DescribesEveryPathItHas) {
  const Json api = Object(Get("/openapi.json").body);
  EXPECT_EQ(api["openapi"], "3.1.0");
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"})
    EXPECT_TRUE(api["paths"][path].contains("post")) << path;
  for (const char* path : {"/", "/v1/models", "/v1/models/{id}", "/health/live", "/health/ready",
                           "/metrics", "/openapi.json"})
    EXPECT_TRUE(api["paths"][path].contains("get")) << path;
}

TEST_F(ApiTest, IsReadyWhileThereIsAModel) {
  EXPECT_EQ(Get("/health/ready").status, 200);
  models_.Remove("test");
  EXPECT_EQ(Get("/health/ready").status, 503);
  EXPECT_EQ(Get("/health/live").status, 200);
}

TEST_F(ApiTest, AsksToWaitForAModelThatLoads) {
  models_.Announce("later", false);
  TestResponse response = Post("/v1/completions", CompletionBody({{"model", "later"}}).dump());
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.headers.at("retry-after"), "2");
  EXPECT_THAT(response.body, HasSubstr("is still loading"));
  EXPECT_EQ(Get("/v1/models/later").status, 503);
  EXPECT_EQ(Object(Get("/v1/models").body)["data"].size(), 1u);
  EXPECT_EQ(Get("/health/ready").status, 200);
  models_.Announce("later", true);
  EXPECT_EQ(Get("/health/ready").status, 503);
  ServedModel other = model_.served;
  other.name = "later";
  models_.Add(other);
  EXPECT_EQ(Get("/health/ready").status, 200);
  EXPECT_EQ(Post("/v1/completions", CompletionBody({{"model", "later"}}).dump()).status, 200);
}

TEST_F(ApiTest, CountsWhatItDoes) {
  Chat();
  Stream("/v1/chat/completions", ChatBody());
  Get("/nowhere");
  Post("/v1/completions", CompletionBody({{"temperature", 3}}).dump());
  Post("/v1/completions", CompletionBody({{"model", "its own words"}}).dump());
  for (const char* line :
       {"millpower_http_requests_total{route=\"chat\",status=\"200\"} 2",
        "millpower_http_requests_total{route=\"other\",status=\"404\"} 1",
        "millpower_generated_tokens_total{model=\"test\"} 14",
        "millpower_time_to_first_token_seconds_count{model=\"test\"} 2",
        "millpower_inter_token_seconds_count{model=\"test\"} 12",
        "millpower_generation_output_tokens_sum{model=\"test\"} 14",
        "millpower_generations_finished_total{model=\"test\",reason=\"stop\"} 2",
        "millpower_generations_finished_total{model=\"test\",reason=\"error\"} 0",
        "millpower_requests_refused_total{model=\"test\",reason=\"invalid\"} 1",
        "millpower_requests_refused_total{model=\"\",reason=\"unknown_model\"} 1",
        "millpower_build_info{version="})
    // Eventually: an answer is counted once it has been sent.
    EXPECT_TRUE(Eventually([&] { return Get("/metrics").body.contains(line); })) << line;
}

TEST_F(ApiTest, SaysTooManyWhenTheQueueIsFull) {
  Answer(std::string(900, 'x'));
  model_.engine.SetStepDelay(milliseconds(50));
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<TestClient>(service_.port()));
    clients.back()->Post("/v1/chat/completions", ChatBody().dump());
  }
  ASSERT_TRUE(Eventually([&] { return model_.engine.Stats().requests_running == 8; }));
  const TestResponse response = Post("/v1/chat/completions", ChatBody().dump());
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.at("retry-after"), "1");
  // As long as the last one waited that got out of the queue, but not for ever.
  for (const auto& [waited_ns, seconds] :
       {std::pair(int64_t{6'200'000'000}, "7"), {int64_t{600'000'000'000}, "60"}}) {
    model_.metrics.OnQueued(waited_ns);
    EXPECT_EQ(Post("/v1/chat/completions", ChatBody().dump()).headers.at("retry-after"), seconds);
  }
  // Eight clients leave, and eight generations end.
  clients.clear();
  EXPECT_TRUE(Eventually([&] { return model_.engine.Stats().requests_cancelled == 8; }));
}

TEST_F(ApiTest, StopsWithinAStepOfADisconnect) {
  Answer(std::string(900, 'x'));
  model_.engine.SetStepDelay(milliseconds(5));
  TestClient client(service_.port());
  client.Post("/v1/chat/completions", ChatBody({{"stream", true}}).dump());
  ASSERT_TRUE(client.ReadUntil("\"x\""));
  model_.engine.SetStepDelay(FakeEngine::kForEver);
  client.Close();
  ASSERT_TRUE(Eventually([&] { return model_.engine.cancel_calls() == 1; }));
  const int64_t before = model_.engine.Stats().generated_tokens;
  model_.engine.SetStepDelay(milliseconds(0));
  ASSERT_TRUE(Eventually([&] { return model_.engine.Stats().requests_cancelled == 1; }));
  EXPECT_LE(model_.engine.Stats().generated_tokens, before + 1);  // one may have been under way
  EXPECT_TRUE(Eventually([&] {
    return Get("/metrics")
        .body.contains("millpower_http_requests_total{route=\"chat\",status=\"499\"} 1");
  }));
}

TEST_F(ApiTest, TurnsDeviceFaultsIntoErrors) {
  model_.engine.FailNext();
  EXPECT_EQ(Post("/v1/chat/completions", ChatBody().dump()).status, 500);

  Answer(std::string(900, 'x'));
  model_.engine.SetStepDelay(milliseconds(5));
  TestClient client(service_.port());
  client.Post("/v1/chat/completions", ChatBody({{"stream", true}}).dump());
  ASSERT_TRUE(client.ReadUntil("\"x\""));
  model_.engine.SetStepDelay(FakeEngine::kForEver);
  model_.engine.FailNext();
  model_.engine.SetStepDelay(milliseconds(0));
  EXPECT_TRUE(client.ReadUntil("the device failed"));
  EXPECT_TRUE(client.ReadUntil("data: [DONE]"));
}

TEST_F(ApiTest, DrainFinishesStreamsAndRefusesNewWork) {
  Answer(std::string(20, 'x'));
  model_.engine.SetStepDelay(milliseconds(5));
  TestClient client(service_.port());
  client.Post("/v1/chat/completions", ChatBody({{"stream", true}}).dump());
  ASSERT_TRUE(client.ReadUntil("\"x\""));
  service_.Drain(milliseconds(5000));
  EXPECT_TRUE(client.ReadUntil("data: [DONE]"));
  EXPECT_EQ(model_.engine.Stats().requests_cancelled, 0);
}

TEST_F(ApiTest, DrainCancelsWhatTakesTooLong) {
  Answer(std::string(900, 'x'));
  model_.engine.SetStepDelay(milliseconds(5));
  TestClient client(service_.port());
  client.Post("/v1/chat/completions", ChatBody().dump());
  ASSERT_TRUE(Eventually([&] { return model_.engine.Stats().requests_running == 1; }));
  service_.Drain(milliseconds(20));
  EXPECT_TRUE(Eventually([&] { return model_.engine.Stats().requests_cancelled == 1; }));
}

}  // namespace
}  // namespace millpower::serve
