"""The short form of tests/crash/crash_loop.py: kill -9 under load, then audit the books.

MILLPOWER_CRASH_ROUNDS  how many kills (25)
"""

import importlib.util
import os

from conftest import BINARY, MODEL, ROOT

_spec = importlib.util.spec_from_file_location("crash_loop", ROOT / "tests/crash/crash_loop.py")
crash_loop = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(crash_loop)

ROUNDS = int(os.environ.get("MILLPOWER_CRASH_ROUNDS", 25))
SEED = 20261124


def test_books_balance_after_kills(tmp_path):
    faults, seen = crash_loop.crash_loop(BINARY, MODEL, ROUNDS, SEED, tmp_path)
    assert not faults, faults[:10]
    # It was worth it: answers were delivered, and work was cut off.
    assert seen["delivered"] > ROUNDS and seen["holds to recover"] > ROUNDS // 2, seen
