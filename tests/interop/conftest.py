"""The fixtures of the end-to-end tests: the real binary, started and stopped."""

import importlib.util
import pathlib

_path = pathlib.Path(__file__).resolve().parents[1] / "e2e" / "conftest.py"
_spec = importlib.util.spec_from_file_location("e2e_conftest", _path)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
MODEL, Server = _module.MODEL, _module.Server
server, own_server = _module.server, _module.own_server
