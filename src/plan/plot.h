// A plot of lines as a standalone SVG file: no scripts, no fonts of its own.
#pragma once

#include <string>
#include <vector>

namespace millpower::plan {

struct PlotPoint {
  double x = 0, y = 0;            // positive: both axes are logarithmic
  double low_x = 0, low_y = 0;    // with assumed figures at their bad end ...
  double high_x = 0, high_y = 0;  // ... and at their good end; the point itself where none is
  std::string label;              // what a reader sees when pointing at it
};

struct PlotLine {
  std::string name;  // in the legend
  std::vector<PlotPoint> points;
};

struct Plot {
  std::string title, subtitle, x_title, y_title;
  std::vector<PlotLine> lines;
};

// Points with a coordinate that is not positive and finite are left out, and lines without points;
// a plot without any says so. Between low and high ends the line has a shade. Texts may hold any
// characters of UTF-8 that XML may.
std::string ToSvg(const Plot& plot);

}  // namespace millpower::plan
