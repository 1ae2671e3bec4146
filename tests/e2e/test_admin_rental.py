"""The operator's guide (docs/rental.md) through the command line, against the real program."""

import csv
import datetime
import decimal
import io
import json
import re
import subprocess

import httpx
import openai
import pytest

from conftest import BINARY
from test_http import eventually

KEY = "a key that is long enough"
PROMPT = [{"role": "user", "content": "What is a bill of lading?"}]


class Operator:
    """A server with a ledger, and the command line beside it."""

    def __init__(self, own_server, folder):
        self.folder = folder
        self.key_file = folder / "admin.key"
        self.key_file.write_text(KEY + "\n")
        self.own_server = own_server
        self.start()

    def start(self):
        self.server = self.own_server("--ledger", str(self.folder / "books"), "--admin-port", "0",
                                      "--admin-key-file", str(self.key_file))
        self.port = re.search(r"admin API at http://127\.0\.0\.1:(\d+)/", self.server.log()).group(1)

    def run(self, *args):
        return subprocess.run(
            [BINARY, "admin", "--port", self.port, "--key-file", str(self.key_file), *args],
            capture_output=True, text=True, timeout=120)

    def text(self, *args):
        done = self.run(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *args):
        return json.loads(self.text(*args, "--json"))

    def client(self, secret):
        return openai.OpenAI(base_url=self.server.url + "/v1", api_key=secret, max_retries=0,
                             timeout=120)

    def set_up(self):
        """acme, which has paid 100.00, with a project and a key."""
        self.json("tenant", "create", "acme")
        self.json("project", "create", "acme", "website", "--cap", "month:money:50.00")
        self.json("price", "set", "demo", "--input", "0.15", "--cached", "0.05", "--output", "0.60")
        self.json("tenant", "credit", "acme", "100.00", "--reference", "transfer 4711")
        return self.json("key", "create", "ci", "--tenant", "acme")


@pytest.fixture
def operator(own_server, tmp_path):
    return Operator(own_server, tmp_path)


def ask(client, **options):
    return client.chat.completions.create(
        model="demo", messages=PROMPT, **{"max_tokens": 8, "temperature": 0} | options)


def test_from_the_first_tenant_to_the_first_invoice(operator):
    key = operator.set_up()
    answers = [ask(operator.client(key["secret"])) for _ in range(3)]

    # Each request is rounded up a line, so that the sum is known to the millionth.
    cost = decimal.Decimal(0)
    for answer in answers:
        cached = answer.usage.prompt_tokens_details.cached_tokens
        for count, rate in ((answer.usage.prompt_tokens - cached, "0.15"), (cached, "0.05"),
                            (answer.usage.completion_tokens, "0.60")):
            cost += (count * decimal.Decimal(rate)).to_integral_value(decimal.ROUND_CEILING)
    cost /= 1_000_000
    usage = operator.json("usage", "--group-by", "tenant,project,key,model,day,tier")
    row, = usage["data"]
    assert decimal.Decimal(row["amount"]) == cost
    assert (row["requests"], row["tier"], row["key_name"]) == (3, "on_demand", "ci")
    assert row["output_tokens"] == sum(answer.usage.completion_tokens for answer in answers)
    assert "acme" in operator.text("usage", "--group-by", "tenant")
    parsed = list(csv.DictReader(io.StringIO(operator.text("usage", "--group-by", "key", "--csv"))))
    assert decimal.Decimal(parsed[0]["amount"]) == cost
    rows = operator.json("usage", "--requests", "--tenant", "acme")["data"]
    assert [row["api_request_id"] for row in rows] == [answer.id for answer in reversed(answers)]
    one, = operator.json("usage", "--requests", "--request", answers[0].id)["data"]
    assert decimal.Decimal(one["amount"]) == sum(decimal.Decimal(line["amount"])
                                                 for line in one["lines"])

    month = datetime.datetime.fromtimestamp(rows[0]["posted_at"],
                                            datetime.timezone.utc).strftime("%Y-%m")
    invoice = operator.json("invoice", "acme", month)
    assert decimal.Decimal(invoice["total"]) == cost
    assert sum(decimal.Decimal(line["amount"]) for line in invoice["lines"]) == cost
    assert f"{cost} USD" in operator.text("invoice", "acme", month)
    page = operator.folder / "invoice.html"
    assert operator.text("invoice", "acme", month, "--format", "html", "-o", str(page)) == ""
    assert str(cost) in page.read_text()
    listed, = operator.json("invoice", "list", "acme")["data"]
    assert decimal.Decimal(listed["total"]) == cost
    tenant = operator.json("tenant", "show", "acme")
    assert decimal.Decimal(tenant["credit"]) == 100 - cost
    assert tenant["held"] == "0.00"

    actions = [entry["action"] for entry in operator.json("audit")["data"]]
    assert actions[-7:] == ["tenant.create", "project.create", "price.add", "price.add",
                            "price.add", "credit.add", "key.create"]
    assert len(operator.json("audit", "--limit", "2")["data"]) == 2
    assert key["secret"] not in operator.server.log() + operator.text("audit")
    assert operator.text("verify") == "the books balance\n"


def test_payments_told_twice_count_once(operator):
    operator.set_up()
    again = operator.text("tenant", "credit", "acme", "100.00", "--reference", "transfer 4711")
    assert "nothing done" in again and "100.00" in again
    back = operator.json("tenant", "credit", "acme", "30", "--reference", "back", "--pay-back")
    assert back["credit"] == "70.00"
    assert operator.run("tenant", "credit", "acme", "80", "--reference", "more",
                        "--pay-back").returncode == 1


def test_keys_rotate_with_overlap_and_are_revoked_at_once(operator):
    old = operator.set_up()
    new = operator.json("key", "rotate", "ci", "--overlap", "2s")
    for key in (old, new):
        ask(operator.client(key["secret"]), max_tokens=1)
    ambiguous = operator.run("key", "revoke", "ci")
    assert ambiguous.returncode == 1 and old["id"] in ambiguous.stderr

    def is_refused(key):
        try:
            ask(operator.client(key["secret"]), max_tokens=1)
        except openai.AuthenticationError:
            return True
        return False

    assert eventually(lambda: is_refused(old), 10)
    ask(operator.client(new["secret"]), max_tokens=1)
    assert operator.json("key", "revoke", "ci")["state"] == "revoked"
    assert is_refused(new)  # at once
    states = {key["id"]: key["state"] for key in operator.json("key", "list")["data"]}
    assert (states[old["id"]], states[new["id"]]) == ("expired", "revoked")


def test_scopes_caps_and_suspension(operator):
    operator.set_up()
    key = operator.json("key", "create", "small", "--tenant", "acme", "--model", "other",
                        "--endpoint", "chat", "--expires-in", "90d", "--cap", "total:tokens:200",
                        "--rpm", "600")
    client = operator.client(key["secret"])
    with pytest.raises((openai.PermissionDeniedError, openai.NotFoundError)):
        ask(client)
    shown = operator.json("key", "update", key["prefix"], "--model", "demo")
    assert shown["models"] == ["demo"] and shown["endpoints"] == ["chat"]
    assert shown["limits"]["requests_per_minute"] == 600
    with pytest.raises(openai.PermissionDeniedError):
        client.completions.create(model="demo", prompt="x", max_tokens=1)
    long = ask(client, max_tokens=1000, extra_body={"ignore_eos": True})
    assert long.choices[0].finish_reason == "length" and long.usage.total_tokens <= 200
    with pytest.raises(openai.RateLimitError) as refused:
        ask(client)
    assert refused.value.code == "insufficient_quota"
    operator.json("key", "update", "small", "--cap", "none")
    ask(client)
    operator.json("tenant", "suspend", "acme")
    with pytest.raises(openai.PermissionDeniedError):
        ask(client)
    operator.json("tenant", "resume", "acme")
    ask(client)
    assert operator.json("verify")["ok"]


def test_leases(operator):
    operator.set_up()
    assert operator.json("price", "set", "*", "--share-hour", "2.00")["data"][0]["tier"] == "lease"
    lease = operator.json("lease", "create", "acme", "25%", "--for", "1h")
    assert (lease["amount"], lease["state"]) == ("0.50", "running")
    full = operator.run("lease", "create", "acme", "0.8", "--for", "1h")
    assert full.returncode == 1 and "0.75" in full.stderr
    assert "25%" in operator.text("lease", "list", "--tenant", "acme")
    assert operator.json("lease", "cancel", lease["id"])["state"] == "cancelled"
    assert operator.json("verify")["ok"]


def test_prices_from_a_date_on(operator):
    operator.set_up()
    operator.json("price", "set", "demo", "--output", "0.70", "--effective", "2099-01-01")
    states = [(price["rate"], price["state"])
              for price in operator.json("price", "list", "--model", "demo")["data"]
              if price["unit"] == "output_token"]
    assert states == [("0.60", "current"), ("0.70", "upcoming")]
    assert "past" in operator.run("price", "set", "demo", "--output", "1", "--effective",
                                  "2020-01-01").stderr


def test_backups_and_books_at_rest(operator):
    key = operator.set_up()
    ask(operator.client(key["secret"]))
    copy = operator.folder / "copy" / "ledger.db"
    copy.parent.mkdir()
    assert operator.json("backup", str(copy))["size_bytes"] == copy.stat().st_size
    again = operator.run("backup", str(copy))
    assert again.returncode == 1 and "there is a file" in again.stderr
    assert operator.server.stop() == 0
    assert operator.run("verify").returncode == 1  # nobody answers
    for folder in (operator.folder / "books", copy.parent):
        assert operator.json("verify", "--ledger", str(folder))["ok"]
    operator.text("backup", "--ledger", str(operator.folder / "books"),
                  str(operator.folder / "second.db"))
    assert operator.run("verify", "--ledger", str(operator.folder)).returncode == 1  # none there

    # Restored, everything is there again.
    (operator.folder / "books" / "ledger.db").unlink()
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (operator.folder / "books" / name).unlink(missing_ok=True)
    copy.rename(operator.folder / "books" / "ledger.db")
    operator.start()
    ask(operator.client(key["secret"]))
    assert operator.json("usage", "--group-by", "tenant")["data"][0]["requests"] == 2


def test_faults_are_told_and_fail(operator):
    key = operator.set_up()
    ask(operator.client(key["secret"]))
    operator.server.stop()
    import sqlite3
    with sqlite3.connect(operator.folder / "books" / "ledger.db") as books:
        books.execute("UPDATE balances SET amount = amount + 1 WHERE account = 2")
    books.close()
    done = operator.run("verify", "--ledger", str(operator.folder / "books"))
    assert done.returncode == 1
    assert "revenue" in done.stdout and "do not balance" in done.stderr


def test_slips_are_named(operator):
    operator.set_up()
    for args, text in (
            (("tenant", "create", "acme"), "already"),
            (("tenant", "show", "nobody"), "nobody"),
            (("tenant", "create", "x", "--credit-line", "1,5"), "credit_line"),
            (("key", "create", "k"), "project"),
            (("key", "create", "k", "--tenant", "acme", "--expires-in", "90"), "90d"),
            (("key", "create", "k", "--tenant", "acme", "--endpoint", "chats"), "chats"),
            (("project", "create", "acme", "x", "--cap", "week:money:5"), "period"),
            (("project", "create", "acme", "x", "--cap", "month"), "month:money:50.00"),
            (("project", "update", "nowhere", "--rpm", "5"), "nowhere"),
            (("price", "set", "demo"), "no price"),
            (("lease", "create", "acme", "25%"), "--until"),
            (("usage", "--from", "yesterday"), "yesterday"),
            (("invoice", "acme"), "month"),
            (("invoice", "acme", "2026-13"), "2026-13")):
        done = operator.run(*args)
        assert done.returncode == 1 and text in done.stderr, (args, done.stderr)
        assert done.stderr.startswith("millpower: error: ") and done.stderr.count("\n") == 1
    assert operator.run("tenant", "create").returncode == 2


def test_the_admin_port_answers_tenants_and_monitoring(operator):
    key = operator.set_up()
    url = f"http://127.0.0.1:{operator.port}"
    admin = {"authorization": f"Bearer {KEY}"}
    tenant = {"authorization": f"Bearer {key['secret']}"}
    assert [model["id"] for model in httpx.get(url + "/v1/models", headers=tenant).json()["data"]]
    assert httpx.get(url + "/v1/models").status_code == 401
    assert httpx.get(url + "/admin/v1/tenants", headers=tenant).status_code == 401
    assert httpx.get(operator.server.url + "/metrics").status_code in (401, 404)
    assert httpx.get(url + "/metrics").status_code == 401
    assert "millpower_ledger_healthy 1" in httpx.get(url + "/metrics", headers=admin).text
    overview = httpx.get(url + "/admin/v1/overview", headers=admin).json()
    assert overview["models"][0]["id"] == "demo" and overview["totals"]["tenants"] == 2


def test_without_a_ledger_it_says_so(own_server, tmp_path):
    (tmp_path / "key").write_text(KEY)
    server = own_server("--admin-port", "0", "--admin-key-file", str(tmp_path / "key"))
    url = re.search(r"admin API at (\S+)", server.log()).group(1)
    response = httpx.get(url + "/tenants", headers={"authorization": f"Bearer {KEY}"})
    assert response.status_code == 503 and "--ledger DIR" in response.json()["error"]["message"]
