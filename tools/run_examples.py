#!/usr/bin/env python3
"""Runs the examples of a Markdown file and writes what they print into it.

An example is a block ```console whose first line is "$ COMMAND" (continued by a backslash at the end of a line);
what follows is the command's output. Commands run with the shell, one folder for all of a file, in order, with
`millpower` on the PATH; a block "```csv NAME" is a file there. A line that says how long the simulation itself took
is left as it is, so that a second run changes nothing.

    tools/run_examples.py docs/planning.md          # rewrites outputs
    tools/run_examples.py docs/planning.md --check  # says which differ, and exits with 1
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```console\n(\$ (?:[^\n]*\\\n)*[^\n]*\n)(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```csv (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOOK = re.compile(r"^(simulated .* in) [0-9.]+ s$", re.MULTILINE)


def write_files(text, folder):
    for name, rows in FILE.findall(text):
        pathlib.Path(folder, pathlib.Path(name).name).write_text(rows)


def run(command, folder, binary):
    paths = f"{pathlib.Path(binary).resolve().parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": paths}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--binary", default=ROOT / "build/release/millpower")
    flags = parser.parse_args()
    text = flags.file.read_text()
    differ = []
    with tempfile.TemporaryDirectory() as folder:
        write_files(text, folder)

        def renewed(match):
            command, before = match[1][2:].rstrip("\n"), match[2]
            after = run(command, folder, flags.binary)
            if TOOK.sub(r"\1", after) == TOOK.sub(r"\1", before):
                return match[0]
            differ.append(command)
            return f"```console\n{match[1]}{after}```"

        new = BLOCK.sub(renewed, text)
    for command in differ:
        print(command)
    if flags.check:
        sys.exit(bool(differ))
    flags.file.write_text(new)


if __name__ == "__main__":
    main()
