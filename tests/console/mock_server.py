"""Answers as a server with a ledger does, for what a real one cannot be brought to say at will:
faults in its books, streams cut off in the middle, hostile names, errors of every kind.

Serves console/ from the source folder, so that it shows changes without a build:
    python3 tests/console/mock_server.py [PORT]
"""

import http.server
import json
import pathlib
import sys
import threading
import time
import urllib.parse

CONSOLE = pathlib.Path(__file__).resolve().parents[2] / "console"
ADMIN_KEY = "0123456789abcdef"
TENANT_KEY = "mp-AAAAAAAA-" + "x" * 40
CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript",
                 ".svg": "image/svg+xml"}
# Of console.cc; test_security.py holds the real server to it.
POLICY = ("default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
          "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
HOSTILE = """<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'"&amp;"""
NOW = int(time.time())
HOUR = 3600
LIMITS = {"requests_per_minute": 600, "tokens_per_minute": None, "concurrent_requests": 8}


def spent(scale=1.0):
    return {period: {"money": f"{scale * factor:.6f}", "tokens": int(scale * factor * 40_000)}
            for period, factor in (("day", 1.25), ("month", 18.5), ("total", 220.75))}


def tenant(number, name, **more):
    return {"id": f"ten_{number:024x}", "object": "tenant", "name": name,
            "created_at": NOW - 90 * 86400, "suspended": False, "credit_line": "0.00",
            "credit": "1250.00", "held": "0.0321", "limits": LIMITS, "spent": spent(number),
            "caps": [{"period": "day", "measure": "money", "limit": "2.00"},
                     {"period": "month", "measure": "tokens", "limit": 5_000_000}], **more}


class State:
    """What the mock serves; tests change it. `faults` are what verification finds; `failing` maps
    paths to (status, code, message); `stream` are the pieces of an answer, then "[DONE]"."""

    def __init__(self):
        self.tenants = [
            tenant(1, "Northwind Research", caps=[
                {"period": "day", "measure": "money", "limit": "2.00", "used": "1.25",
                 "held": "0.0321"},
                {"period": "month", "measure": "tokens", "limit": 800_000, "used": 740_000,
                 "held": 0}]),
            tenant(2, "Brightwater Logistics", credit="80.125", credit_line=None, caps=[
                {"period": "month", "measure": "money", "limit": "37.00", "used": "37.00",
                 "held": "0"}]),
            tenant(3, "Dormant & Sons", suspended=True, credit="-1.50", credit_line="5.00",
                   caps=[]),
            tenant(4, HOSTILE, caps=[]),
        ]
        self.projects = [
            {"id": f"proj_{i:024x}", "object": "project", "name": name, "tenant": of["id"],
             "tenant_name": of["name"], "created_at": NOW - 80 * 86400, "caps": [],
             "limits": LIMITS if i == 1 else {}, "spent": spent()}
            for i, (name, of) in enumerate(((name, of) for of in self.tenants
                                            for name in ("default", "evaluation")), 1)]
        self.keys = [
            {"id": f"key_{i:024x}", "object": "key", "name": name, "prefix": f"K{i:07d}",
             "state": state, "tenant": project["tenant"], "tenant_name": project["tenant_name"],
             "project": project["id"], "project_name": project["name"],
             "created_at": NOW - 70 * 86400, "expires_at": expires, "revoked_at": None,
             "models": models, "endpoints": endpoints, "caps": [], "limits": {}, "spent": spent()}
            for i, (name, state, project, expires, models, endpoints) in enumerate((
                ("production", "active", self.projects[0], None, [], []),
                ("notebook", "active", self.projects[1], NOW + 86400, ["demo"],
                 ["chat", "usage"]),
                ("old", "revoked", self.projects[2], None, [], []),
                (HOSTILE, "active", self.projects[6], None, [HOSTILE], [])), 1)]
        self.faults = []
        self.failing = {}
        self.reasoning = ["Think", "ing about ", "it."]
        self.stream = ["Hel", "lo, ", "wor", "ld."]
        self.cut_off = False
        self.delay_s = 0.03
        self.model_name = "demo"
        self.generated = 100_000
        self.asked = []

    def models(self):
        self.generated += 137
        return [{"id": self.model_name, "requests_running": 3, "requests_waiting": 1,
                 "kv_pages_used": 120, "kv_pages_cached": 300, "kv_pages_total": 1024,
                 "prompt_tokens": self.generated * 3, "cached_prompt_tokens": 10,
                 "generated_tokens": self.generated,
                 "ttft": {"sum": self.generated * 0.0004, "count": self.generated // 50},
                 "inter_token": {"sum": self.generated * 0.02, "count": self.generated}}]

    def prices(self):
        return [{"number": i, "object": "price", "model": model, "tier": tier, "unit": unit,
                 "rate": rate, "per": "million", "currency": "USD", "state": state,
                 "effective_at": at, "created_at": NOW - 50 * 86400}
                for i, (model, tier, unit, rate, state, at) in enumerate((
                    ("*", "on_demand", "input_token", "0.25", "current", NOW - 50 * 86400),
                    ("*", "on_demand", "cached_token", "0.025", "current", NOW - 50 * 86400),
                    ("*", "on_demand", "output_token", "1.10", "past", NOW - 50 * 86400),
                    ("*", "on_demand", "output_token", "1.00", "current", NOW - 20 * 86400),
                    (self.model_name, "batch", "output_token", "0.50", "upcoming", NOW + 86400),
                    ("*", "lease", "share_hour", "4.00", "current", NOW - 50 * 86400)), 1)]

    def leases(self):
        return [{"id": f"lease_{i:024x}", "object": "lease", "tenant": of["id"],
                 "tenant_name": of["name"], "share": share, "state": state,
                 "starts_at": NOW - 10 * HOUR, "ends_at": NOW + 14 * HOUR, "cancelled_at": None,
                 "rate": "4.00", "amount": "24.00", "created_at": NOW - 11 * HOUR}
                for i, (of, share, state) in enumerate((
                    (self.tenants[0], 0.25, "running"), (self.tenants[1], 0.4, "running"),
                    (self.tenants[3], 0.1, "upcoming"), (self.tenants[0], 0.5, "ended")), 1)]

    def usage(self):
        return [{"day": f"2026-11-{day:02d}", "model": self.model_name, "requests": 10 + day,
                 "input_tokens": 123_456 * day, "cached_tokens": 40_000, "output_tokens": 9_876,
                 "amount": f"{day}.000001", "energy_j": 0, "gco2e": 0, "energy_source": "none"}
                for day in (1, 2, 3)]

    def rows(self):
        return [{"number": i, "object": "usage", "request_id": f"chatcmpl-{i:08x}-0",
                 "api_request_id": f"chatcmpl-{i:08x}", "tenant": self.tenants[0]["id"],
                 "project": self.projects[0]["id"], "key": self.keys[0]["id"],
                 "model": self.model_name, "endpoint": "chat", "tier": "on_demand",
                 "admitted_at": NOW - i, "posted_at": NOW - i, "reason": "stop",
                 "amount": "0.000321", "quantities": {"input_token": 20, "cached_token": 16,
                                                      "output_token": 128}}
                for i in range(1, 6)]

    def invoice(self, of, month):
        return {"object": "invoice", "id": f"{of['id']}-{month}",
                "tenant": {"id": of["id"], "name": of["name"]}, "month": month, "currency": "USD",
                "from": NOW - 20 * 86400, "to": NOW,
                "open": month == "2026-11", "status": "open" if month == "2026-11" else "final",
                "total": "18.500000",
                "lines": [{"project_name": "default", "model": self.model_name, "tier": "on_demand",
                           "unit": unit, "rate": rate,
                           "rate_per": f"million {unit.replace('_', ' ')}s", "quantity": 12_345_678,
                           "amount": amount, "requests": 42,
                           "first_request_id": "chatcmpl-00000001",
                           "last_request_id": "chatcmpl-0000002a"}
                          for unit, rate, amount in (("input_token", "0.25", "3.0864195"),
                                                     ("output_token", "1.00", "15.4135805"))]}

    def audit(self, after, limit):
        actions = ("tenant.create", "credit.add", "key.create", "price.add")
        return [{"number": n, "object": "audit_entry", "at": NOW - 1000 + n, "actor": "admin",
                 "action": actions[n % 4], "subject": self.tenants[n % 4]["id"],
                 "details": {"name": self.tenants[n % 4]["name"]}, "hash": f"{n:064x}"}
                for n in range(after + 1, min(121, after + 1 + limit))]

    def account(self):
        of, project, key = self.tenants[0], self.projects[0], self.keys[0]
        caps = [{"of": "tenant", **cap} for cap in of["caps"]]
        caps.append({"of": "key", "period": "total", "measure": "money", "limit": "10.00",
                     "used": "10.00", "held": "0.00"})
        return {"object": "account", "currency": "USD",
                "tenant": {"id": of["id"], "name": of["name"]},
                "project": {"id": project["id"], "name": project["name"]},
                "key": {key_: key[key_] for key_ in ("id", "name", "prefix", "expires_at",
                                                      "models", "endpoints")},
                "credit": of["credit"], "available": "1250.00", "spent": spent(), "caps": caps,
                "limits": {"key": {}, "project": LIMITS, "tenant": LIMITS},
                "leases": [lease for lease in self.leases() if lease["tenant"] == of["id"]],
                "prices": [price for price in self.prices() if price["state"] == "current"]}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send(self, status, body, content_type="application/json", headers=()):
        bytes_ = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(bytes_)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(bytes_)

    def json(self, value, status=200):
        self.send(status, json.dumps(value))

    def error(self, status, code, message, param=None):
        self.json({"error": {"message": message, "type": "error", "param": param, "code": code}},
                  status)

    def list(self, data):
        self.json({"object": "list", "data": data})

    def console(self, path):
        name = path.removeprefix("/console/") or "index.html"
        file = CONSOLE / name
        if file not in CONSOLE.rglob("*") or not file.is_file():
            self.error(404, "not_found", "no such path")
            return
        self.send(200, file.read_bytes(), CONTENT_TYPES[file.suffix],
                  [("content-security-policy", POLICY), ("cache-control", "no-cache")])

    def answer(self):
        state = self.server.state
        url = urllib.parse.urlsplit(self.path)
        path, query = url.path, dict(urllib.parse.parse_qsl(url.query))
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}") if length else {}
        if path.startswith("/console"):
            self.console(path)
            return
        state.asked.append((self.command, self.path, body))
        key = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        is_admin = path.startswith("/admin/")
        if key != (ADMIN_KEY if is_admin else TENANT_KEY):
            self.error(401, "invalid_api_key", "this is not a key")
        elif path in state.failing:
            self.error(*state.failing[path])
        elif is_admin:
            self.admin(state, path.removeprefix("/admin/v1"), query, body)
        else:
            self.tenant(state, path.removeprefix("/v1"), query, body)

    do_GET = do_POST = do_PATCH = do_DELETE = answer

    def admin(self, state, path, query, body):
        parts = path.strip("/").split("/")
        lists = {"tenants": state.tenants, "projects": state.projects, "keys": state.keys}
        if parts[0] in lists and len(parts) == 1 and self.command == "GET":
            self.list([each for each in lists[parts[0]] if "tenant" not in query or
                       each.get("tenant") == query["tenant"]])
        elif path == "/tenants":
            state.tenants.append(tenant(len(state.tenants) + 1, body["name"], caps=body["caps"]))
            self.json(state.tenants[-1], 201)
        elif path == "/keys" or path.endswith("/rotate"):
            self.json({**state.keys[0], "secret": "mp-NEWKEY00-" + "s" * 40}, 201)
        elif parts[0] in lists and len(parts) == 2:
            found = [each for each in lists[parts[0]] if each["id"] == parts[1]]
            if not found:
                self.error(404, "not_found", f"there is no '{parts[1]}'")
                return
            if self.command == "PATCH":
                found[0].update(body)
            self.json(found[0])
        elif path == "/overview":
            self.json({"object": "overview", "at": NOW, "currency": "USD",
                       "models": state.models(), "totals": {
                           "tenants": 4, "projects": 8, "active_keys": 3, "running_leases": 2,
                           "credit": "1328.625", "held": "0.0321",
                           "revenue": f"{state.generated / 1e3:.6f}",
                           "spent": {"day": spent()["day"], "month": spent()["month"]}},
                       "ledger": {"healthy": True, "commits": 1234, "records": 5678,
                                  "failed_commits": 0, "open_holds": 3, "recovered_holds": 0}})
        elif path == "/prices":
            self.list([price for price in state.prices()
                       if query.get("all") == "1" or price["state"] != "past"])
        elif path == "/leases":
            self.list(state.leases())
        elif path == "/usage":
            self.usage(state, query)
        elif path == "/usage/requests":
            self.list(state.rows())
        elif path == "/invoices":
            self.list([{**state.invoice(of, "2026-11"), "tenant": of["id"],
                        "tenant_name": of["name"]} for of in state.tenants])
        elif parts[0] == "invoices":
            self.json(state.invoice(state.tenants[0], parts[2]))
        elif path == "/audit":
            self.list(state.audit(int(query.get("after", 0)), int(query.get("limit", 100))))
        elif path == "/verify":
            self.json({"object": "verification", "ok": not state.faults, "faults": state.faults})
        else:
            self.error(404, "not_found", "no such path")

    def usage(self, state, query):
        if query.get("format") == "csv":
            self.send(200, "day,model,amount\r\n2026-11-01,demo,1.000001\r\n", "text/csv")
        else:
            self.json({"object": "list", "currency": "USD",
                       "group_by": [g for g in query.get("group_by", "").split(",") if g],
                       "data": state.usage()})

    def tenant(self, state, path, query, body):
        if path == "/account":
            self.json(state.account())
        elif path == "/stats":
            self.json({"object": "stats", "at": NOW, "currency": "USD", "models": state.models(),
                       "spent": "1.25", "tokens": 50_000, "requests": 77, "available": "1250.00"})
        elif path == "/models":
            self.list([{"id": state.model_name, "object": "model"}])
        elif path == "/usage":
            self.usage(state, query)
        elif path == "/usage/requests":
            self.list(state.rows())
        elif path == "/invoices":
            self.list([{**state.invoice(state.tenants[0], month),
                        "tenant": state.tenants[0]["id"], "tenant_name": "Northwind Research"}
                       for month in ("2026-11", "2026-10")])
        elif path.startswith("/invoices/"):
            self.json(state.invoice(state.tenants[0], path.split("/")[2]))
        elif path == "/chat/completions":
            self.chat(state)
        else:
            self.error(404, "not_found", "no such path")

    def chat(self, state):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

        def event(data):
            # Lines end in either way that the format allows.
            self.wfile.write(f": a comment\r\ndata: {json.dumps(data)}\r\n\r\n".encode())
            self.wfile.flush()
            time.sleep(state.delay_s)

        def choice(delta, reason=None):
            return {"id": "chatcmpl-00000001", "choices": [
                {"index": 0, "delta": delta, "finish_reason": reason}]}

        try:
            for piece in state.reasoning:
                event(choice({"reasoning_content": piece}))
            for piece in state.stream:
                event(choice({"content": piece}))
            if state.cut_off:
                return
            event(choice({}, "stop"))
            event({"id": "chatcmpl-00000001", "choices": [], "usage": {
                "prompt_tokens": 36, "completion_tokens": 128, "total_tokens": 164,
                "prompt_tokens_details": {"cached_tokens": 16}}})
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client pressed Stop


class MockServer:
    """One at http://127.0.0.1:PORT until `stop`."""

    def __init__(self, port=0):
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.http.state = self.state = State()
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


if __name__ == "__main__":
    server = MockServer(int(sys.argv[1]) if len(sys.argv) > 1 else 8099)
    print(f"{server.url}/console/  operator: {ADMIN_KEY}  tenant: {TENANT_KEY}")
    server.thread.join()
