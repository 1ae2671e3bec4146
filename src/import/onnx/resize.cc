// Resizing by interpolation, and grids of places to sample at.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

// How one axis is resized; github.com/onnx/onnx, docs/Operators.md, Resize.
struct Axis {
  int axis = 0;
  int64_t in = 1, out = 1;
  double scale = 1;
  double roi_begin = 0, roi_end = 1;
};

struct Settings {
  std::string mode, coordinates, nearest;
  double cubic_a = -0.75;
  bool excludes_outside = false, antialias = false;
};

double Original(const Settings& s, const Axis& a, int64_t i) {
  const auto x = static_cast<double>(i), in = static_cast<double>(a.in);
  const double resized = a.scale * in;  // not rounded, as align_corners has it
  if (s.coordinates == "half_pixel") return (x + 0.5) / a.scale - 0.5;
  if (s.coordinates == "pytorch_half_pixel") return resized > 1 ? (x + 0.5) / a.scale - 0.5 : 0;
  if (s.coordinates == "align_corners") return resized == 1 ? 0 : x * (in - 1) / (resized - 1);
  if (s.coordinates == "half_pixel_symmetric") {
    const double adjustment = static_cast<double>(a.out) / resized;
    return in / 2 * (1 - adjustment) + (x + 0.5) / a.scale - 0.5;
  }
  if (s.coordinates == "tf_crop_and_resize") {
    if (a.out == 1) return 0.5 * (a.roi_begin + a.roi_end) * (in - 1);
    return a.roi_begin * (in - 1) +
           x * (a.roi_end - a.roi_begin) * (in - 1) / (static_cast<double>(a.out) - 1);
  }
  return x / a.scale;  // asymmetric
}

double Rounded(const Settings& s, double x) {
  if (s.nearest == "floor") return std::floor(x);
  if (s.nearest == "ceil") return std::ceil(x);
  if (s.nearest == "round_prefer_ceil") return std::floor(x + 0.5);
  return std::ceil(x - 0.5);
}

// Weights of the neighbours at distance x: a triangle, or Keys' cubic convolution kernel.
double Kernel(const Settings& s, double x) {
  x = std::abs(x);
  if (s.mode == "linear") return std::max(1 - x, 0.0);
  const double a = s.cubic_a;
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

// Row i of the matrix that resizes an axis.
void AddRow(const Settings& s, const Axis& a, int64_t i, std::vector<double>& matrix) {
  double* row = matrix.data() + i * a.in;
  const double x = Original(s, a, i);
  const auto last = static_cast<double>(a.in - 1);
  if (s.mode == "nearest") {
    row[static_cast<int64_t>(std::clamp(Rounded(s, x), 0.0, last))] = 1;
    return;
  }
  const double narrow = s.antialias ? std::min(a.scale, 1.0) : 1;
  const double radius = (s.mode == "linear" ? 1 : 2) / narrow;
  double total = 0;
  for (double at = std::ceil(x - radius); at <= x + radius; ++at) {
    if (s.excludes_outside && (at < 0 || at > last)) continue;
    const double weight = Kernel(s, (at - x) * narrow);
    row[static_cast<int64_t>(std::clamp(at, 0.0, last))] += weight;
    total += weight;
  }
  if (total == 0) return;
  for (int64_t j = 0; j < a.in; ++j) row[j] /= total;
}

constexpr int64_t kMaxMatrix = int64_t{1} << 24;

Result<Tensor> ResizeAxis(Node& n, const Settings& s, const Axis& a, Tensor x) {
  if (s.mode == "nearest" && a.out <= kMaxKnown) {
    std::vector<Size> places;
    for (int64_t i = 0; i < a.out; ++i) {
      const double place = Rounded(s, Original(s, a, i));
      places.push_back(
          Size(static_cast<int64_t>(std::clamp(place, 0.0, static_cast<double>(a.in - 1)))));
    }
    return n.b.Take(x, n.b.Sizes(places), a.axis);
  }
  if (a.in > kMaxMatrix / a.out) return Unsupported("an axis that is so long");
  std::vector<double> matrix(static_cast<size_t>(a.in * a.out));
  for (int64_t i = 0; i < a.out; ++i) AddRow(s, a, i, matrix);
  return n.b.TransformAxis(x, a.axis, matrix, a.out);
}

Result<Settings> ReadSettings(Node& n, bool is_old) {
  Settings s;
  s.mode = n.Text("mode", "nearest");
  if (s.mode == "bilinear") s.mode = "linear";
  s.coordinates = is_old ? "asymmetric" : n.Text("coordinate_transformation_mode", "half_pixel");
  s.nearest = is_old ? "floor" : n.Text("nearest_mode", "round_prefer_floor");
  s.cubic_a = n.Real("cubic_coeff_a", -0.75);
  s.excludes_outside = n.Int("exclude_outside", 0) != 0;
  s.antialias = n.Int("antialias", 0) != 0;
  if (s.mode != "nearest" && s.mode != "linear" && s.mode != "cubic")
    return Unsupported("mode '" + s.mode + "'");
  for (const char* known : {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
                            "half_pixel_symmetric", "tf_crop_and_resize"})
    if (s.coordinates == known) return s;
  return Unsupported("coordinate_transformation_mode '" + s.coordinates + "'");
}

// Sizes that are wanted, or what becomes of them when x is to keep its proportions.
Result<void> FitSizes(Node& n, std::vector<int64_t> sizes, std::vector<Axis>& axes) {
  if (sizes.size() != axes.size()) return Invalid("sizes are not one for each axis");
  const std::string policy = n.Text("keep_aspect_ratio_policy", "stretch");
  for (size_t i = 0; i < axes.size(); ++i)
    axes[i].scale = static_cast<double>(sizes[i]) / static_cast<double>(axes[i].in);
  if (policy != "stretch") {
    const auto [least, most] =
        std::ranges::minmax(axes, {}, [](const Axis& axis) { return axis.scale; });
    const double scale = policy == "not_larger" ? least.scale : most.scale;
    for (size_t i = 0; i < axes.size(); ++i) {
      axes[i].scale = scale;
      sizes[i] = static_cast<int64_t>(std::floor(scale * static_cast<double>(axes[i].in) + 0.5));
    }
  }
  for (size_t i = 0; i < axes.size(); ++i) axes[i].out = sizes[i];
  return {};
}

Result<void> FitScales(const std::vector<double>& scales, std::vector<Axis>& axes) {
  if (scales.size() != axes.size()) return Invalid("scales are not one for each axis");
  for (size_t i = 0; i < axes.size(); ++i) {
    axes[i].scale = scales[i];
    const double out = std::floor(static_cast<double>(axes[i].in) * scales[i]);
    axes[i].out = out >= 1 && out < 1e9 ? static_cast<int64_t>(out) : 0;
  }
  return {};
}

// Symbolic axes may only stay as they are.
Result<std::vector<Axis>> ReadAxes(Node& n, const std::vector<int>& which) {
  std::vector<Axis> axes;
  for (const int axis : which) {
    Axis one;
    one.axis = axis;
    one.in = n.b.dim(n.in(0), axis).Constant().value_or(-1);
    axes.push_back(one);
  }
  return axes;
}

Result<Tensor> ResizeAll(Node& n, const Settings& s, const std::vector<Axis>& axes) {
  Tensor x = n.in(0);
  const DType type = n.b.dtype(x);
  if (s.mode != "nearest" && !IsFloat(type)) {
    TRY_ASSIGN(x, n.b.Cast(x, DType::kF32));
  }
  for (const Axis& axis : axes) {
    if (axis.scale == 1 && s.coordinates != "tf_crop_and_resize") continue;
    if (axis.in < 1) return Unsupported("an axis of symbolic size is resized");
    if (axis.out < 1 || !(axis.scale > 0)) return Invalid("a size or scale is not positive");
    if (axis.in == axis.out && axis.scale == 1 && s.coordinates == "asymmetric") continue;
    TRY_ASSIGN(x, ResizeAxis(n, s, axis, x));
  }
  return n.b.Cast(x, type);
}

Result<void> ReadRegion(Node& n, std::vector<Axis>& axes) {
  TRY_ASSIGN(const std::vector<double> roi, n.Reals(1, "the region"));
  if (roi.size() != 2 * axes.size()) return Invalid("the region is not two for each axis");
  for (size_t i = 0; i < axes.size(); ++i) {
    axes[i].roi_begin = roi[i];
    axes[i].roi_end = roi[i + axes.size()];
    const Settings crop{"linear", "tf_crop_and_resize", ""};
    if (axes[i].in < 1) continue;
    for (const int64_t at : {int64_t{0}, axes[i].out - 1}) {
      const double x = Original(crop, axes[i], at);
      if (x < 0 || x > static_cast<double>(axes[i].in - 1))
        return Unsupported("a region that leaves the image");
    }
  }
  return {};
}

Result<Tensor> Resize(Node& n) {
  const int rank = n.b.rank(n.in(0));
  const bool is_old = n.version() < 11;
  TRY_ASSIGN(const Settings settings, ReadSettings(n, is_old));
  std::vector<int64_t> which(static_cast<size_t>(rank));
  std::iota(which.begin(), which.end(), 0);
  TRY_ASSIGN(const std::vector<int> checked, n.CheckedAxes(n.Ints("axes", which), rank));
  TRY_ASSIGN(std::vector<Axis> axes, ReadAxes(n, checked));
  if (n.has(3)) {
    auto sizes = n.Integers(3, "sizes");
    const auto declared = n.DeclaredShape(0);
    if (!sizes && declared && static_cast<int>(declared->size()) == rank &&
        n.Text("keep_aspect_ratio_policy", "stretch") == "stretch") {
      sizes = std::vector<int64_t>();
      for (const int axis : checked) sizes->push_back((*declared)[static_cast<size_t>(axis)].size);
      n.NoteDeclared("a size");
    }
    if (!sizes) return std::unexpected(sizes.error());
    TRY(FitSizes(n, *sizes, axes));
  } else {
    TRY_ASSIGN(const std::vector<double> scales, n.Reals(is_old ? 1 : 2, "scales"));
    TRY(FitScales(scales, axes));
  }
  if (settings.coordinates == "tf_crop_and_resize") {
    TRY(ReadRegion(n, axes));
  }
  return ResizeAll(n, settings, axes);
}

Result<Tensor> Upsample(Node& n) {
  TRY_ASSIGN(const Settings settings, ReadSettings(n, true));
  std::vector<int> all(static_cast<size_t>(n.b.rank(n.in(0))));
  std::iota(all.begin(), all.end(), 0);
  TRY_ASSIGN(std::vector<Axis> axes, ReadAxes(n, all));
  std::vector<double> scales = n.Reals("scales");
  if (n.version() >= 9) {
    TRY_ASSIGN(scales, n.Reals(1, "scales"));
  }
  TRY(FitScales(scales, axes));
  return ResizeAll(n, settings, axes);
}

// ---- grids ----

// Coordinates of `size` places over [-1, 1]: at their centres, or from edge to edge.
std::vector<double> Places(int64_t size, bool aligns_corners) {
  std::vector<double> places;
  for (int64_t i = 0; i < size; ++i) {
    const auto at = static_cast<double>(i), count = static_cast<double>(size);
    if (aligns_corners)
      places.push_back(size == 1 ? 0 : -1 + 2 * at / (count - 1));
    else
      places.push_back(-1 + (2 * at + 1) / count);
  }
  return places;
}

// theta [n, d, d + 1] at every place of an image of `size` [n, c, ...] -> [n, ..., d]
Result<Tensor> AffineGrid(Node& n) {
  const Tensor theta = n.in(0);
  std::vector<int64_t> spatial;
  if (auto known = n.Integers(1, "the size")) {
    if (known->size() < 4) return Invalid("the size is of no image");
    spatial.assign(known->begin() + 2, known->end());
  } else {
    const auto declared = n.DeclaredShape(0);
    if (!declared || declared->size() < 4) return std::unexpected(known.error());
    for (size_t i = 1; i + 1 < declared->size(); ++i) spatial.push_back((*declared)[i].size);
    n.NoteDeclared("a size");
  }
  const auto count = ElementsOf(spatial);
  if (!count || *count < 1 || *count > kMaxMatrix) return Invalid("the size is out of range");
  const size_t dims = spatial.size();
  const bool aligns = n.Int("align_corners", 0) != 0;
  std::vector<double> base(static_cast<size_t>(*count) * (dims + 1), 1);
  int64_t inner = *count;
  for (size_t d = 0; d < dims; ++d) {
    inner /= spatial[d];
    const std::vector<double> places = Places(spatial[d], aligns);
    // x, the last axis, comes first.
    for (int64_t i = 0; i < *count; ++i)
      base[static_cast<size_t>(i) * (dims + 1) + dims - 1 - d] =
          places[static_cast<size_t>(i / inner % spatial[d])];
  }
  const DType type = n.b.dtype(theta);
  TRY_ASSIGN(const Tensor points,
             n.b.Constant(type, {*count, static_cast<int64_t>(dims + 1)}, ToBytes(type, base)));
  TRY_ASSIGN(const Tensor rows, n.b.Contract(points, theta, false, true));
  std::vector<Size> shape = {n.b.dim(theta, 0)};
  shape.insert(shape.end(), spatial.begin(), spatial.end());
  shape.push_back(Size(static_cast<int64_t>(dims)));
  return n.b.Reshape(rows, shape);
}

constexpr Operator kOperators[] = {
    {"", "Resize", One<Resize>},
    {"", "Upsample", One<Upsample>},
    {"", "AffineGrid", One<AffineGrid>, 2},
};

}  // namespace

std::span<const Operator> ResizeOperators() { return kOperators; }

}  // namespace millpower::import::onnx
