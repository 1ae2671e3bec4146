#include "device/chip/description_writer.h"

#include <gtest/gtest.h>

#include "device/chip/description_figures.h"

namespace millpower::device::chip {
namespace {

TEST(ToToml, IsReadAsTheSameChip) {
  for (const std::string& name : BuiltInChips()) {
    Chip chip = *ReadChip(name);
    const auto parsed = ParseChip(ToToml(chip), name);
    ASSERT_TRUE(parsed) << name << ": " << parsed.error().message;
    Chip again = *parsed;
    const auto figures = FiguresOf(chip), read = FiguresOf(again);
    for (size_t i = 0; i < figures.size(); ++i)
      EXPECT_EQ(*figures[i].figure, *read[i].figure) << name << " " << figures[i].key;
    for (size_t i = 0; i < kMatrixTypeCount; ++i) {
      EXPECT_EQ(chip.matrix[i].tiles, again.matrix[i].tiles) << name;
      EXPECT_EQ(chip.matrix[i].narrow_tiles, again.matrix[i].narrow_tiles) << name;
    }
    EXPECT_EQ(chip.fitted, again.fitted) << name;
    EXPECT_EQ(chip.title, again.title);
    EXPECT_EQ(chip.activation_type, again.activation_type);
    EXPECT_EQ(chip.joins_row_work, again.joins_row_work);
    EXPECT_EQ(chip.links.topology, again.links.topology);
  }
}

TEST(ToToml, QuotesTexts) {
  Chip chip = *ReadChip("host");
  chip.title = "a \"b\" \\ c\n";
  const auto parsed = ParseChip(ToToml(chip), "host");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->title, chip.title);
}

}  // namespace
}  // namespace millpower::device::chip
