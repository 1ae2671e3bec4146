#include "engine/ports.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/kv_pages.h"
#include "isa/sampling.h"

namespace millpower::engine {
namespace {

std::unexpected<Error> Missing(const std::string& what, const std::string& name) {
  return Fail(ErrorCode::kUnsupported,
              "the Program is no language model: it has no " + what + " '" + name + "'");
}

}  // namespace

Result<Ports> Ports::Find(const isa::Program& program) {
  Ports ports{};
  const std::pair<const char*, int32_t*> registers[] = {{"rows", &ports.rows},
                                                        {"seqs", &ports.seqs},
                                                        {"picked", &ports.picked},
                                                        {"adjusts", &ports.adjusts},
                                                        {"page_entries", &ports.page_entries},
                                                        {"pages", &ports.pages}};
  const std::pair<const char*, int32_t*> buffers[] = {{"tokens", &ports.tokens},
                                                      {"positions", &ports.positions},
                                                      {"sequences", &ports.sequences},
                                                      {"pages", &ports.page_list},
                                                      {"picked_rows", &ports.picked_rows},
                                                      {"sampling", &ports.sampling},
                                                      {"adjust_tokens", &ports.adjust_tokens},
                                                      {"adjustments", &ports.adjustments},
                                                      {"sampled", &ports.sampled}};
  for (const auto& [name, index] : registers)
    if ((*index = program.FindRegister(name)) < 0) return Missing("register", name);
  for (const auto& [name, index] : buffers)
    if ((*index = program.FindBuffer(name)) < 0) return Missing("buffer", name);
  const isa::Buffer& sampled = program.buffers[static_cast<size_t>(ports.sampled)];
  const bool kinds = sampled.kind == isa::BufferKind::kOutput && sampled.rows.reg == ports.picked &&
                     sampled.dtype == DType::kI32 &&  // so that only `sample` can have written it
                     sampled.cols == isa::kSampleRecordWords &&
                     program.FactOr("vocab_size", 0) > 0 && program.FactOr("max_positions", 0) > 0;
  if (!kinds) return Missing("fact or output", "of sampling");
  return ports;
}

void Ports::Write(const std::vector<Share>& shares, device::Launch& launch) const {
  for (auto& values : launch.inputs) values.clear();
  auto input = [&](int32_t buffer) -> std::vector<int32_t>& {
    return launch.inputs[static_cast<size_t>(buffer)];
  };
  std::vector<int32_t>& to_adjust = input(adjust_tokens);
  // What to draw from the logits of one position: the next token, or, inside the prompt, the
  // likelihood of the one that is there.
  auto add_sampling = [&](const Sequence& sequence, int32_t position) {
    const SamplingParams& params = sequence.request.sampling;
    const int32_t next = position + 1;
    int32_t words[isa::kSampleParamWords] = {};
    words[isa::kSampleTemperature] = isa::WordOf(params.temperature);
    words[isa::kSampleTopP] = isa::WordOf(params.top_p);
    words[isa::kSampleMinP] = isa::WordOf(params.min_p);
    words[isa::kSampleTopK] = params.top_k;
    words[isa::kSampleSeedLow] = static_cast<int32_t>(sequence.seed);
    words[isa::kSampleSeedHigh] = static_cast<int32_t>(sequence.seed >> 32);
    words[isa::kSampleCounter] = next - sequence.prompt_size;
    words[isa::kSampleLogprobs] = params.logprobs;
    words[isa::kSampleTarget] = -1;
    words[isa::kSampleAdjustBegin] = static_cast<int32_t>(to_adjust.size());
    if (next < sequence.size()) {
      words[isa::kSampleTarget] = sequence.tokens[static_cast<size_t>(next)];
      words[isa::kSampleLogprobs] = std::max(params.logprobs, 0);
    } else if (params.max_tokens > 0) {
      sequence.adjustments.AppendTo(sequence.generated(), to_adjust, input(adjustments));
    }
    words[isa::kSampleAdjustCount] =
        static_cast<int32_t>(to_adjust.size()) - words[isa::kSampleAdjustBegin];
    input(sampling).insert(input(sampling).end(), std::begin(words), std::end(words));
  };
  int32_t row = 0;
  for (const Share& share : shares) {
    const Sequence& sequence = *share.sequence;
    auto& list = input(page_list);
    auto& work = input(sequences);
    work.insert(work.end(),
                {row, share.count, sequence.computed, static_cast<int32_t>(list.size())});
    list.insert(list.end(), sequence.pages.begin(),
                sequence.pages.begin() + PagesFor(sequence.computed + share.count));
    for (int32_t i = 0; i < share.count; ++i, ++row) {
      const int32_t position = sequence.computed + i;
      input(tokens).push_back(sequence.tokens[static_cast<size_t>(position)]);
      input(positions).push_back(position);
      if (i < share.count - share.picked) continue;
      input(picked_rows).push_back(row);
      add_sampling(sequence, position);
    }
  }
  auto set = [&](int32_t reg, size_t value) {
    launch.registers[static_cast<size_t>(reg)] = static_cast<int64_t>(value);
  };
  set(rows, static_cast<size_t>(row));
  set(seqs, shares.size());
  set(picked, input(picked_rows).size());
  set(adjusts, to_adjust.size());
  set(page_entries, input(page_list).size());
}

TokenInfo ReadRecord(const int32_t* record) {
  TokenInfo info{record[isa::kRecordToken], isa::FloatOf(record[isa::kRecordLogprob]), {}};
  for (int32_t i = 0; i < record[isa::kRecordCount]; ++i)
    info.top.push_back(
        {record[isa::kRecordIds + i], isa::FloatOf(record[isa::kRecordLogprobs + i])});
  return info;
}

}  // namespace millpower::engine
