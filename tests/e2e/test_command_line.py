"""compile, inspect, run and bench, and the errors of a wrong command line."""

import json
import subprocess

import pytest

from conftest import BINARY, MODEL


def millpower(*args, **options):
    return subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "demo.mill"
    done = millpower("compile", MODEL, "-o", path)
    assert done.returncode == 0, done.stderr
    return path


def answer(model, *flags):
    done = millpower("run", model, "-p", "What is a bill of lading?", "--temperature", "0",
                     "--no-think", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_compiled_file_answers_as_its_folder_does(compiled):
    assert len(answer(MODEL)) > 20
    assert answer(compiled) == answer(MODEL)


@pytest.mark.parametrize("flags", [("--kernels", "scalar"), ("--kernels", "avx2"), ("--threads", "1"),
                                   ("--threads", "4")])
def test_kernels_and_threads_change_nothing(flags):
    done = millpower("run", MODEL, "-p", "hello", "--max-tokens", "1", *flags)
    if done.returncode == 1 and "lacks" in done.stderr:
        pytest.skip(done.stderr)  # this machine has no such instructions
    assert answer(MODEL, *flags) == answer(MODEL)


def test_inspect_shows_what_a_file_holds(compiled):
    summary = millpower("inspect", compiled).stdout
    assert "chat         qwen3" in summary
    assert "vocab_size   3072" in summary
    program = millpower("inspect", compiled, "--disassemble").stdout
    assert program.startswith("program qwen3\n")
    assert "stream transfer\n" in program and "  attention q=" in program


def test_inspect_needs_no_weights():
    summary = millpower("inspect", "qwen3-32b")
    assert summary.returncode == 0
    assert "parameters   32762123264" in summary.stdout
    graph = millpower("inspect", "qwen3-0.6b", "--graph").stdout
    assert "rms_norm(" in graph and "symbol rows" in graph


def test_bench_prints_json():
    done = millpower("bench", MODEL, "--runs", "1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout, parse_constant=pytest.fail)  # NaN, Infinity
    for key in ("read_bandwidth_bytes_s", "decode_tok_s", "decode_share_of_bandwidth",
                "batch_8_tok_s", "batch_32_tok_s", "decode_at_context_tok_s", "issue_cost_share",
                "prefill_512_tok_s", "resident_bytes", "cold_start_s", "threads"):
        assert result[key] > 0, key
    for key in ("int8_peak_ops_s", "prefill_share_of_peak", "decode_4096_tok_s"):
        assert result[key] is None or result[key] > 0, key
    assert len(result["runs"]) == 1
    assert result["runs"][0]["decode_tok_s"] == result["decode_tok_s"]


def test_damage_is_named(compiled, tmp_path):
    damaged = tmp_path / "damaged.mill"
    content = bytearray(compiled.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    done = millpower("inspect", damaged)
    assert done.returncode == 1
    assert "is damaged" in done.stderr


@pytest.mark.parametrize("args, code, message", [
    ((), 2, "subcommand is required"),
    (("serve",), 1, "no model"),
    (("serve", "--port", "0", "--model", "/no/such/model"), 1, "/no/such/model"),
    (("serve", "--model", MODEL, "--weights", "int3"), 2, "int3"),
    (("serve", "--port", "0", "--model", MODEL, "--max-model-len", "9999999"), 1, "context"),
    (("serve", "--model", MODEL, "--kv-memory", "lots"), 1, "not a size"),
    (("serve", "--port", "0", "--model", __file__), 1, "neither a compiled model nor a model folder"),
    (("serve", "--port", "0", "--model", f"a={MODEL}", "--model", f"a={MODEL}"), 1, "NAME=PATH"),
    (("serve", "--model", "a=x", "--model", "b=y", "--model-name", "c"), 1, "--model-name"),
    (("serve", "--model", MODEL, "--cors-origin", "example.org"), 1, "not an origin"),
    (("serve", "--port", "0", "--model", MODEL, "--admin-port", "0", "--model-root", "/no/such"), 1,
     "model root"),
    (("admin", "models", "list", "--key-file", "/no/such"), 1, "/no/such"),
    (("inspect", "qwen9"), 1, "qwen3-32b"),
])
def test_errors_are_one_line_and_name_the_fault(args, code, message):
    done = millpower(*args)
    assert done.returncode == code
    assert message in done.stderr
    assert code == 2 or len(done.stderr.splitlines()) == 1


def test_config_file_and_its_errors(own_server, tmp_path):
    config = tmp_path / "serve.toml"
    config.write_text('model-name = "from-file"\nport = 1\ntemperature = 0.0\n')  # a flag gives the port
    server = own_server("--config", str(config))
    assert "serving 'from-file'" in server.log()
    config.write_text("model = '/x'\nprot = 8080\n")
    done = millpower("serve", "--config", config)
    assert done.returncode == 1
    assert f"{config}:2: there is no setting 'prot'" in done.stderr
