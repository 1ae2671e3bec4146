// Answers requests to models of tensors - recommenders above all - that are loaded on one device:
// several models, several versions of each. Requests that come together share launches (dynamic
// batching): along the batch symbol, ragged inputs too. See docs/ranking.md.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "device/device.h"
#include "isa/package.h"
#include "ranking/signature.h"

namespace millpower::ranking {

// ---- Requests

struct InputTensor {
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes = {};       // row-major, little-endian, of the port's dtype
  std::vector<std::string_view> strings = {};  // of a string port instead
};

struct Request {
  std::vector<InputTensor> inputs;              // by Signature::inputs
  std::shared_ptr<const void> owner = nullptr;  // keeps alive what the tensors view
  device::LaunchClass launch_class = 0;         // lower ones go first
  std::string caller = {};                      // for whom, among those who share the device
  int64_t deadline_ns = 0;  // of the engine's clock: not begun by then, it is refused; 0: none
  // Set to true by whoever no longer wants the answer: it is not begun then. May be null.
  std::shared_ptr<const std::atomic<bool>> cancelled = nullptr;
};

struct OutputTensor {
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // as those of inputs
};

struct Answer {
  std::vector<OutputTensor> outputs;  // by Signature::outputs
  std::shared_ptr<const void> owner;  // of their bytes, which other answers may share: let go soon
  int64_t rows = 1;                   // of the request along the batch symbol; 1 without one
  int64_t device_ns = 0;              // its rows' part of the launch's time
  int64_t energy_uj = 0;              // likewise of its modelled energy, in microjoules
};

// Called once for every request that was accepted, on the model's own thread or that of Unload;
// must not block, nor call Load, Unload or UpdateRows.
// Errors: kInvalidArgument (an index out of range that the model refuses), kDeadline, kCancelled,
// kUnavailable (unloaded before it began), kNoCapacity (no memory for its launch), the device's.
using Callback = std::function<void(Result<Answer>)>;

// ---- Models

struct ModelConfig {
  int64_t max_batch = 0;           // rows of one launch; 0: the batch symbol's bound; never above
  int64_t max_queue_delay_us = 0;  // how long a request may wait for others to share its launch
  int64_t max_queue = 1024;        // requests that wait, before more are refused
  int64_t max_queue_bytes = 1 << 30;  // of their inputs, likewise
  // Launches before it is ready, of one row and more, up to max_batch or a few milliseconds each.
  bool warm_up = true;
};

struct Loading {
  std::string name;
  int64_t version = 1;                          // > 0
  std::shared_ptr<const isa::Program> program;  // verified
  isa::BoundWeights weights;
  Signature signature;
  ModelConfig config = {};
};

// A model that has its place on the device, before its first launch.
class Runner;
using Prepared = std::shared_ptr<Runner>;

// An embedding table whose rows UpdateRows changes.
struct Table {
  std::string name;  // of the weight
  int64_t rows = 0, columns = 0;
  DType dtype = DType::kF32;  // i8 and i4 have a scale for each row
};

// A version of a model that is, or was, loaded. Immutable.
struct Model {
  std::string name;
  int64_t version = 1;
  int64_t loaded_unix_s = 0;
  Signature signature;
  ModelConfig config;                   // max_batch as it is
  bool joins = false;                   // whether requests share launches
  std::map<std::string, int64_t> most;  // bounds of the symbols
  int64_t weights_bytes = 0;
  std::vector<Table> tables;  // in the Program's order
};
using ModelPtr = std::shared_ptr<const Model>;

// How many rows a request has along the batch symbol, by the shapes of its inputs; 1 without one,
// or where they do not tell. Whether the shapes fit otherwise is Submit's business. Errors:
// kInvalidArgument (a shape that no number of rows gives), kOutOfRange (more than a launch takes);
// the input is the param.
Result<int64_t> RowsOf(const Model& model, std::span<const InputTensor> inputs);

// New values for rows of an embedding table.
struct RowUpdate {
  std::string table;              // Table::name
  std::vector<int64_t> rows;      // each once
  std::span<const float> values;  // [rows, columns], rounded to the table's number format
};

// ---- What is measured

struct Timing {
  int64_t count = 0;
  int64_t ns = 0;
};

// Counts of durations, by power of two: bucket i has those below 2^i microseconds that are in no
// bucket before, the last all others.
inline constexpr int kDurationBuckets = 26;  // up to 2^24 us, 17 seconds
struct Durations {
  std::array<int64_t, kDurationBuckets> buckets{};
  Timing total;
};

struct ModelStats {
  Timing success, fail;           // of requests, from Submit to the callback
  Timing queue;                   // until their launch began to be put together
  Timing input, compute, output;  // of launches: putting together, the device, taking apart
  int64_t rows = 0;               // answered well
  int64_t launches = 0;
  int64_t cancelled = 0, expired = 0;     // among `fail`
  int64_t refused = 0;                    // not accepted
  int64_t repeated_launches = 0;          // to find the culprit of a fault
  Timing faulted;                         // launches that ended in an error; time of the device
  int64_t updates = 0, updated_rows = 0;  // of tables
  int64_t refused_updates = 0;
  int64_t waiting = 0, waiting_bytes = 0;  // now
  int64_t last_unix_ms = 0;                // the last answer
  int64_t device_ns = 0;
  std::map<int64_t, Timing> by_batch;  // launches by their rows: how many, and compute
  Durations queue_durations, request_durations;
};

// A tenant's lease, as a share of the device's time.
struct Share {
  std::string caller;
  double share = 0;
};

// How long requests to a version may run on once another has taken its place.
inline constexpr int64_t kReplacedTimeoutNs = 30'000'000'000;

// ---- The engine. Thread-safe.
class Engine {
 public:
  // Both outlive it.
  Engine(device::Device& device, const Clock& clock);
  // Unloads everything at once.
  ~Engine();

  // Prepare and Start.
  Result<ModelPtr> Load(Loading model);

  // What of loading disturbs nobody: by a thread of low priority, if need be. Errors:
  // CheckSignature's; the device's; kInvalidArgument (a config beyond the Program's bounds).
  Result<Prepared> Prepare(Loading model);

  // Returns when the model is ready, having warmed up, which uses the device as requests do. It
  // replaces a version of the same name and number, which is unloaded as by Unload. Errors: the
  // device's.
  Result<ModelPtr> Start(const Prepared& model);

  // New requests do not find it; those that wait are answered within `timeout_ns`, and what is left
  // then gets kUnavailable. Returns when its memory is free. `version` 0: all. Errors: kNotFound.
  Result<void> Unload(const std::string& name, int64_t version, int64_t timeout_ns);

  // `version` 0: the highest. Errors, with "model" as param: kNotFound.
  Result<ModelPtr> Find(const std::string& name, int64_t version = 0) const;
  std::vector<ModelPtr> All() const;  // by name and version

  // Checks the request against the signature, does its lookups, and queues it; does not wait.
  // Errors, after which there is no callback: kInvalidArgument (param names the input); kOutOfRange
  // (more rows than a launch takes); kNoCapacity (the queue is full); kUnavailable (unloaded);
  // kDeadline (it is over already).
  Result<void> Submit(const ModelPtr& model, Request request, Callback callback);

  // Changes rows of a table between two launches: a launch sees all of them or none. Returns when
  // done. The rows change in memory only, where the table is: its file stays as it was. Errors, of
  // which each names the first fault and leaves the table alone: kNotFound (param "model",
  // "table"), kInvalidArgument (rows out of range or given twice, another number of values, values
  // that are not finite, or too large for the table's format), kUnavailable (it is being unloaded),
  // kUnsupported (the table's memory cannot be written).
  Result<void> UpdateRows(const ModelPtr& model, const RowUpdate& update);

  ModelStats Stats(const ModelPtr& model) const;  // zeros once it is unloaded

  // Whose launches get which part of the device's time; others share the rest equally.
  void SetShares(std::vector<Share> shares);

  const Clock& clock() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::ranking
