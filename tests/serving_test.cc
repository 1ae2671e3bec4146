// The engine on the small models of tests/golden: from a model folder to the tokens that requests
// get, against Hugging Face transformers in float32 and against each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "device/cpu/cpu_device.h"
#include "engine/llm_engine.h"
#include "golden_models.h"

namespace millpower {
namespace {

std::vector<int32_t> ReadIds(const std::string& model, const std::string& name) {
  return Reference(model).Get<int32_t>(name);
}

struct Output {
  std::vector<engine::TokenInfo> tokens;
  std::optional<engine::FinishReason> finish;
};

std::vector<int32_t> Ids(const Output& output) {
  std::vector<int32_t> ids;
  for (const engine::TokenInfo& info : output.tokens) ids.push_back(info.token);
  return ids;
}

class Model {
 public:
  Model(const std::string& name, const compile::Options& options, int threads = 2)
      : device_(device::cpu::MakeCpuDevice({.threads = threads, .serial_cost = 8192})) {
    GoldenModel compiled = CompileGolden(name, options);
    program_ = compiled.program;
    weights_ = std::move(compiled.weights);
  }

  // Sends all requests at once; what each got, in their order.
  std::vector<Output> Serve(const std::vector<engine::Request>& requests,
                            const engine::LlmOptions& options, int64_t kv_pages) {
    auto loaded = device_->Load(program_, weights_, {.kv_pages = kv_pages});
    CHECK(loaded) << loaded.error().message;
    std::vector<Output> outputs(requests.size());
    {
      auto engine = engine::StartLlmEngine(std::move(*loaded), options);
      CHECK(engine) << engine.error().message;
      for (size_t i = 0; i < requests.size(); ++i) {
        engine::Request request = requests[i];
        request.id = std::to_string(i);
        const auto submitted =
            (*engine)->Submit(request, [&outputs, i](const engine::Delta& delta) {
              Output& output = outputs[i];
              output.tokens.insert(output.tokens.end(), delta.tokens.begin(), delta.tokens.end());
              output.finish = delta.finish;
              return engine::Verdict::kContinue;
            });
        CHECK(submitted) << submitted.error().message;
      }
      (*engine)->Drain(int64_t{120} * 1'000'000'000);
      stats = (*engine)->Stats();
      EXPECT_EQ(stats.kv_pages_used, 0);
    }
    return outputs;
  }

  engine::EngineStats stats;  // of the last Serve

 private:
  std::unique_ptr<device::Device> device_;
  std::shared_ptr<const isa::Program> program_;
  isa::BoundWeights weights_;
};

class Serving : public testing::TestWithParam<std::string> {};

// The prompts of the reference and two more, together, in small steps, with too few pages.
TEST_P(Serving, GreedyOutputIsTheReferencesInAnyCompany) {
  Model model(GetParam(), {.weight_type = DType::kF32, .kv_type = DType::kF32});
  std::vector<engine::Request> requests;
  std::vector<std::vector<int32_t>> expected;
  for (const std::string which : {"short", "long", "short", "long"}) {
    expected.push_back(ReadIds(GetParam(), which + ".greedy_ids"));
    engine::Request request;
    request.prompt = ReadIds(GetParam(), which + ".prompt_ids");
    request.sampling.temperature = 0;
    request.sampling.max_tokens = static_cast<int32_t>(expected.back().size());
    request.sampling.ignore_eos = true;
    requests.push_back(request);
  }
  const auto longest = static_cast<int64_t>(requests[1].prompt.size() + expected[1].size());
  for (const auto& [max_batch_tokens, pages] :
       {std::pair(0, int64_t{200}), {7, (longest + 31) / 16}}) {
    const auto outputs = model.Serve(
        requests,
        {.max_model_len = static_cast<int32_t>(longest), .max_batch_tokens = max_batch_tokens},
        pages);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(Ids(outputs[i]), expected[i]) << "request " << i << " with " << pages << " pages";
      EXPECT_EQ(outputs[i].finish, engine::FinishReason::kLength);
    }
  }
}

// bf16 weights and KV, sampled: the bits of tokens and logprobs are those of a request alone.
TEST_P(Serving, CompanyChangesNoBit) {
  Model model(GetParam(), {});
  std::vector<engine::Request> requests;
  const auto prompt = ReadIds(GetParam(), "long.prompt_ids");
  for (int i = 0; i < 5; ++i) {
    engine::Request request;
    request.prompt.assign(prompt.begin() + i, prompt.end() - 3 * i);
    request.sampling = {.temperature = 0.9f,
                        .top_p = 0.95f,
                        .seed = static_cast<uint64_t>(i),
                        .max_tokens = 60,
                        .ignore_eos = true,
                        .logprobs = 2};
    requests.push_back(request);
  }
  const auto together = model.Serve(requests, {.max_batch_tokens = 40}, 24);
  for (size_t i = 0; i < requests.size(); ++i) {
    const Output alone = model.Serve({requests[i]}, {}, 200)[0];
    EXPECT_EQ(Ids(together[i]), Ids(alone)) << "request " << i;
    for (size_t at = 0; at < alone.tokens.size(); ++at) {
      EXPECT_EQ(together[i].tokens[at].logprob, alone.tokens[at].logprob);
      EXPECT_EQ(together[i].tokens[at].top[1].logprob, alone.tokens[at].top[1].logprob);
    }
  }
}

class MixedBatch : public testing::TestWithParam<std::string> {};

// 32 requests of three callers and all classes in one batch, half of them with a common beginning,
// in chunks, with so little memory that some are computed twice: on 1, 2 and 4 threads each gets
// the bits that it gets alone. "NAME:int8" has weights and KV in 8 bits.
TEST_P(MixedBatch, ChangesNoBit) {
  std::vector<engine::Request> requests;
  const bool quantised = GetParam().ends_with(":int8");
  const std::string name = GetParam().substr(0, GetParam().find(':'));
  const compile::Options options =
      quantised ? compile::Options{.weight_type = DType::kQ8_0, .kv_type = DType::kI8}
                : compile::Options{};
  const auto prompt = ReadIds(name, "long.prompt_ids");
  for (int i = 0; i < 32; ++i) {
    engine::Request request;
    request.caller = i % 3 == 0 ? "a" : i % 3 == 1 ? "b" : "";
    request.priority = static_cast<engine::Priority>(i % engine::kPriorityCount);
    request.prompt.assign(prompt.begin() + (i % 2 == 0 ? 0 : i), prompt.end() - i);
    request.sampling = {.temperature = i % 4 < 2 ? 0.0f : 0.8f,
                        .seed = static_cast<uint64_t>(i),
                        .max_tokens = 24,
                        .frequency_penalty = i % 5 == 0 ? 0.3f : 0.0f,
                        .repetition_penalty = i % 7 == 0 ? 1.2f : 1.0f,
                        .ignore_eos = true,
                        .logprobs = 1};
    requests.push_back(request);
  }
  std::vector<Output> alone;
  for (const int threads : {1, 2, 4}) {
    Model model(name, options, threads);
    if (alone.empty())
      for (const engine::Request& request : requests)
        alone.push_back(model.Serve({request}, {.prefix_cache = false}, 200)[0]);
    const auto context = static_cast<int64_t>(prompt.size()) + 24;
    const auto together =
        model.Serve(requests, {.max_num_seqs = 32, .max_batch_tokens = 48}, 4 * (context / 16 + 1));
    EXPECT_GT(model.stats.preemptions, 0);
    EXPECT_GT(model.stats.cached_prompt_tokens, 0);
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_EQ(Ids(together[i]), Ids(alone[i]))
          << "request " << i << ", " << threads << " threads";
      for (size_t at = 0; at < alone[i].tokens.size(); ++at)
        ASSERT_EQ(std::bit_cast<uint32_t>(together[i].tokens[at].logprob),
                  std::bit_cast<uint32_t>(alone[i].tokens[at].logprob));
    }
  }
}

std::string NameOf(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name)
    if (c == '-' || c == ':') c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Models, Serving,
                         testing::Values("tiny-tied", "tiny-untied-bf16", "tiny-yarn", "tiny-f16",
                                         "tiny-bias"),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Models, MixedBatch,
                         testing::Values("tiny-tied", "tiny-bias", "tiny-moe", "tiny-tied:int8",
                                         "tiny-moe:int8"),
                         NameOf);

}  // namespace
}  // namespace millpower
