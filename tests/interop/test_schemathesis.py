"""Requests made up from our own OpenAPI document (schemathesis): no server error, no status and no
body that the document does not know. With a ledger, under a key that may do everything, and without
any key."""

import json
import pathlib
import subprocess
import sys

import httpx
import pytest

EXAMPLES = "30"


@pytest.fixture
def rented(own_server, tmp_path):
    server = own_server("--ledger", str(tmp_path / "ledger"))
    return server, (tmp_path / "ledger" / "developer.key").read_text().strip()


def document(server, tmp_path):
    """What the server says of itself, with `model` set to one that is there: else nearly every body
    ends at 404."""
    api = httpx.get(server.url + "/openapi.json").json()
    for schema in api["components"]["schemas"].values():
        if schema.get("properties", {}).get("model", {}).get("type") == "string":
            schema["properties"]["model"] = {"const": "demo"}
        # Answers of a thousand tokens teach nothing here.
        for name in ("max_tokens", "max_completion_tokens"):
            if name in schema.get("properties", {}):
                schema["properties"][name] = {"type": "integer", "minimum": 1, "maximum": 4}
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(api))
    return path


def run(server, path, *headers):
    tool = pathlib.Path(sys.executable).with_name("schemathesis")
    named = [argument for header in headers for argument in ("--header", header)]
    return subprocess.run(
        [tool, "run", path, "--url", server.url, "--max-examples", EXAMPLES, "--seed", "1",
         "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
         "response_schema_conformance", "--no-color", *named],
        capture_output=True, text=True, timeout=1800)


def test_requests_made_from_the_document(rented, tmp_path):
    server, key = rented
    done = run(server, document(server, tmp_path), f"Authorization: Bearer {key}")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_requests_without_a_key(rented, tmp_path):
    server, _ = rented
    done = run(server, document(server, tmp_path))
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
