// Any body must be refused, or become requests that keep the engine's contract. The first byte
// chooses the endpoint.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "serve/fields.h"
#include "serve/requests.h"
#include "serve/test_model.h"

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
  CHECK(static_cast<int64_t>(request.prompt.size()) + sampling.max_tokens <= model.max_model_len);
}

Result<void> Make(const GenerationRequest& request, Result<std::vector<int32_t>> prompt,
                  const ServedModel& model) {
  TRY(prompt);
  TRY_ASSIGN(const engine::Request made,
             MakeEngineRequest(request, "id", std::move(*prompt), 16, 0, model));
  CheckContract(made, model);
  return {};
}

Result<void> Read(uint8_t endpoint, std::string_view text, const ServedModel& model) {
  TRY_ASSIGN(const Json body, ParseBody(text));
  (void)ReadModelName(body);
  if (endpoint % 4 == 0) {
    TRY_ASSIGN(const ChatRequest request, ReadChatRequest(body, model));
    return Make(request, PromptIds(request, model), model);
  }
  if (endpoint % 4 == 1) {
    TRY_ASSIGN(const CompletionRequest request, ReadCompletionRequest(body, model));
    for (const Prompt& prompt : request.prompts) {
      (void)PromptText(prompt, model);
      TRY(Make(request, PromptIds(prompt, model), model));
    }
    return {};
  }
  if (endpoint % 4 == 2) {
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
  if (!read) CHECK(!read.error().message.empty());
  return 0;
}
