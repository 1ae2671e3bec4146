#include "device/probe/probe.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/system.h"
#include "device/chip/cost_host.h"
#include "device/chip/description_writer.h"
#include "device/cpu/cpu_device.h"
#include "device/probe/fit.h"
#include "device/probe/points.h"

namespace millpower::device::probe {
namespace {

constexpr char kSource[] = "measured by millpower probe";
constexpr int64_t kMegabyte = 1 << 20;
constexpr int64_t kPasses = 5;  // that the pool holds, of weights: more than caches keep of them
constexpr int64_t kPageBytes = 64 << 10;

// The measures of speed: a product whose weight comes from caches and counts for little, and a pass
// through memory of which only the weights count.
constexpr ProductSize kProduct{1024, 1024, 2, true};
constexpr int64_t kProductRows = 64;
constexpr int64_t kPassSize = 1024;  // channels and steps

// For how long the machine's speed is looked at: beside a step, and beside a point.
constexpr double kLook_s = 0.05, kShortLook_s = 0.012;
constexpr double kPoint_s = 0.004;
// In the fit: what counts is how the machine does models, less so their parts.
constexpr double kLookWeight = 8, kModelWeight = 4;
constexpr double kOutlier = 0.15;  // of ln(predicted / measured): from here on it counts less
constexpr double kLong_s = 0.01;   // steps from here on are long
constexpr ProductSize kLongProduct{1024, 4096, 16, true};

constexpr char kProductAlone[] = "product alone";

double Median(std::vector<double> values) {
  CHECK(!values.empty());
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

// What three in four exceed: others' work on the machine hardly touches it.
double Quiet(std::vector<double> values) {
  CHECK(!values.empty());
  const auto quarter = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 4);
  std::ranges::nth_element(values, quarter);
  return *quarter;
}

// Four digits: more than were measured.
double Rounded(double value) { return std::strtod(fmt::format("{:.4g}", value).c_str(), nullptr); }

chip::Figure Measured(double value) { return {value, value, value, kSource, false}; }

// A little Program, launched in one way, and what it took.
struct Point {
  std::string name;
  SmallProgram* program = nullptr;
  std::function<void()> prepare;  // sets the launch
  bool passes = false;            // goes by the speed of memory, else of the cores
  bool is_look = false;           // is not measured apart
  bool anew = false;              // prepared before each run: other rows, other pages
  bool one_thread = false;        // on a device of one thread
  double weight = 1;              // in the fit
  SmallProgram::Sizes sizes;
  std::vector<double> ratios;
  double seconds = 0;
};

class ProberImpl final : public Prober {
 public:
  explicit ProberImpl(const ProbeOptions& options)
      : options_(options),
        pass_bytes_(std::max<int64_t>(4, options.memory_bytes / 8 / kMegabyte) * kMegabyte),
        pool_bytes_(kPasses * pass_bytes_),
        pages_(std::max<int64_t>(1024, options.memory_bytes * 3 / 8 / kPageBytes)) {}

  Result<void> Prepare() {
    TRY_ASSIGN(pool_, Pool::Make(pool_bytes_));
    const cpu::CpuOptions device{.threads = options_.threads, .kernels = options_.kernels};
    device_ = cpu::MakeCpuDevice(device);
    cpu::CpuOptions alone = device;
    alone.threads = 1;
    alone_ = cpu::MakeCpuDevice(alone);
    TRY_ASSIGN(product_, Load(*device_, ProductText(kProduct, DType::kBf16)));
    product_->Set("rows", kProductRows);
    const ProductSize through{kPassSize, kPassSize, pass_bytes_ / (2 * kPassSize * kPassSize),
                              false};
    for (int64_t at = 0; at < pool_bytes_; at += pass_bytes_) {
      TRY_ASSIGN(SmallProgram * pass, Load(*device_, ProductText(through, DType::kBf16), 0, at));
      pass->Set("rows", 1);
      passes_.push_back(pass);
    }
    TRY_ASSIGN(long_product_, Load(*device_, ProductText(kLongProduct, DType::kBf16)));
    long_product_->Set("rows", kProductRows);
    ProductSize all = through;
    all.count *= kPasses;
    TRY_ASSIGN(long_pass_, Load(*device_, ProductText(all, DType::kBf16)));
    long_pass_->Set("rows", 1);
    return {};
  }

  Result<Speeds> Measure(double step_s) override {
    if (step_s < kLong_s) {
      TRY_ASSIGN(const double product, ProductTimes(kLook_s));
      TRY_ASSIGN(const double pass, PassTimes(kLook_s));
      return Speeds{product, pass};
    }
    TRY_ASSIGN(const double product_s, long_product_->Run());
    TRY_ASSIGN(const double pass_s, long_pass_->Run());
    return Speeds{product_s, pass_s / kPasses};
  }

  Result<Description> Describe() override {
    if (points_.empty()) TRY(MakePoints());
    TRY(MeasurePoints());
    return FitChip();
  }

 private:
  Result<SmallProgram*> Load(Device& device, const std::string& text, int64_t kv_pages = 0,
                             int64_t first_byte = 0) {
    TRY_ASSIGN(SmallProgram program,
               SmallProgram::Load(device, text, *pool_, kv_pages, first_byte));
    programs_.push_back(std::make_unique<SmallProgram>(std::move(program)));
    return programs_.back().get();
  }

  // Runs of a Program, given by `next`, until they have taken `least_s` and are `least` at least.
  template <typename Next>
  static Result<double> QuietOf(const Next& next, double least_s, int least) {
    std::vector<double> times;
    double sum = 0;
    while (sum < least_s || std::ssize(times) < least) {
      TRY_ASSIGN(const double seconds, next()->Run());
      times.push_back(seconds);
      sum += seconds;
    }
    return Quiet(std::move(times));
  }

  Result<double> ProductTimes(double least_s) {
    return QuietOf([this] { return product_; }, least_s, 5);
  }
  // Never the part that has just been read: caches may hold 128 MB.
  Result<double> PassTimes(double least_s) {
    return QuietOf([this] { return passes_[next_pass_ = (next_pass_ + 1) % passes_.size()]; },
                   least_s, 2);
  }

  Point& Add(std::string name, SmallProgram* program, std::function<void()> prepare) {
    Point& point = points_.emplace_back();
    point.name = std::move(name);
    point.program = program;
    point.prepare = std::move(prepare);
    point.prepare();
    point.sizes = program->sizes();
    return point;
  }

  Result<void> MakePoints() {
    // The looks themselves: what they say of the speed, the description must say, too.
    Add("look: product", product_, [this] { product_->Set("rows", kProductRows); });
    Add("look: pass", long_pass_, [this] { long_pass_->Set("rows", 1); }).passes = true;
    for (Point& point : points_) point.is_look = true, point.weight = kLookWeight;
    TRY(AddProducts());
    TRY(AddPasses());
    TRY(AddPerceptron());
    TRY(AddAttention());
    TRY(AddRowWork());
    TRY(AddBags());
    TRY(AddRecommender());
    return {};
  }

  Result<void> AddProducts() {
    constexpr ProductSize kHot{1024, 512, 4, true};
    for (const DType type :
         {DType::kBf16, DType::kF32, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ6_K}) {
      ProductSize size = kHot;
      // To stay in a level 2 cache: two weights of half a megabyte.
      if (type == DType::kBf16) size.channels /= 2, size.count *= 2;
      if (type == DType::kF32) size = {512, 256, 16, true};
      TRY_ASSIGN(SmallProgram * hot, Load(*device_, ProductText(size, type)));
      for (const int64_t rows : {1, 2, 4, 8, 16, 64})
        Add(fmt::format("{} hot, {} rows", Name(type), rows), hot,
            [hot, rows] { hot->Set("rows", rows); });
    }
    TRY_ASSIGN(SmallProgram * alone, Load(*alone_, ProductText(kProduct, DType::kBf16)));
    Add(kProductAlone, alone, [alone] { alone->Set("rows", kProductRows); }).one_thread = true;
    return {};
  }

  // Weights from memory, and from the last-level cache.
  Result<void> AddPasses() {
    struct Pass {
      int64_t steps, channels, megabytes;
      DType type;
      std::vector<int64_t> rows;
    };
    const auto add = [&](const std::string& name, Device& device, const Pass& p) -> Result<void> {
      const int64_t bytes = p.megabytes * kMegabyte;
      const int64_t count =
          std::max<int64_t>(1, bytes / isa::PackedBytes(p.channels, p.steps, p.type));
      TRY_ASSIGN(
          SmallProgram * pass,
          Load(device, ProductText({p.steps, p.channels, count, false}, p.type), 0, next_byte_));
      next_byte_ = (next_byte_ + pass_bytes_) % pool_bytes_;
      for (const int64_t rows : p.rows)
        Add(fmt::format("{}{} {} MB, {} rows", name, Name(p.type), p.megabytes, rows), pass,
            [pass, rows] { pass->Set("rows", rows); })
            .passes = bytes > pass_bytes_;
      return {};
    };
    const int64_t all = pool_bytes_ / kMegabyte;  // long ones: threads that come late do not count
    TRY(add("", *device_, {1024, 2048, all, DType::kBf16, {2, 4, 8}}));
    TRY(add("", *device_, {3072, 1024, all / 2, DType::kBf16, {16}}));
    TRY(add("", *device_, {1024, 2048, std::min<int64_t>(48, all), DType::kBf16, {32, 128}}));
    TRY(add("", *device_, {1024, 1024, all, DType::kF32, {1, 8}}));
    TRY(add("", *device_, {1024, 2048, all, DType::kQ8_0, {1, 8}}));
    TRY(add("", *device_, {1024, 2048, all, DType::kQ4_K, {1, 8}}));
    for (const int64_t megabytes : {4, 12, 24, 48}) {
      if (megabytes >= pass_bytes_ / kMegabyte) break;
      TRY(add("", *device_, {1024, 1024, megabytes, DType::kBf16, {1}}));
    }
    TRY(add("alone, ", *alone_, {1024, 1024, all, DType::kBf16, {1}}));
    points_.back().one_thread = true;
    return {};
  }

  // Wide and narrow products by turns, as in recommenders.
  Result<void> AddPerceptron() {
    constexpr int64_t kWidths[] = {24, 512, 256, 48, 384, 512, 256, 64, 16};
    TRY_ASSIGN(SmallProgram * layers, Load(*device_, PerceptronText(kWidths)));
    for (const int64_t rows : {1, 2, 4, 8, 12, 16, 32, 128})
      Add(fmt::format("perceptron, {} rows", rows), layers, [layers, rows] {
        layers->Set("rows", rows);
      }).weight = kModelWeight;
    return {};
  }

  // Memory that nobody has written is not there yet: writes one position of each page.
  Result<SmallProgram*> LoadAttention(bool attends, int64_t pages) {
    TRY_ASSIGN(SmallProgram * program, Load(*device_, AttentionText(attends), pages));
    constexpr int64_t kAtOnce = 1024;
    for (int64_t page = 0; page < pages; page += kAtOnce) {
      SetSequences(*program, std::min(kAtOnce, pages - page), 1, 0, page, pages);
      TRY(program->Run());
    }
    return program;
  }

  Result<void> AddAttention() {
    TRY_ASSIGN(SmallProgram * attention, LoadAttention(/*attends=*/true, pages_));
    TRY_ASSIGN(SmallProgram * append, LoadAttention(/*attends=*/false, pages_ / 4));
    for (const auto& [sequences, rows] : {std::pair<int64_t, int64_t>{16, 1}, {1, 128}})
      Add(fmt::format("append, {} of {} rows", sequences, rows), append,
          [this, append, sequences, rows] {
            SetSequences(*append, sequences, rows, 0, next_page_, (pages_ / 4));
            next_page_ = (next_page_ + sequences * ((rows + 15) / 16)) % (pages_ / 4);
          })
          .anew = true;
    struct Launch {
      int64_t sequences, rows, first;
    };
    for (const Launch& l :
         {Launch{1, 1, 63}, Launch{1, 1, 1023}, Launch{16, 1, 255}, Launch{8, 1, 1023},
          Launch{1, 32, 0}, Launch{1, 128, 0}, Launch{1, 128, 512}}) {
      const auto set = [this, attention, l] {
        SetSequences(*attention, l.sequences, l.rows, l.first, next_page_, pages_);
        next_page_ =
            (next_page_ + l.sequences * (l.first + l.rows) / isa::kPagePositions + 1) % pages_;
      };
      Add(fmt::format("attention, {} of {} rows at {}", l.sequences, l.rows, l.first), attention,
          set)
          .anew = true;
    }
    return {};
  }

  Result<void> AddRowWork() {
    TRY_ASSIGN(tiny_, Load(*device_, NormText(64, 64)));
    Add("tiny instructions", tiny_, [this] { tiny_->Set("rows", 1); });
    TRY_ASSIGN(SmallProgram * norm, Load(*device_, NormText(1024, 16)));
    for (const int64_t rows : {8, 512})
      Add(fmt::format("norm, {} rows", rows), norm, [norm, rows] { norm->Set("rows", rows); });
    TRY_ASSIGN(SmallProgram * copy, Load(*device_, CopyText(1024, 4)));
    for (const int64_t rows : {64, 2048})
      Add(fmt::format("copy, {} rows", rows), copy, [copy, rows] { copy->Set("rows", rows); });
    TRY_ASSIGN(SmallProgram * softmax, Load(*device_, SoftmaxText(1024, 4)));
    Add("softmax", softmax, [softmax] { softmax->Set("rows", 32); });
    for (const bool picks : {false, true}) {
      TRY_ASSIGN(SmallProgram * dots, Load(*device_, InteractionText(27, 16, picks)));
      for (const int64_t batch : {4, 32})
        Add(fmt::format("interaction{}, batch {}", picks ? " picked" : "", batch), dots,
            [dots, batch] { dots->Set("batch", batch); });
    }
    TRY_ASSIGN(SmallProgram * little, Load(*device_, CopyText(16, 32)));
    Add("tiny copies", little, [little] { little->Set("rows", 1); });
    return {};
  }

  Result<void> AddBags() {
    struct Case {
      int64_t rows, columns, items, batch;
      bool misses;
    };
    for (const Case& c :
         {Case{4096, 16, 1, 8, false}, Case{4096, 16, 1, 256, false},
          Case{4096, 16, 10, 256, false}, Case{32768, 16, 1, 1, false},
          Case{32768, 16, 1, 32, false}, Case{32768, 16, 1, 256, false},
          Case{pass_bytes_ / 64, 16, 1, 1, true}, Case{pass_bytes_ / 64, 16, 1, 32, true},
          Case{pass_bytes_ / 64, 16, 1, 256, true}, Case{pass_bytes_ / 512, 128, 4, 256, true}}) {
      constexpr int64_t kTables = 8;
      TRY_ASSIGN(SmallProgram * bags, Load(*device_, BagText(kTables, c.rows, c.columns, c.items)));
      Point& point =
          Add(fmt::format("bags of {}, {} of {}, batch {}", c.items, c.rows, c.columns, c.batch),
              bags, [this, bags, c] {
                SetIds(*bags, std::vector<int64_t>(kTables, c.rows), c.batch, c.items, rng_);
              });
      point.passes = c.misses;
      point.anew = c.rows > 4096;
    }
    return {};
  }

  // Together these take longer than one by one: each has the caches as the others leave them.
  Result<void> AddRecommender() {
    constexpr int64_t kFew = 64, kSome = 16384;
    const int64_t many = pass_bytes_ / 256;
    const std::vector<int64_t> rows = {kFew,  kSome, kSome, many,  kFew,  kSome,
                                       kSome, many,  kFew,  kSome, kSome, many};
    TRY_ASSIGN(SmallProgram * model, Load(*device_, RecommenderText(rows)));
    for (const int64_t batch : {1, 2, 4, 8, 16, 32}) {
      Point& point = Add(fmt::format("recommender, batch {}", batch), model,
                         [this, model, rows, batch] { SetIds(*model, rows, batch, 1, rng_); });
      point.anew = true;
      point.weight = kModelWeight;
    }
    return {};
  }

  Result<void> MeasurePoints() {
    const SystemClock clock;
    const int64_t start = clock.NowNs();
    std::vector<double> products, passes, long_products;
    for (Point& point : points_) point.ratios.clear();
    for (int round = 0;; ++round) {
      const double share =
          static_cast<double>(clock.NowNs() - start) * 1e-9 / std::max(options_.seconds, 1e-3);
      if (round > 0 && share >= 1) break;
      if (options_.progress) options_.progress(std::min(1.0, share));
      TRY(MeasureRound(products, passes));
      TRY_ASSIGN(long_products.emplace_back(), long_product_->Run());
    }
    TRY(MeasureLaunch());
    const double long_ratio = Quiet(long_products) / Quiet(products);
    speeds_ = {Median(products), Median(passes)};
    long_speeds_ = {long_ratio * speeds_.product_s, speeds_.pass_s};
    for (Point& point : points_)
      if (point.is_look)
        point.seconds = point.passes ? kPasses * speeds_.pass_s : speeds_.product_s;
      else
        point.seconds = Median(point.ratios) * (point.passes ? speeds_.pass_s : speeds_.product_s);
    return {};
  }

  // Each point between two looks at the machine's speed.
  Result<void> MeasureRound(std::vector<double>& products, std::vector<double>& passes) {
    double product_s = 0, pass_s = 0;  // the last looks
    for (Point& point : points_) {
      if (point.is_look) continue;
      double& last_s = point.passes ? pass_s : product_s;
      const auto look = [&]() -> Result<double> {
        if (!point.passes) return ProductTimes(kShortLook_s);
        TRY_ASSIGN(const double seconds, long_pass_->Run());
        return seconds / kPasses;
      };
      if (last_s == 0) {
        TRY_ASSIGN(last_s, look());
      }
      point.prepare();
      if (!point.passes) TRY(point.program->Run());  // so that caches hold what it works on
      const auto next = [&] {
        if (point.anew) point.prepare();
        return point.program;
      };
      TRY_ASSIGN(const double seconds, QuietOf(next, kPoint_s, point.passes ? 1 : 5));
      TRY_ASSIGN(const double after_s, look());
      point.ratios.push_back(2 * seconds / (std::exchange(last_s, after_s) + after_s));
      (point.passes ? passes : products).push_back(after_s);
      if (point.passes) product_s = 0;  // that was a while ago
    }
    return {};
  }

  // What a launch takes beside its instructions: its checks, and taking its inputs.
  Result<void> MeasureLaunch() {
    TRY_ASSIGN(SmallProgram * shared,
               Load(*device_, ProductText({512, 512, 2, true}, DType::kF32)));
    shared->Set("rows", 1);
    std::vector<double> times;
    for (int i = 0; i < 200; ++i) {
      TRY_ASSIGN(times.emplace_back(), shared->RunBeside());
    }
    launch_s_ = std::max(1e-8, Quiet(std::move(times)));
    return {};
  }

  // The template with what is known without a fit.
  Result<chip::Chip> Start() {
    TRY_ASSIGN(chip::Chip chip, chip::ReadChip("host"));
    chip.title = "This machine: " + ProcessorName();
    chip.note = "Measured by millpower probe; power, energy and price are assumed";
    chip.cores = Measured(options_.threads);
    chip.launch_s = Measured(Rounded(launch_s_));
    chip.sampling_s = {0, 0, 0, "sampling is an instruction of the Program", false};
    const double rate =
        2 *
        static_cast<double>(kProduct.steps * kProduct.channels * kProduct.count * kProductRows) /
        speeds_.product_s;
    chip.matrix[static_cast<size_t>(chip::MatrixType::kF32)].ops_per_s = Measured(rate);
    chip.matrix[static_cast<size_t>(chip::MatrixType::kInt8)].ops_per_s = Measured(2 * rate);
    chip.memory.bytes = Measured(static_cast<double>(UsableMemoryBytes()));
    chip.memory.bytes_per_s = Measured(static_cast<double>(pass_bytes_) / speeds_.pass_s);
    chip.memory.efficiency = {1, 1, 1, "the bandwidth is what kernels reach", false};
    const long own_cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (own_cache >= 64 * 1024)
      chip.scratchpad.bytes = {static_cast<double>(own_cache), static_cast<double>(own_cache),
                               static_cast<double>(own_cache), "the system: level 2 cache", false};
    return chip;
  }

  static std::string ProcessorName() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
      if (line.starts_with("model name") && line.contains(": "))
        return line.substr(line.find(": ") + 2, 100);
    return "unknown processor";
  }

  Result<Description> FitChip();

  const ProbeOptions options_;
  const int64_t pass_bytes_, pool_bytes_;
  const int64_t pages_;  // of KV that no cache holds
  std::optional<Pool> pool_;
  std::unique_ptr<Device> device_, alone_;
  std::vector<std::unique_ptr<SmallProgram>> programs_;  // destroyed before the devices
  SmallProgram* product_ = nullptr;
  SmallProgram* long_product_ = nullptr;
  SmallProgram* long_pass_ = nullptr;
  std::vector<SmallProgram*> passes_;  // each through another part of the pool
  size_t next_pass_ = 0;
  int64_t next_byte_ = 0;
  SmallProgram* tiny_ = nullptr;
  std::vector<Point> points_;
  Speeds speeds_, long_speeds_;
  double launch_s_ = 0;
  int64_t next_page_ = 0;
  Rng rng_{1};
};

// Moves the constants to where the sum over the points of ln(predicted / measured), squared but for
// outliers, is least.
Result<Description> ProberImpl::FitChip() {
  TRY_ASSIGN(chip::Chip chip, Start());
  auto& host = chip.fitted[chip::kHostKind];
  auto& weights = chip.fitted[chip::kHostWeightsKind];
  host.clear();
  weights.clear();
  auto& tables = chip.fitted[chip::kHostTablesKind];
  tables.clear();
  std::vector<Knob> knobs;
  std::vector<chip::Figure*> fitted;
  const auto own = [&](chip::Figure& figure, double start, double least, double most) {
    figure = Measured(start);
    knobs.push_back({&figure.value, least, most});
    fitted.push_back(&figure);
  };
  const auto threads = static_cast<double>(options_.threads);
  own(chip.matrix[static_cast<size_t>(chip::MatrixType::kF32)].ops_per_s,
      chip.matrix[static_cast<size_t>(chip::MatrixType::kF32)].ops_per_s.value, 1e7, 1e16);
  own(chip.matrix[static_cast<size_t>(chip::MatrixType::kInt8)].ops_per_s,
      chip.matrix[static_cast<size_t>(chip::MatrixType::kInt8)].ops_per_s.value, 1e7, 1e16);
  own(chip.memory.bytes_per_s, chip.memory.bytes_per_s.value, 1e7, 1e14);
  own(chip.cache.bytes, 32e6, 1e6, 120e6);
  own(chip.cache.bytes_per_s, 3 * chip.memory.bytes_per_s.value, 1e7, 1e14);
  // Bounds of this and of load_rows: a small cache would explain what loading costs, and loading
  // what a small cache does.
  own(chip.scratchpad.bytes, chip.scratchpad.bytes.value, chip.scratchpad.bytes.value,
      chip.scratchpad.bytes.value * 4);
  own(chip.scratchpad.bytes_per_s, 6 * chip.memory.bytes_per_s.value, 1e7, 1e14);
  own(chip.vector_ops_per_s, 30e9, 1e7, 1e15);
  own(chip.special_ops_per_s, 2e9, 1e6, 1e15);
  own(chip.issue_s, 1e-7, 1e-9, 1e-4);
  own(host["meet_s"], 1e-6, 1e-8, 1e-3);
  own(host["overlap_power"], 4, 1.2, 12);
  own(host["attention_efficiency"], 0.9, 0.05, 3);
  own(host["segment_s"], 1e-7, 1e-10, 1e-4);
  own(host["memory_power"], 3, 2, 8);
  own(host["append_s"], 2e-9, 1e-12, 1e-6);
  own(host["contract_efficiency"], 0.3, 0.001, 3);
  own(host["tensor_s"], 1e-7, 1e-9, 1e-4);
  own(host["finish_steps"], 15, 5, 40);
  own(host["exchange_s"], 2e-10, 1e-12, 1e-8);
  own(chip.memory.latency_s, 1e-7, 1e-8, 2e-6);
  own(chip.cache.latency_s, 3e-8, 1e-9, 1e-6);
  own(tables["bag_s"], 1e-8, 1e-10, 1e-5);
  own(tables["item_s"], 1e-8, 1e-10, 1e-5);
  own(tables["far_s"], 1e-8, 1e-10, 1e-5);
  own(tables["miss_s"], 2e-8, 1e-10, 1e-5);
  for (const char* type : {"bf16", "f32", "q8_0", "q4_0", "q4_k", "q6_k"})
    own(weights[std::string("load_rows_") + type], 2, 0.5, 100);
  for (const char* type : {"q4_0", "q4_k", "q6_k"})
    own(weights[std::string("efficiency_") + type], 0.9, 0.01, 3);
  // Of one thread, as measured.
  const auto seconds_of = [&](const std::string& name) {
    const auto found = std::ranges::find(points_, name, &Point::name);
    CHECK(found != points_.end()) << name;
    return found->seconds;
  };
  host["thread_share"] = Measured(
      Rounded(std::clamp(speeds_.product_s / seconds_of(kProductAlone), 1 / threads, 1.0)));
  host["thread_memory_share"] = Measured(Rounded(
      std::clamp(kPasses * speeds_.pass_s /
                     seconds_of(fmt::format("alone, bf16 {} MB, 1 rows", pool_bytes_ / kMegabyte)),
                 1 / threads, 1.0)));

  std::optional<Error> error;
  const auto off = [&](Point& point) {
    const auto predicted = point.program->Predict(chip, point.sizes);
    if (!predicted) {
      error = predicted.error();
      return 0.0;
    }
    return std::log(*predicted / point.seconds);
  };
  Fit(knobs, [&] {
    double sum = 0;
    for (Point& point : points_) {
      if (point.one_thread) continue;
      const double e = std::abs(off(point));
      sum += point.weight * (e < kOutlier ? e * e : kOutlier * (2 * e - kOutlier));
    }
    return sum;
  });
  if (error) return std::unexpected(*error);
  Description description;
  for (Point& point : points_) {
    if (point.one_thread) continue;
    const double e = off(point);
    description.points.push_back({point.name, point.seconds, point.seconds * std::exp(e)});
    description.fit_error += std::abs(e);
  }
  description.fit_error /= static_cast<double>(description.points.size());
  for (chip::Figure* figure : fitted) *figure = Measured(Rounded(figure->value));
  chip.matrix[static_cast<size_t>(chip::MatrixType::kBf16)].ops_per_s =
      chip.matrix[static_cast<size_t>(chip::MatrixType::kF32)].ops_per_s;
  description.toml = chip::ToToml(chip);
  TRY_ASSIGN(const chip::Chip parsed, chip::ParseChip(description.toml, "the probe's description"));
  description.chip = parsed.At(chip::Bound::kValue);
  description.short_speeds = speeds_;
  description.long_speeds = long_speeds_;
  return description;
}

}  // namespace

Result<std::unique_ptr<Prober>> Prober::Make(const ProbeOptions& options) {
  auto prober = std::make_unique<ProberImpl>(options);
  TRY(prober->Prepare());
  return prober;
}

chip::Chip AtSpeeds(const Description& description, const Speeds& now, double step_s) {
  chip::Chip chip = description.chip;
  const Speeds& then = step_s < kLong_s ? description.short_speeds : description.long_speeds;
  const double cores = now.product_s / then.product_s;
  const double memory = now.pass_s / then.pass_s;
  for (chip::MatrixEngine& engine : chip.matrix) engine.ops_per_s.value /= cores;
  for (chip::Figure* rate : {&chip.vector_ops_per_s, &chip.special_ops_per_s,
                             &chip.cache.bytes_per_s, &chip.scratchpad.bytes_per_s})
    rate->value /= cores;
  chip.issue_s.value *= cores;
  chip.launch_s.value *= cores;
  chip.cache.latency_s.value *= cores;
  chip.memory.bytes_per_s.value /= memory;
  chip.memory.latency_s.value *= memory;
  for (const char* kind : {chip::kHostKind, chip::kHostTablesKind})
    for (auto& [name, figure] : chip.fitted[kind]) {
      if (name == "miss_s" || name == "append_s")  // by how fast memory is
        figure.value *= memory;
      else if (name.ends_with("_s"))
        figure.value *= cores;
    }
  return chip;
}

}  // namespace millpower::device::probe
