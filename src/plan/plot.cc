#include "plan/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace millpower::plan {
namespace {

constexpr double kWidth = 960, kHeight = 560;
constexpr double kLeft = 84, kTop = 72, kRight = 690, kBottom = 480;  // of the frame
constexpr double kLegendX = 714, kLegendStep = 22;

// Okabe and Ito, "Color Universal Design" (2008): told apart by all. Past them, dashes.
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                    "#e69f00", "#56b4e9", "#000000"};
constexpr const char* kDashes[] = {"", "8 4", "2 3"};

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  return out;
}

// Values to a stretch of the picture, by their logarithm.
class Axis {
 public:
  Axis(double from, double to) : from_(from), to_(to) {}

  void Cover(double value) {
    least_ = any_ ? std::min(least_, value) : value;
    most_ = any_ ? std::max(most_, value) : value;
    any_ = true;
  }

  // A tenth of room at each end, by the logarithm; a single value gets a factor of two.
  void Settle() {
    if (!any_) least_ = 1, most_ = 10;
    const double room = std::max(std::pow(most_ / least_, 0.06), least_ == most_ ? 2.0 : 1.05);
    least_ /= room;
    most_ *= room;
  }

  double At(double value) const {
    const double part = std::log(value / least_) / std::log(most_ / least_);
    return from_ + (to_ - from_) * std::clamp(part, 0.0, 1.0);
  }

  // 1, 2, 5 times powers of ten; over more than three powers the powers alone.
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    const bool is_wide = most_ / least_ > 2000;
    for (int power = static_cast<int>(std::floor(std::log10(least_)));
         power <= static_cast<int>(std::ceil(std::log10(most_))); ++power)
      for (const double step : {1.0, 2.0, 5.0}) {
        const double tick = step * std::pow(10.0, power);
        if (tick >= least_ && tick <= most_ && (step == 1 || !is_wide)) ticks.push_back(tick);
      }
    return ticks;
  }

 private:
  double from_, to_;
  double least_ = 0, most_ = 0;
  bool any_ = false;
};

bool IsDrawn(const PlotPoint& point) {
  return std::ranges::all_of(std::initializer_list<double>{point.x, point.y, point.low_x,
                                                           point.low_y, point.high_x, point.high_y},
                             [](double value) { return std::isfinite(value) && value > 0; });
}

class Picture {
 public:
  explicit Picture(const Plot& plot) : plot_(plot) {
    for (const PlotLine& line : plot.lines) {
      PlotLine drawn{line.name, {}};
      std::ranges::copy_if(line.points, std::back_inserter(drawn.points), IsDrawn);
      for (const PlotPoint& point : drawn.points)
        for (const auto& [x, y] : {std::pair(point.x, point.y),
                                   {point.low_x, point.low_y},
                                   {point.high_x, point.high_y}})
          x_.Cover(x), y_.Cover(y);
      if (!drawn.points.empty()) lines_.push_back(std::move(drawn));
    }
    x_.Settle();
    y_.Settle();
  }

  std::string Draw() {
    out_ = fmt::format(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
        "viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" font-size=\"13\">\n"
        "<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
        kWidth, kHeight);
    Text(kLeft, 30, plot_.title, "font-size=\"18\" font-weight=\"bold\"");
    Text(kLeft, 52, plot_.subtitle, "fill=\"#555555\"");
    DrawAxes();
    for (size_t i = 0; i < lines_.size(); ++i) DrawShade(i);
    for (size_t i = 0; i < lines_.size(); ++i) DrawLine(i);
    for (size_t i = 0; i < lines_.size(); ++i) DrawLegend(i);
    if (lines_.empty())
      Text((kLeft + kRight) / 2, (kTop + kBottom) / 2, "nothing to show",
           "text-anchor=\"middle\" fill=\"#555555\"");
    return out_ + "</svg>\n";
  }

 private:
  void Text(double x, double y, std::string_view text, std::string_view attributes) {
    out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes,
                        Escaped(text));
  }

  void Stroke(double x1, double y1, double x2, double y2) {
    out_ += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#dddddd\"/>\n", x1,
        y1, x2, y2);
  }

  void DrawAxes() {
    for (const double tick : x_.Ticks()) {
      Stroke(x_.At(tick), kTop, x_.At(tick), kBottom);
      Text(x_.At(tick), kBottom + 18, fmt::format("{:g}", tick), "text-anchor=\"middle\"");
    }
    for (const double tick : y_.Ticks()) {
      Stroke(kLeft, y_.At(tick), kRight, y_.At(tick));
      Text(kLeft - 8, y_.At(tick) + 4, fmt::format("{:g}", tick), "text-anchor=\"end\"");
    }
    out_ += fmt::format(
        "<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" "
        "stroke=\"#333333\"/>\n",
        kLeft, kTop, kRight - kLeft, kBottom - kTop);
    Text((kLeft + kRight) / 2, kBottom + 46, plot_.x_title, "text-anchor=\"middle\"");
    const double middle = (kTop + kBottom) / 2;
    Text(24, middle, plot_.y_title,
         fmt::format("text-anchor=\"middle\" transform=\"rotate(-90 24 {:.1f})\"", middle));
  }

  static const char* Colour(size_t line) { return kColours[line % std::size(kColours)]; }
  static const char* Dash(size_t line) {
    return kDashes[line / std::size(kColours) % std::size(kDashes)];
  }
  std::string Place(double x, double y) const {
    return fmt::format("{:.1f},{:.1f} ", x_.At(x), y_.At(y));
  }

  // From the bad ends forwards, by the good ones back.
  void DrawShade(size_t index) {
    const auto& points = lines_[index].points;
    const bool is_range = std::ranges::any_of(points, [](const PlotPoint& point) {
      return point.low_x != point.high_x || point.low_y != point.high_y;
    });
    if (!is_range) return;
    std::string places;
    for (const PlotPoint& point : points) places += Place(point.low_x, point.low_y);
    for (auto point = points.rbegin(); point != points.rend(); ++point)
      places += Place(point->high_x, point->high_y);
    out_ += fmt::format("<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.13\"/>\n", places,
                        Colour(index));
  }

  void DrawLine(size_t index) {
    std::string places;
    for (const PlotPoint& point : lines_[index].points) places += Place(point.x, point.y);
    out_ += fmt::format(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" "
        "stroke-dasharray=\"{}\"/>\n",
        places, Colour(index), *Dash(index) != 0 ? Dash(index) : "none");
    for (const PlotPoint& point : lines_[index].points)
      out_ += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"><title>{}</title></circle>\n",
          x_.At(point.x), y_.At(point.y), Colour(index), Escaped(point.label));
  }

  void DrawLegend(size_t index) {
    const double y = kTop + 8 + kLegendStep * static_cast<double>(index);
    out_ += fmt::format(
        "<line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{1}\" stroke=\"{3}\" stroke-width=\"2\" "
        "stroke-dasharray=\"{4}\"/>\n",
        kLegendX, y, kLegendX + 24, Colour(index), *Dash(index) != 0 ? Dash(index) : "none");
    Text(kLegendX + 32, y + 4, lines_[index].name, "");
  }

  const Plot& plot_;
  std::vector<PlotLine> lines_;  // with what can be drawn
  Axis x_{kLeft, kRight}, y_{kBottom, kTop};
  std::string out_;
};

}  // namespace

std::string ToSvg(const Plot& plot) { return Picture(plot).Draw(); }

}  // namespace millpower::plan
