#include "host_truth/model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "base/clock.h"
#include "base/rng.h"
#include "compile/compile.h"
#include "device/cpu/cpu_device.h"
#include "import/qwen3/graph.h"
#include "import/qwen3/published.h"
#include "import/tensor/published.h"
#include "ir/graph.h"
#include "isa/layout.h"
#include "isa/sampling.h"

namespace millpower::truth {
namespace {

constexpr size_t kTileBytes = size_t{1} << 20;  // of random weights, repeated

// Of f32 and bf16, numbers around 0.02; of blocks, any integers with scales for such numbers.
void FillTile(DType type, std::span<std::byte> tile, Rng& rng) {
  if (IsBlockType(type)) {
    const auto chunk = static_cast<size_t>(isa::ChunkLines(type) * isa::kLineBytes);
    for (std::byte& b : tile) b = static_cast<std::byte>(rng.Below(256));
    const float largest = type == DType::kQ8_0   ? 128
                          : type == DType::kQ4_0 ? 8
                          : type == DType::kQ4_K ? 63 * 15
                                                 : 128 * 32;
    for (size_t at = 0; at + chunk <= tile.size(); at += chunk)
      for (int64_t i = 0; i < 2 * isa::kLanes; ++i) {
        const uint16_t scale = F32ToF16(rng.Uniform(0.5f, 1) * 0.05f / largest);
        std::memcpy(tile.data() + at + 2 * i, &scale, sizeof scale);
      }
    return;
  }
  for (size_t at = 0; at + 4 <= tile.size(); at += 4) {
    const uint32_t value =
        0x3c803c80u | (static_cast<uint32_t>(Mix64(rng.Below(1u << 30))) & 0x807f807fu);
    std::memcpy(tile.data() + at, &value, sizeof value);
  }
}

// Weights whose values the graph has are those.
isa::BoundWeights RandomWeights(const compile::Compiled& compiled) {
  const isa::Program& program = compiled.program;
  size_t total = 0;
  std::vector<size_t> offsets, sizes;
  for (const isa::Buffer& buffer : program.buffers) {
    offsets.push_back(total);
    sizes.push_back(buffer.kind == isa::BufferKind::kWeight
                        ? static_cast<size_t>(isa::BufferBytes(buffer, buffer.rows.size))
                        : size_t{0});
    total += (sizes.back() + 63) / 64 * 64;
  }
  const std::shared_ptr<std::byte> bytes(
      static_cast<std::byte*>(std::aligned_alloc(4096, (total / 4096 + 1) * 4096)), &std::free);
  CHECK(bytes != nullptr) << "no memory for " << total << " bytes of weights";
  isa::BoundWeights bound;
  Rng rng(1);
  std::vector<std::byte> tile(kTileBytes / 64 * 64);
  std::optional<DType> filled;
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    std::byte* const begin = bytes.get() + offsets[i];
    bound.by_buffer.emplace_back(sizes[i] == 0 ? nullptr : begin, sizes[i]);
    if (sizes[i] == 0) continue;
    const auto rule = compiled.packing.find(program.buffers[i].name);
    if (rule != compiled.packing.end()) {
      const auto known = !rule->second.values.empty()
                             ? std::as_bytes(std::span(rule->second.values))
                             : std::span(rule->second.literal.bytes);
      if (!known.empty()) {
        std::memcpy(begin, known.data(), std::min(known.size(), sizes[i]));
        continue;
      }
    }
    const DType type = program.buffers[i].dtype;
    size_t period = tile.size();
    if (IsBlockType(type)) {
      const auto chunk = static_cast<size_t>(isa::ChunkLines(type) * isa::kLineBytes);
      period = period / chunk * chunk;
    }
    if (filled != type) FillTile(type, std::span(tile).first(period), rng);
    filled = type;
    for (size_t at = 0; at < sizes[i]; at += period)
      std::memcpy(begin + at, tile.data(), std::min(period, sizes[i] - at));
  }
  bound.owner = bytes;
  return bound;
}

// Tables of more rows are cut, so that they take a quarter of a gigabyte.
constexpr int64_t kMostRows = 1'000'000;

import::PublishedRecommender Dlrm() {
  const import::PublishedRecommender* published = import::FindPublishedRecommender("dlrm-kaggle");
  CHECK(published != nullptr);
  import::PublishedRecommender dlrm = *published;
  for (int64_t& rows : dlrm.rows) rows = std::min(rows, kMostRows);
  return dlrm;
}

Result<ir::Graph> GraphOf(const HostModelOptions& options, bool language) {
  if (!language) {
    import::TensorOptions tensors;
    tensors.max_batch = 2048;
    TRY_ASSIGN(import::TensorModel dlrm, import::BuildPublishedRecommender(Dlrm(), tensors));
    return std::move(dlrm.graph);
  }
  const import::PublishedModel* model = import::FindPublishedModel(options.name);
  CHECK(model != nullptr) << options.name;
  import::GraphOptions sizes;
  sizes.page_positions = isa::kPagePositions;
  sizes.sample_param_words = isa::kSampleParamWords;
  sizes.sample_adjustment_words = isa::kSampleAdjustmentWords;
  sizes.sample_record_words = isa::kSampleRecordWords;
  sizes.max_rows = options.max_rows;
  sizes.max_seqs = sizes.max_picked = std::max(options.max_batch, options.max_rows);
  return import::BuildQwen3Graph(model->config, sizes);
}

}  // namespace

Result<std::unique_ptr<HostModel>> HostModel::Load(const HostModelOptions& options) {
  auto model = std::make_unique<HostModel>();
  model->options_ = options;
  model->language_ = options.name != "dlrm";
  if (model->language_ && import::FindPublishedModel(options.name) == nullptr)
    return Fail(ErrorCode::kNotFound, "no model '" + options.name + "'");
  TRY_ASSIGN(const ir::Graph graph, GraphOf(options, model->language_));
  compile::Options how;
  how.weight_type = options.weight_type;
  TRY_ASSIGN(compile::Compiled compiled, compile::Compile(graph, how));
  isa::BoundWeights weights = RandomWeights(compiled);
  model->program_ = std::make_shared<const isa::Program>(std::move(compiled.program));
  model->device_ = device::cpu::MakeCpuDevice(
      {.threads = options.threads, .profile = options.profiled ? &model->profile_ : nullptr});
  if (model->language_)
    model->pages_ = options.max_batch * (options.max_positions / isa::kPagePositions + 1);
  TRY_ASSIGN(model->loaded_, model->device_->Load(model->program_, std::move(weights),
                                                  {.kv_pages = model->pages_}));
  model->launch_ = std::make_unique<device::Launch>(*model->program_);
  if (model->language_) TRY(model->TouchPages());
  return model;
}

// Memory that nobody has written is not there yet: one position of each page will do.
Result<void> HostModel::TouchPages() {
  const int64_t at_once = std::min(options_.max_rows, pages_);
  for (int64_t page = 0; page < pages_; page += at_once) {
    const int64_t count = std::min(at_once, pages_ - page);
    SetLanguage({.name = "", .batch = count, .rows = 1, .first = 0});
    auto& list = launch_->inputs[static_cast<size_t>(program_->FindBuffer("pages"))];
    for (size_t i = 0; i < list.size(); ++i)
      list[i] = static_cast<int32_t>(page + static_cast<int64_t>(i));
    TRY(Run());
  }
  return {};
}

void HostModel::Set(const StepCase& step) {
  if (language_)
    SetLanguage(step);
  else
    SetTensors(step);
}

void HostModel::SetLanguage(const StepCase& step) {
  const auto input = [&](const char* name) -> std::vector<int32_t>& {
    auto& words = launch_->inputs[static_cast<size_t>(program_->FindBuffer(name))];
    words.clear();
    return words;
  };
  const auto set = [&](const char* name, int64_t value) {
    launch_->registers[static_cast<size_t>(program_->FindRegister(name))] = value;
  };
  const int64_t each = (step.first + step.rows + isa::kPagePositions - 1) / isa::kPagePositions;
  set("rows", step.batch * step.rows);
  set("seqs", step.batch);
  set("picked", step.batch);
  set("adjusts", 0);
  set("page_entries", step.batch * each);
  auto& tokens = input("tokens");
  auto& positions = input("positions");
  auto& sequences = input("sequences");
  auto& pages = input("pages");
  auto& picked = input("picked_rows");
  auto& sampling = input("sampling");
  input("adjust_tokens");
  input("adjustments");
  Rng rng(seed_);
  const auto vocab = static_cast<uint64_t>(program_->FactOr("vocab_size", 1));
  for (int64_t i = 0; i < step.batch; ++i) {
    for (const int64_t word : {i * step.rows, step.rows, step.first, i * each})
      sequences.push_back(static_cast<int32_t>(word));
    for (int64_t page = 0; page < each; ++page)
      pages.push_back(static_cast<int32_t>((i * each + page) % pages_));
    for (int64_t row = 0; row < step.rows; ++row) {
      tokens.push_back(static_cast<int32_t>(rng.Below(vocab)));
      positions.push_back(static_cast<int32_t>(step.first + row));
    }
    picked.push_back(static_cast<int32_t>((i + 1) * step.rows - 1));
    int32_t words[isa::kSampleParamWords] = {};  // the most likely token
    words[isa::kSampleTopP] = isa::WordOf(1);
    words[isa::kSampleLogprobs] = -1;
    words[isa::kSampleTarget] = -1;
    sampling.insert(sampling.end(), std::begin(words), std::end(words));
  }
}

void HostModel::SetTensors(const StepCase& step) {
  launch_->registers[static_cast<size_t>(program_->FindRegister("batch"))] = step.batch;
  const import::PublishedRecommender dlrm = Dlrm();
  Rng rng(seed_++);  // other rows every time
  for (size_t i = 0; i < program_->buffers.size(); ++i) {
    const isa::Buffer& buffer = program_->buffers[i];
    if (buffer.kind != isa::BufferKind::kInput) continue;
    auto& words = launch_->inputs[i];
    words.clear();
    if (buffer.dtype == DType::kF32) {
      for (int64_t k = 0; k < step.batch * buffer.cols; ++k)
        words.push_back(std::bit_cast<int32_t>(rng.Uniform(-1, 1)));
      continue;
    }
    const auto feature = static_cast<size_t>(std::atoi(buffer.name.c_str() + 4));  // "ids_7"
    const auto rows = static_cast<uint64_t>(dlrm.rows[feature]);
    for (int64_t k = 0; k < step.batch; ++k) {
      words.push_back(static_cast<int32_t>(rng.Below(rows)));
      words.push_back(0);
    }
  }
}

Result<Measured> HostModel::Run() {
  const SystemClock clock;
  const int64_t begin = clock.NowNs();
  TRY_ASSIGN(const device::Ticket ticket, loaded_->Submit(*launch_));
  TRY_ASSIGN(const device::Completion done, loaded_->Complete(ticket));
  return Measured{static_cast<double>(clock.NowNs() - begin) * 1e-9,
                  static_cast<double>(done.device_ns) * 1e-9};
}

Result<device::chip::LaunchTime> HostModel::Predict(const device::chip::Chip& chip) const {
  std::vector<int64_t> registers = launch_->registers;
  for (size_t i = 0; i < registers.size(); ++i)
    if (program_->registers[i].at_load)
      registers[i] = loaded_->LoadRegister(static_cast<int32_t>(i));
  device::LaunchChecker checker(*program_);
  TRY(checker.Check(*launch_, registers));
  device::chip::Timer timer(program_, chip, {});
  return timer.Time(registers, *launch_);
}

}  // namespace millpower::truth
