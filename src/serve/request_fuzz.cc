// Any body must be refused, or become requests that keep the engine's contract. The first byte
// chooses the endpoint.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>

#include "base/check.h"
#include "serve/admin.h"
#include "serve/cors.h"
#include "serve/fields.h"
#include "serve/paths.h"
#include "serve/reply.h"
#include "serve/requests.h"
#include "serve/test_model.h"
#include "serve/transcriber.h"

namespace millpower::serve {
namespace {

void CheckContract(const engine::Request& request, const ServedModel& model) {
  const engine::SamplingParams& sampling = request.sampling;
  CHECK(!request.prompt.empty());
  for (const int32_t id : request.prompt) CHECK(id >= 0 && id < kTestVocabSize) << id;
  CHECK(sampling.temperature >= 0 && sampling.temperature <= 2) << sampling.temperature;
  CHECK(sampling.top_k >= 0) << sampling.top_k;
  CHECK(sampling.top_p > 0 && sampling.top_p <= 1) << sampling.top_p;
  CHECK(sampling.min_p >= 0 && sampling.min_p <= 1) << sampling.min_p;
  CHECK(sampling.logprobs >= -1 && sampling.logprobs <= engine::kMaxTopLogprobs);
  CHECK(sampling.max_tokens >= (sampling.prompt_logprobs ? 0 : 1)) << sampling.max_tokens;
  CHECK(sampling.min_tokens >= 0 && sampling.min_tokens <= sampling.max_tokens);
  CHECK(std::abs(sampling.presence_penalty) <= 2) << sampling.presence_penalty;
  CHECK(std::abs(sampling.frequency_penalty) <= 2) << sampling.frequency_penalty;
  CHECK(sampling.repetition_penalty > 0 && sampling.repetition_penalty <= 2);
  std::set<int32_t> biased;
  for (const engine::TokenBias& bias : sampling.logit_bias) {
    CHECK(bias.token >= 0 && bias.token < kTestVocabSize) << bias.token;
    CHECK(std::abs(bias.bias) <= 100) << bias.bias;
    CHECK(biased.insert(bias.token).second) << bias.token;
  }
  for (const int32_t id : sampling.stop_token_ids) CHECK(id >= 0 && id < kTestVocabSize) << id;
  CHECK(request.priority != engine::Priority::kInteractive) << "was not allowed";
  CHECK(static_cast<int64_t>(request.prompt.size()) + sampling.max_tokens <= model.max_model_len);
}

// What the engine may answer becomes an answer, whatever was asked for.
Result<void> Transcribe(const GenerationRequest& request, const engine::Request& made,
                        const ServedModel& model) {
  Transcriber transcriber(model, request, std::nullopt);
  engine::Delta delta;
  if (made.sampling.prompt_logprobs)
    for (const int32_t id : made.prompt) delta.prompt.push_back({.token = id, .top = {}});
  for (int32_t i = 0; i < std::min(made.sampling.max_tokens, 8); ++i)
    delta.tokens.push_back({.token = i * 31 % kTestVocabSize, .logprob = -1, .top = {{i, -1}}});
  delta.finish = engine::FinishReason::kBudget;
  Piece piece = transcriber.Push(delta);
  CHECK(piece.finish_reason != nullptr);
  ReplyHead head{.id = "id",
                 .model = model.name,
                 .tokenizer = model.tokenizer,
                 .service_tier = request.service_tier,
                 .logprobs = request.logprobs >= 0,
                 .prompt_logprobs = request.prompt_logprobs >= 0};
  const auto reply = MakeCompletionReply(std::move(head), 1);
  reply->Add(0, std::move(piece));
  CHECK(!DumpJson(reply->Whole({})).empty());
  return {};
}

Result<void> Make(const GenerationRequest& request, Result<std::vector<int32_t>> prompt,
                  const ServedModel& model) {
  TRY(prompt);
  CHECK(request.choice_count >= 1 && request.choice_count <= kChoicesMax);
  TRY_ASSIGN(const engine::Request made, MakeEngineRequest(request, "id", std::move(*prompt), 16,
                                                           request.choice_count - 1, model));
  CheckContract(made, model);
  return Transcribe(request, made, model);
}

Result<void> Read(uint8_t endpoint, std::string_view text, const ServedModel& model) {
  TRY_ASSIGN(const Json body, ParseBody(text));
  (void)ReadModelName(body);
  if (endpoint % 5 == 4) {
    TRY_ASSIGN(const ModelSpec spec, ReadModelSpec(body, "/nowhere"));
    CHECK(false) << "there is no such root, but " << spec.path;
  }
  if (endpoint % 5 == 0) {
    TRY_ASSIGN(const ChatRequest request, ReadChatRequest(body, model));
    return Make(request, PromptIds(request, model), model);
  }
  if (endpoint % 5 == 1) {
    TRY_ASSIGN(const CompletionRequest request, ReadCompletionRequest(body, model));
    for (const Prompt& prompt : request.prompts) {
      (void)PromptText(prompt, model);
      TRY(Make(request, PromptIds(prompt, model), model));
    }
    return {};
  }
  if (endpoint % 5 == 2) {
    TRY_ASSIGN(const TokenizeRequest request, ReadTokenizeRequest(body, model));
    TRY(std::visit([&](const auto& one) { return PromptIds(one, model); }, request.text));
    return {};
  }
  TRY_ASSIGN(const std::vector<int32_t> ids, ReadDetokenizeRequest(body, model));
  (void)model.tokenizer->Decode(ids);
  return {};
}

}  // namespace
}  // namespace millpower::serve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millpower::serve;
  static TestModel* const model =
      new TestModel([](const millpower::engine::Request&) { return ""; });
  if (size == 0) return 0;
  const auto read =
      Read(data[0], {reinterpret_cast<const char*>(data + 1), size - 1}, model->served);
  CHECK(read || !read.error().message.empty());
  // What headers and paths may hold.
  const std::string text(reinterpret_cast<const char*>(data), size);
  CHECK(CorsHeaders({"*"}, "https://a", &text).find("\n\r") == std::string::npos);
  (void)PercentDecoded(text);
  (void)CheckOrigin(text);
  return 0;
}
