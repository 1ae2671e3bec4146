#!/usr/bin/env python3
"""Holds every #include to the direction that ARCHITECTURE.md draws: a folder of src/ may include
only the folders listed for it here. Prints each include that does not, and exits with 1."""

import pathlib
import re
import sys

SRC = pathlib.Path(__file__).resolve().parent.parent / "src"

# Folder -> folders it may include, besides itself and base.
ALLOWED = {
    "base": set(),
    "ir": set(),
    "import": {"ir"},
    "isa": set(),
    "compile": {"ir", "isa"},
    "kernels": {"isa"},  # the packed layouts
    "device": {"isa", "kernels"},
    "text": set(),
    "ledger": set(),
    "engine": {"isa", "device"},
    "ranking": {"isa", "device"},
    "plan": {"isa", "device", "engine", "ranking"},
    "serve": {"engine", "ranking", "ledger", "text"},
    "cli": {"ir", "import", "isa", "compile", "kernels", "device", "text", "ledger", "engine",
            "ranking", "plan", "serve"},
}
INCLUDE = re.compile(r'^\s*#include "([a-z_]+)/')


def main() -> int:
    wrong = []
    for path in sorted(SRC.rglob("*")):
        if path.suffix not in {".h", ".cc", ".inc"} or path.parent == SRC:
            continue
        folder = path.relative_to(SRC).parts[0]
        if folder not in ALLOWED:
            wrong.append(f"{path}: folder '{folder}' is not in tools/check_layers.py")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            target = match.group(1) if match else folder
            if target in ALLOWED and target not in {folder, "base"} | ALLOWED[folder]:
                wrong.append(f"{path.relative_to(SRC)}:{number}: {folder} may not include {target}")
    print("\n".join(wrong) if wrong else "layers: every include points the right way")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
