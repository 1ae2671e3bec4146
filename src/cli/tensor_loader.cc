#include "cli/tensor_loader.h"

#include <algorithm>

#include "base/json.h"
#include "base/threads.h"
#include "cli/loader.h"
#include "cli/progress.h"
#include "import/tensor/published.h"
#include "ir/rows.h"

namespace millpower::cli {
namespace {

std::vector<Size> SizesOf(const ir::Shape& shape) {
  std::vector<Size> sizes;
  for (const ir::Dim& dim : shape) sizes.push_back(ir::SizeOf(dim));
  return sizes;
}

// The symbol that counts a request's rows: the one that the outputs begin with.
std::string BatchSymbol(const import::TensorModel& model) {
  for (const import::Port& port : model.outputs) {
    if (port.shape.empty() || port.shape[0].symbol.empty()) continue;
    const std::vector<std::string> symbols = ir::SizeOf(port.shape[0]).Symbols();
    if (symbols.size() == 1) return symbols.front();
  }
  return "";
}

ranking::Signature SignatureOf(const import::TensorModel& model, std::vector<std::string>& notes) {
  ranking::Signature signature;
  signature.format = model.format;
  signature.batch = BatchSymbol(model);
  ir::RowAnalysis rows;
  if (!signature.batch.empty()) rows = ir::AnalyseRows(model.graph, signature.batch);
  signature.rows_are_independent = rows.independent;
  if (!signature.batch.empty() && !rows.independent)
    notes.push_back("requests are answered one by one: rows of '" + signature.batch +
                    "' may depend on each other (" + rows.why_not + ")");
  for (const import::Port& port : model.inputs) {
    ranking::Port& in = signature.inputs.emplace_back();
    in.name = port.name;
    in.dtype = port.dtype;
    in.is_string = port.is_string;
    in.shape = SizesOf(port.shape);
    in.id_policy = port.id_policy;
    const bool looked_up = std::ranges::any_of(
        model.prologue, [&](const import::Lookup& lookup) { return lookup.value == port.value; });
    if (!looked_up) in.buffer = port.value;
    if (const auto cut = rows.offsets_of.find(port.value); cut != rows.offsets_of.end())
      for (const std::string& value : cut->second)
        for (const import::Port& items : model.inputs)
          if (items.value == value) in.offsets_of.push_back(items.name);
  }
  for (const import::Port& port : model.outputs) {
    ranking::Port& out = signature.outputs.emplace_back();
    out.name = port.name;
    out.dtype = port.dtype;
    out.shape = SizesOf(port.shape);
    out.buffer = port.value;
  }
  for (const import::Lookup& lookup : model.prologue) {
    ranking::Lookup& entry = signature.prologue.emplace_back();
    entry.input = lookup.input;
    entry.buffer = lookup.value;
    entry.keys = lookup.keys;
    entry.values = lookup.values;
    entry.otherwise = lookup.otherwise;
    entry.buckets = lookup.buckets;
    entry.bucket_base = lookup.bucket_base;
  }
  return signature;
}

Result<LoadedTensorModel> Mapped(const std::filesystem::path& path,
                                 const TensorLoadOptions& options) {
  ProgressLine progress("checking weights", options.show_progress);
  TRY_ASSIGN(isa::Package package, isa::ReadPackage(path, std::ref(progress)));
  const auto text = package.texts.find(ranking::kSignatureText);
  if (text == package.texts.end())
    return Fail(ErrorCode::kUnsupported, path.string() + " is not a model of tensors");
  TRY_ASSIGN(const Json json, ParseJson(text->second));
  LoadedTensorModel model;
  TRY_ASSIGN(model.signature, ranking::SignatureFromJson(json));
  model.program = std::make_shared<const isa::Program>(std::move(package.program));
  model.weights = std::move(package.weights);
  return model;
}

// `source`: where it is from, for errors.
Result<ImportedTensorModel> Compiled(import::TensorModel files, const std::string& source,
                                     const TensorLoadOptions& options) {
  ImportedTensorModel model;
  model.notes = std::move(files.notes);
  model.signature = SignatureOf(files, model.notes);
  model.graph_text = ir::ToText(files.graph);
  auto compiled = compile::Compile(files.graph, options.compile);
  if (!compiled) return FailAt(source, compiled.error());
  model.compiled = *std::move(compiled);
  if (const auto fits = ranking::CheckSignature(model.signature, model.compiled.program); !fits)
    return FailAt(source, fits.error());
  model.texts = {{ranking::kSignatureText, DumpJson(ranking::ToJson(model.signature))},
                 {"source", source}};
  model.weights = std::move(files.weights);
  model.operators = std::move(files.operators);
  return model;
}

}  // namespace

Result<ImportedTensorModel> ImportTensorModel(const std::filesystem::path& path,
                                              const TensorLoadOptions& options) {
  TRY_ASSIGN(import::TensorModel files, import::OpenTensorModel(path, options.import));
  return Compiled(std::move(files), path.string(), options);
}

Result<TensorShape> LoadTensorShape(const std::string& path_or_name,
                                    const TensorLoadOptions& options) {
  const import::PublishedRecommender* published = import::FindPublishedRecommender(path_or_name);
  if (published == nullptr && isa::IsPackage(path_or_name)) {
    TRY_ASSIGN(LoadedTensorModel mapped, Mapped(path_or_name, options));
    return TensorShape{std::move(mapped.program), std::move(mapped.signature)};
  }
  ImportedTensorModel model;
  if (published != nullptr) {
    TRY_ASSIGN(import::TensorModel built,
               import::BuildPublishedRecommender(*published, options.import));
    TRY_ASSIGN(model, Compiled(std::move(built), published->name, options));
  } else {
    TRY_ASSIGN(model, ImportTensorModel(path_or_name, options));
  }
  return TensorShape{std::make_shared<const isa::Program>(std::move(model.compiled.program)),
                     std::move(model.signature)};
}

Result<LoadedTensorModel> LoadTensorModel(const std::filesystem::path& path,
                                          const TensorLoadOptions& options) {
  LoadedTensorModel model;
  if (isa::IsPackage(path)) {
    if (!options.import.id_policies.empty())
      return Fail(ErrorCode::kUnsupported,
                  path.string() +
                      " is compiled: what ids of its inputs do was settled then; give "
                      "--feature to compile",
                  "feature");
    TRY_ASSIGN(model, Mapped(path, options));
    model.name = DefaultModelName(path);
    return model;
  }
  TRY_ASSIGN(ImportedTensorModel imported, ImportTensorModel(path, options));
  ThreadTeam team(options.threads);
  ProgressLine progress("packing weights", options.show_progress);
  const auto tell = [&](int64_t done, int64_t total) {
    progress(done, total);
    if (options.on_progress) options.on_progress(done, total);
  };
  TRY_ASSIGN(model.weights,
             compile::PackAll(imported.compiled.program, imported.compiled.packing,
                              *imported.weights, team, tell, {.share_tables = true}));
  model.program = std::make_shared<const isa::Program>(std::move(imported.compiled.program));
  model.signature = std::move(imported.signature);
  model.notes = std::move(imported.notes);
  model.name = DefaultModelName(path);
  return model;
}

bool IsTensorModelPath(const std::filesystem::path& path) {
  if (!isa::IsPackage(path)) return import::IsTensorModel(path);
  const auto texts = isa::ReadTexts(path);
  return texts && texts->contains(ranking::kSignatureText);
}

}  // namespace millpower::cli
