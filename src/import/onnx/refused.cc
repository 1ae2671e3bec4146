// Operators that will not be supported, and why: said at load instead of a mere "unknown".
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

struct Refused {
  const char* name;
  const char* why;
};

constexpr const char* kDataDependent = "its output's size depends on the data";
constexpr const char* kRandom = "it is random";
constexpr const char* kStrings = "works on strings";

constexpr Refused kRefused[] = {
    {"NonZero", kDataDependent},
    {"Unique", kDataDependent},
    {"Compress", kDataDependent},
    {"NonMaxSuppression", kDataDependent},
    {"RandomNormal", kRandom},
    {"RandomNormalLike", kRandom},
    {"RandomUniform", kRandom},
    {"RandomUniformLike", kRandom},
    {"Bernoulli", kRandom},
    {"Multinomial", kRandom},
    {"StringConcat", kStrings},
    {"StringSplit", kStrings},
    {"StringNormalizer", kStrings},
    {"RegexFullMatch", kStrings},
    {"TfIdfVectorizer", kStrings},
    {"ImageDecoder", "decodes files"},
    {"BitCast", "reads a type's bits as another's"},
};

}  // namespace

const char* WhyRefused(const std::string& domain, const std::string& name) {
  if (domain == "ai.onnx.preview.training") return "training is not supported";
  if (!domain.empty()) return nullptr;
  for (const Refused& refused : kRefused)
    if (name == refused.name) return refused.why;
  return nullptr;
}

}  // namespace millpower::import::onnx
