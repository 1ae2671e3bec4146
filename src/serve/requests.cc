#include "serve/requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "serve/fields.h"

namespace millpower::serve {
namespace {

constexpr int32_t kInt32Max = std::numeric_limits<int32_t>::max();

// Fields that would change the answer, and the one value that does not.
constexpr struct {
  const char* name;
  const char* neutral;
} kUnsupported[] = {
    {"allowed_token_ids", "null"},
    {"audio", "null"},
    {"bad_words", "[]"},
    {"chat_template", "null"},
    {"continue_final_message", "false"},
    {"documents", "[]"},
    {"function_call", "\"none\""},
    {"functions", "[]"},
    {"guided_choice", "null"},
    {"guided_grammar", "null"},
    {"guided_json", "null"},
    {"guided_regex", "null"},
    {"include_stop_str_in_output", "false"},
    {"length_penalty", "1"},
    {"modalities", "[\"text\"]"},
    {"parallel_tool_calls", "true"},
    {"prediction", "null"},
    {"priority", "0"},
    {"reasoning_effort", "null"},
    {"response_format", "{\"type\": \"text\"}"},
    {"structured_outputs", "null"},
    {"suffix", "\"\""},
    {"truncate_prompt_tokens", "null"},
    {"use_beam_search", "false"},
    {"verbosity", "null"},
    {"web_search_options", "null"},
};

void RefuseUnsupported(FieldReader& fields) {
  for (const auto& [name, neutral] : kUnsupported) {
    const Json* field = fields.Find(name);
    if (field == nullptr || *field == Json::parse(neutral)) continue;
    fields.Refuse(name,
                  neutral == std::string_view("null")
                      ? "is not supported"
                      : fmt::format("is not supported with any value but {}", neutral),
                  ErrorCode::kUnsupported);
  }
}

void ReadStop(FieldReader& fields, std::vector<std::string>& stop) {
  const Json* field = fields.Find("stop");
  if (field == nullptr) return;
  const Json list = field->is_array() ? *field : Json::array({*field});
  if (list.size() > kStopStringsMax)
    fields.Refuse("stop", fmt::format("has more than {} strings", kStopStringsMax));
  for (const Json& item : list) {
    if (!item.is_string()) return fields.Refuse("stop", "must be a string or an array of strings");
    if (item.get_ref<const std::string&>().empty())
      return fields.Refuse("stop", "must not hold an empty string");
    stop.push_back(item);
  }
}

bool IsTokenId(const Json& value, int32_t vocab_size) {
  return value.is_number_unsigned() && value.get<uint64_t>() < static_cast<uint64_t>(vocab_size);
}

// `ids` of an array. False, with the fault kept in `fields`, if it is not one of token ids.
bool ReadIds(FieldReader& fields, const std::string& name, const Json& array, int32_t vocab_size,
             std::vector<int32_t>& ids) {
  if (!array.is_array()) {
    fields.Refuse(name, "must be an array of token ids");
    return false;
  }
  ids.reserve(array.size());
  for (const Json& item : array) {
    if (!IsTokenId(item, vocab_size)) {
      fields.Refuse(fmt::format("{}[{}]", name, ids.size()),
                    fmt::format("must be a token id in 0..{}", vocab_size - 1));
      return false;
    }
    ids.push_back(item.get<int32_t>());
  }
  return true;
}

// OpenAI's form: {"50256": -100}. Values are added to the logits as they are.
void ReadLogitBias(FieldReader& fields, int32_t vocab_size,
                   std::vector<engine::TokenBias>& biases) {
  const Json* field = fields.Find("logit_bias");
  if (field == nullptr) return;
  if (!field->is_object()) return fields.Refuse("logit_bias", "must be an object");
  FieldReader inner(*field, "logit_bias.");
  for (const auto& [key, value] : field->items()) {
    engine::TokenBias bias;
    const char* end = key.data() + key.size();
    const auto [stop, error] = std::from_chars(key.data(), end, bias.token);
    // One spelling for each id, so that none comes twice.
    if (error != std::errc() || stop != end || bias.token < 0 || bias.token >= vocab_size ||
        std::to_string(bias.token) != key)
      return fields.Refuse("logit_bias",
                           fmt::format("must have token ids in 0..{} as keys", vocab_size - 1));
    if (value.is_null()) return fields.Refuse("logit_bias." + key, "must be a number");
    inner.Read(key.c_str(), bias.bias, -100.0f, 100.0f);
    if (bias.bias != 0) biases.push_back(bias);
  }
  fields.Adopt(inner);
}

// OpenAI's tiers are our priority classes; what is granted is said in the answer.
void ReadServiceTier(FieldReader& fields, const ServedModel& model, GenerationRequest& request) {
  constexpr struct {
    const char* name;
    const char* granted;
    engine::Priority priority;
  } kTiers[] = {{"auto", "default", engine::Priority::kStandard},
                {"default", "default", engine::Priority::kStandard},
                {"flex", "flex", engine::Priority::kBatch},
                {"priority", "priority", engine::Priority::kInteractive}};
  if (!fields.Find("service_tier")) return;
  std::string name;
  fields.Read("service_tier", name);
  for (const auto& tier : kTiers) {
    if (name != tier.name) continue;
    if (tier.priority == engine::Priority::kInteractive && !model.priority_tier) break;
    request.service_tier = tier.granted;
    request.priority = tier.priority;
    return;
  }
  fields.Refuse("service_tier",
                model.priority_tier
                    ? R"(is not supported with any value but "auto", "default", "flex", "priority")"
                    : R"(is not supported here with any value but "auto", "default" and "flex")",
                ErrorCode::kUnsupported);
}

void ReadPenalties(FieldReader& fields, engine::SamplingParams& sampling) {
  fields.Read("presence_penalty", sampling.presence_penalty, -2.0f, 2.0f);
  fields.Read("frequency_penalty", sampling.frequency_penalty, -2.0f, 2.0f);
  fields.Read("repetition_penalty", sampling.repetition_penalty, 0.0f, 2.0f);
  if (sampling.repetition_penalty == 0) fields.Refuse("repetition_penalty", "must be above 0");
}

void ReadChoiceCount(FieldReader& fields, GenerationRequest& request) {
  fields.Read("n", request.choice_count, 1, kChoicesMax);
  int best_of = request.choice_count;
  fields.Read("best_of", best_of, 1, kChoicesMax);
  if (best_of != request.choice_count)
    fields.Refuse("best_of", "is not supported with any value but that of n",
                  ErrorCode::kUnsupported);
}

// vLLM's field. Call when `logprobs` has been read.
void ReadPromptLogprobs(FieldReader& fields, GenerationRequest& request) {
  if (fields.Find("prompt_logprobs")) {
    fields.Read("prompt_logprobs", request.prompt_logprobs, 0, int{engine::kMaxTopLogprobs});
    if (request.stream) fields.Refuse("prompt_logprobs", "is not allowed with stream");
  }
  engine::SamplingParams& sampling = request.sampling;
  sampling.logprobs = std::max(request.logprobs, request.prompt_logprobs);
  sampling.prompt_logprobs =
      request.prompt_logprobs >= 0 || (request.echo && request.logprobs >= 0);
}

void ReadGeneration(FieldReader& fields, const ServedModel& model, GenerationRequest& request) {
  engine::SamplingParams& sampling = request.sampling;
  sampling.temperature = model.defaults.temperature;
  sampling.top_k = model.defaults.top_k;
  sampling.top_p = model.defaults.top_p;
  sampling.min_p = model.defaults.min_p;

  RefuseUnsupported(fields);
  fields.Read("temperature", sampling.temperature, 0.0f, 2.0f);
  fields.Read("top_k", sampling.top_k, -1, kInt32Max);
  if (sampling.top_k < 0) sampling.top_k = 0;  // vLLM's word for "all"
  fields.Read("top_p", sampling.top_p, 0.0f, 1.0f);
  if (sampling.top_p == 0) fields.Refuse("top_p", "must be above 0");
  fields.Read("min_p", sampling.min_p, 0.0f, 1.0f);
  if (fields.Find("seed")) {
    int64_t seed = 0;
    fields.Read("seed", seed, std::numeric_limits<int64_t>::min(),
                std::numeric_limits<int64_t>::max());
    sampling.seed = static_cast<uint64_t>(seed);
  }
  ReadPenalties(fields, sampling);
  ReadLogitBias(fields, model.engine->limits().vocab_size, sampling.logit_bias);
  fields.Read("min_tokens", sampling.min_tokens, 0, kInt32Max);
  ReadChoiceCount(fields, request);
  ReadServiceTier(fields, model, request);
  fields.Read("ignore_eos", sampling.ignore_eos);
  if (const Json* ids = fields.Find("stop_token_ids"))
    ReadIds(fields, "stop_token_ids", *ids, model.engine->limits().vocab_size,
            sampling.stop_token_ids);
  ReadStop(fields, request.stop);
  fields.Read("skip_special_tokens", request.skip_special_tokens);
  fields.Read("return_token_ids", request.return_token_ids);
  fields.Read("stream", request.stream);
  if (const Json* options = fields.Find("stream_options")) {
    if (!options->is_object()) return fields.Refuse("stream_options", "must be an object");
    if (!request.stream) return fields.Refuse("stream_options", "is only allowed with stream");
    FieldReader inner(*options, "stream_options.");
    inner.Read("include_usage", request.include_usage);
    fields.Adopt(inner);
  }
}

void ReadMaxTokens(FieldReader& fields, const char* name, int32_t low, GenerationRequest& request) {
  if (!fields.Find(name)) return;
  int32_t count = 0;
  fields.Read(name, count, low, kInt32Max);
  request.max_tokens = count;
}

void ReadTools(FieldReader& fields, ChatRequest& request) {
  const Json* choice = fields.Find("tool_choice");
  const bool none = choice != nullptr && *choice == "none";
  if (choice != nullptr && !none && *choice != "auto")
    fields.Refuse("tool_choice", "is not supported with any value but \"auto\" and \"none\"",
                  ErrorCode::kUnsupported);
  const Json* tools = fields.Find("tools");
  if (tools == nullptr) return;
  if (!tools->is_array()) return fields.Refuse("tools", "must be an array");
  for (size_t i = 0; i < tools->size(); ++i) {
    const std::string name = fmt::format("tools[{}]", i);
    const Json& tool = (*tools)[i];
    if (!tool.is_object()) return fields.Refuse(name, "must be an object");
    if (tool.value("type", Json()) != "function")
      return fields.Refuse(name + ".type", "must be \"function\"");
    const Json function = tool.value("function", Json());
    if (!function.is_object()) return fields.Refuse(name + ".function", "must be an object");
    const Json function_name = function.value("name", Json());
    if (!function_name.is_string() || function_name.get_ref<const std::string&>().empty())
      return fields.Refuse(name + ".function.name", "must be a string that is not empty");
  }
  if (!none && !tools->empty()) request.tools = *tools;
}

// What the prompt of a chat depends on.
void ReadConversation(FieldReader& fields, ChatRequest& request) {
  const Json* messages = fields.Find("messages");
  if (messages == nullptr) return fields.Refuse("messages", "is required");
  if (!messages->is_array() || messages->empty())
    return fields.Refuse("messages", "must be an array that is not empty");
  request.messages = *messages;
  ReadTools(fields, request);
  if (const Json* kwargs = fields.Find("chat_template_kwargs")) {
    if (!kwargs->is_object()) return fields.Refuse("chat_template_kwargs", "must be an object");
    for (const auto& [name, value] : kwargs->items()) {
      if (name != "enable_thinking")
        return fields.Refuse("chat_template_kwargs." + name, "is not supported",
                             ErrorCode::kUnsupported);
      if (value.is_null()) continue;
      if (!value.is_boolean())
        return fields.Refuse("chat_template_kwargs.enable_thinking", "must be a boolean");
      request.options.enable_thinking = value.get<bool>();
    }
  }
}

void ReadPrompts(FieldReader& fields, int32_t vocab_size, std::vector<Prompt>& prompts) {
  const Json* field = fields.Find("prompt");
  if (field == nullptr) return fields.Refuse("prompt", "is required");
  if (field->is_string()) {
    prompts.push_back(field->get<std::string>());
    return;
  }
  if (!field->is_array() || field->empty())
    return fields.Refuse("prompt", "must be a string, or an array that is not empty");
  if (field->front().is_number()) {
    std::vector<int32_t> ids;
    if (ReadIds(fields, "prompt", *field, vocab_size, ids)) prompts.push_back(std::move(ids));
    return;
  }
  if (field->size() > kPromptsMax)
    return fields.Refuse("prompt", fmt::format("has more than {} prompts", kPromptsMax));
  for (size_t i = 0; i < field->size(); ++i) {
    const Json& item = (*field)[i];
    std::vector<int32_t> ids;
    if (item.is_string())
      prompts.push_back(item.get<std::string>());
    else if (ReadIds(fields, fmt::format("prompt[{}]", i), item, vocab_size, ids))
      prompts.push_back(std::move(ids));
    else
      return;
  }
}

}  // namespace

Result<std::string> ReadModelName(const Json& body) {
  FieldReader fields(body);
  std::string name;
  if (!fields.Find("model")) fields.Refuse("model", "is required");
  fields.Read("model", name);
  TRY(fields.status());
  return name;
}

Result<ChatRequest> ReadChatRequest(const Json& body, const ServedModel& model) {
  FieldReader fields(body);
  ChatRequest request;
  ReadGeneration(fields, model, request);
  ReadConversation(fields, request);
  bool echo = false;
  fields.Read("echo", echo);
  if (echo) fields.Refuse("echo", "is not supported in a chat", ErrorCode::kUnsupported);
  bool add_generation_prompt = true;
  fields.Read("add_generation_prompt", add_generation_prompt);
  if (!add_generation_prompt)
    fields.Refuse("add_generation_prompt", "is not supported with any value but true",
                  ErrorCode::kUnsupported);

  bool logprobs = false;
  fields.Read("logprobs", logprobs);
  if (logprobs) request.logprobs = 0;
  if (fields.Find("top_logprobs")) {
    int top = 0;
    fields.Read("top_logprobs", top, 0, int{engine::kMaxTopLogprobs});
    if (logprobs)
      request.logprobs = top;
    else if (top > 0)
      fields.Refuse("top_logprobs", "is only allowed with logprobs");
  }
  ReadPromptLogprobs(fields, request);
  ReadMaxTokens(fields, "max_tokens", 1, request);
  ReadMaxTokens(fields, "max_completion_tokens", 1, request);
  TRY(fields.status());
  return request;
}

Result<CompletionRequest> ReadCompletionRequest(const Json& body, const ServedModel& model) {
  FieldReader fields(body);
  CompletionRequest request;
  ReadGeneration(fields, model, request);
  ReadPrompts(fields, model.engine->limits().vocab_size, request.prompts);
  if (request.prompts.size() * static_cast<size_t>(request.choice_count) > kAnswersMax)
    fields.Refuse("n", fmt::format("asks for more than {} answers in all", kAnswersMax));
  fields.Read("echo", request.echo);
  fields.Read("logprobs", request.logprobs, 0, int{engine::kMaxTopLogprobs});
  ReadPromptLogprobs(fields, request);
  ReadMaxTokens(fields, "max_tokens", request.sampling.prompt_logprobs ? 0 : 1, request);
  TRY(fields.status());
  return request;
}

Result<TokenizeRequest> ReadTokenizeRequest(const Json& body, const ServedModel&) {
  FieldReader fields(body);
  TokenizeRequest request;
  bool add_special_tokens = true;  // Qwen3 has none to add, either way
  fields.Read("add_special_tokens", add_special_tokens);
  if (fields.Find("messages")) {
    if (fields.Find("prompt")) fields.Refuse("prompt", "must not come with messages");
    ChatRequest chat;
    ReadConversation(fields, chat);
    fields.Read("add_generation_prompt", chat.options.add_generation_prompt);
    request.text = std::move(chat);
  } else {
    std::string prompt;
    if (!fields.Find("prompt")) fields.Refuse("prompt", "or messages is required");
    fields.Read("prompt", prompt);
    request.text = std::move(prompt);
  }
  TRY(fields.status());
  return request;
}

Result<std::vector<int32_t>> ReadDetokenizeRequest(const Json& body, const ServedModel& model) {
  FieldReader fields(body);
  std::vector<int32_t> ids;
  if (const Json* tokens = fields.Find("tokens"))
    ReadIds(fields, "tokens", *tokens, model.engine->limits().vocab_size, ids);
  else
    fields.Refuse("tokens", "is required");
  TRY(fields.status());
  return ids;
}

Result<std::vector<int32_t>> PromptIds(const ChatRequest& request, const ServedModel& model) {
  std::vector<text::TextRange> untrusted;
  TRY_ASSIGN(const std::string prompt,
             text::RenderChat(model.chat_format, request.messages, request.tools, request.options,
                              &untrusted));
  return model.tokenizer->Encode(prompt, true, untrusted);
}

Result<std::vector<int32_t>> PromptIds(const Prompt& prompt, const ServedModel& model) {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) return *ids;
  return model.tokenizer->Encode(std::get<std::string>(prompt));
}

std::string PromptText(const Prompt& prompt, const ServedModel& model) {
  if (const auto* text = std::get_if<std::string>(&prompt)) return *text;
  return model.tokenizer->Decode(std::get<std::vector<int32_t>>(prompt));
}

Result<engine::Request> MakeEngineRequest(const GenerationRequest& request, std::string id,
                                          std::vector<int32_t> prompt, int32_t max_tokens_default,
                                          int choice, const ServedModel& model) {
  if (prompt.empty()) return Fail(ErrorCode::kInvalidArgument, "the prompt is empty", "prompt");
  const int32_t max_tokens = request.max_tokens.value_or(max_tokens_default);
  const int64_t room = int64_t{model.max_model_len} - static_cast<int64_t>(prompt.size());
  if (room < (max_tokens > 0 ? 1 : 0))
    return Fail(ErrorCode::kOutOfRange,
                fmt::format("the prompt has {} tokens, but the model's context is {} tokens, "
                            "output included",
                            prompt.size(), model.max_model_len),
                "prompt");
  if (request.sampling.min_tokens > max_tokens)
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("min_tokens is {}, but at most {} tokens are generated",
                            request.sampling.min_tokens, max_tokens),
                "min_tokens");
  engine::Request made{.id = std::move(id),
                       .caller = "",
                       .priority = request.priority,
                       .prompt = std::move(prompt),
                       .sampling = request.sampling};
  engine::SamplingParams& sampling = made.sampling;
  // Bounds that reach past the context end where the context does.
  sampling.max_tokens = static_cast<int32_t>(std::min<int64_t>(max_tokens, room));
  sampling.min_tokens = std::min(sampling.min_tokens, sampling.max_tokens);
  if (sampling.seed) *sampling.seed += static_cast<uint64_t>(choice);
  return made;
}

}  // namespace millpower::serve
