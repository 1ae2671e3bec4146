"""The console at the real binary: from a first tenant to its first invoice, as people click it."""

import csv
import http.client
import io
import re
import urllib.parse

import httpx
import pytest

from mock_server import HOSTILE, POLICY
from real_server import ADMIN_KEY

PAGES = {
    "overview": "Overview", "keys": "Keys", "caps": "Caps", "usage": "Usage", "leases": "Leases",
    "prices": "Price book", "invoices": "Invoices",
}


def fill(dialog, **fields):
    for label, value in fields.items():
        dialog.get_by_label(label.replace("_", " ")).fill(value)


def create_tenant(console, name, credit=None):
    console.show("tenants", "Tenants")
    console.button("New tenant").first.click()
    dialog = console.page.get_by_role("dialog", name="New tenant")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Create").click()
    console.page.get_by_role("link", name=name, exact=True).wait_for()
    if credit is None:
        return
    console.button(f"Add credit to {name}").click()
    dialog = console.page.get_by_role("dialog")
    dialog.get_by_label("Amount").fill(credit)
    dialog.get_by_label("Reference").fill(f"payment of {name}")
    dialog.get_by_role("button", name="Add credit").click()
    dialog.wait_for(state="detached")


def create_project(console, tenant, name):
    console.show("tenants", "Tenants")
    console.page.get_by_role("link", name=tenant, exact=True).click()
    console.page.get_by_role("heading", name=tenant, level=1).wait_for()
    console.button("New project").click()
    dialog = console.page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Create").click()
    console.page.get_by_role("rowheader", name=name, exact=True).wait_for()


def create_key(console, tenant, project, name, cap=None):
    """Returns the secret, which is shown once."""
    console.show("keys", "Keys")
    console.button("New key").first.click()
    dialog = console.page.get_by_role("dialog", name="New key")
    dialog.get_by_label("Project").select_option(label=f"{tenant} · {project}")
    dialog.get_by_label("Name").fill(name)
    if cap:
        dialog.get_by_role("group", name="In all").get_by_label("Tokens").fill(cap)
    dialog.get_by_role("button", name="Create").click()
    shown = console.page.get_by_role("dialog", name="Copy the key now")
    secret = shown.get_by_label("Secret key").input_value()
    shown.get_by_role("button", name="I have stored it").click()
    console.page.get_by_text(secret[:11]).first.wait_for()
    return secret


def add_price(console, unit, rate, model="*", tier="on demand"):
    console.show("prices", "Price book")
    console.button("New price").first.click()
    dialog = console.page.get_by_role("dialog", name="New price")
    dialog.get_by_label("Model").fill(model)
    dialog.get_by_label("Tier").select_option(label=tier)
    dialog.get_by_label("Unit").select_option(label=unit)
    dialog.get_by_label("Price").fill(rate)
    dialog.get_by_role("button", name="Add").click()
    dialog.wait_for(state="detached")


def ask(console, text, tokens="16"):
    """Returns the numbers under the answer."""
    console.page.get_by_label("Most tokens").fill(tokens)
    console.page.get_by_label("Message (required)").fill(text)
    console.button("Send").click()
    console.page.get_by_text("Generated tokens").wait_for()
    console.page.get_by_text("Billed").wait_for()
    pairs = console.page.locator(".answer-numbers dl > div").all()
    return {pair.locator("dt").inner_text(): pair.locator("dd").inner_text() for pair in pairs}


def test_signing_in(open_console, server):
    console = open_console()
    console.expects_failures = True
    console.open()
    console.page.get_by_label("Key").fill("wrong-wrong-wrong-wrong")
    console.button("Sign in").click()
    assert "No such key" in console.page.get_by_role("alert").inner_text()
    console.sign_in(ADMIN_KEY)
    assert "Operator" in console.page.inner_text("header")
    console.button("Sign out").click()
    console.sign_in(server.developer_key)
    assert "developer" in console.page.inner_text("header")


@pytest.mark.parametrize("on_admin_port", [True, False])
def test_a_tenants_pages(open_console, server, on_admin_port):
    console = open_console(server.admin_url if on_admin_port else server.url)
    console.sign_in(server.developer_key)
    for place, title in PAGES.items():
        console.show(place, title)
        assert console.page.get_by_role("alert").count() == 0, console.main()
    assert server.developer_key[:11] in console.show("keys", "Keys").main()


def test_the_admin_key_is_nothing_on_the_public_port(open_console, server):
    console = open_console(server.url)
    console.expects_failures = True
    console.open()
    console.page.get_by_label("Key").fill(ADMIN_KEY)
    console.button("Sign in").click()
    console.page.get_by_role("alert").wait_for()
    assert console.page.locator("nav").count() == 0


def test_from_the_first_tenant_to_its_first_invoice(open_console, server):
    operator = open_console().sign_in(ADMIN_KEY)
    add_price(operator, "per million input tokens", "1000.00")
    add_price(operator, "per million cached tokens", "100.00")
    add_price(operator, "per million output tokens", "2000.00")
    operator.show("prices", "Price book")
    assert "1,000.00" in operator.main() and "in force" in operator.main()
    operator.page.get_by_label("Show earlier and coming versions").check()
    operator.page.get_by_text("replaced").first.wait_for()

    create_tenant(operator, "First & Co", credit="5.00")
    create_project(operator, "First & Co", "trial")
    secret = create_key(operator, "First & Co", "trial", "laptop")

    tenant = open_console(server.url).sign_in(secret)
    assert "First & Co · laptop" in tenant.page.inner_text("header")
    tenant.show("playground", "Playground")
    numbers = ask(tenant, "Tell me about the moon.")
    generated = int(numbers["Generated tokens"])
    assert 1 <= generated <= 16
    prompt, cached = map(int, re.fullmatch(r"(\d+) \((\d+) cached\)",
                                           numbers["Prompt tokens"]).groups())
    billed = float(numbers["Billed"].split()[0])
    assert billed == pytest.approx(
        (prompt - cached) * 0.001 + cached * 0.0001 + generated * 0.002, abs=1e-9)
    answer = tenant.page.locator(".turn").nth(1)
    assert answer.inner_text().strip() != "demo"

    # The tenant sees what it was billed, to the last micro-unit.
    tenant.show("usage", "Usage")
    foot = tenant.page.locator("tfoot").inner_text().split()
    assert foot[-1] == numbers["Billed"].split()[0]
    assert foot[1] == "1" and int(foot[-2]) == generated
    with tenant.page.expect_download() as download:
        tenant.button("Export CSV").click()
    rows = list(csv.DictReader(io.StringIO(open(download.value.path()).read())))
    assert len(rows) == 1 and int(rows[0]["output_tokens"]) == generated
    assert float(rows[0]["amount"]) == pytest.approx(billed, abs=1e-9)
    tenant.show("overview", "Overview")
    assert numbers["Billed"].split()[0] in tenant.page.inner_text(".tiles")
    tenant.show("invoices", "Invoices")
    tenant.page.locator("tbody a").click()
    tenant.page.get_by_role("heading", level=1, name=re.compile("^Invoice ten_")).wait_for()
    assert tenant.page.locator("tfoot").inner_text().split()[-1] == numbers["Billed"].split()[0]
    for label, ending, inside in (("JSON", ".json", '"total"'), ("text", ".txt", "demo"),
                                  ("HTML", ".html", "First &amp; Co")):
        with tenant.page.expect_download() as download:
            tenant.button(f"Download {label}").click()
        assert download.value.suggested_filename.endswith(ending)
        assert inside in open(download.value.path()).read()

    # So does the operator, whose books balance.
    operator.show("invoices", "Invoices")
    operator.page.get_by_role("row", name=re.compile("First & Co")).get_by_role("link").click()
    operator.page.locator("tfoot").wait_for()
    assert operator.page.locator("tfoot").inner_text().split()[-1] == numbers["Billed"].split()[0]
    operator.show("usage", "Usage")
    operator.page.get_by_label("Tenant").first.select_option(label="First & Co")
    operator.page.get_by_label("key", exact=True).check()
    operator.button("Show").click()
    operator.page.get_by_role("cell", name="laptop").first.wait_for()
    operator.show("audit", "Audit")
    assert "tenant.create" in operator.main() and "key.create" in operator.main()
    assert secret not in operator.page.content()
    operator.button("Verify the books").click()
    operator.page.get_by_text("The books balance.").wait_for()


def test_a_cap_is_shown_and_stops_the_playground(open_console, server):
    operator = open_console().sign_in(ADMIN_KEY)
    create_tenant(operator, "Capped", credit="100.00")
    create_project(operator, "Capped", "main")
    secret = create_key(operator, "Capped", "main", "small", cap="40")
    operator.show("caps", "Caps")
    assert "40 tokens" in operator.main()

    tenant = open_console(server.url).sign_in(secret)
    tenant.expects_failures = True
    tenant.show("caps", "Caps")
    bar = tenant.page.get_by_role("meter")
    assert bar.get_attribute("aria-valuenow") == "0"
    tenant.show("playground", "Playground")
    tenant.page.get_by_label("Message (required)").fill("one two three four five six " * 20)
    tenant.button("Send").click()
    error = tenant.page.locator(".turn .form-error")
    error.wait_for()
    assert "cap" in error.inner_text().lower()
    # The operator raises it, and the same is answered.
    operator.button("Edit caps and limits of key small").click()
    dialog = operator.page.get_by_role("dialog")
    dialog.get_by_role("group", name="In all").get_by_label("Tokens").fill("4000")
    dialog.get_by_role("button", name="Save").click()
    operator.page.get_by_text("4,000 tokens").first.wait_for()
    ask(tenant, "one two three four five six " * 20, tokens="4")
    tenant.show("caps", "Caps")
    assert "of 4,000 tokens" in tenant.main()
    assert "0 used" not in tenant.main().split("Limits")[0].split("Caps")[-1]


def test_keys_are_rotated_and_revoked(open_console, server):
    operator = open_console().sign_in(ADMIN_KEY)
    create_tenant(operator, "Rotating", credit="1.00")
    create_project(operator, "Rotating", "main")
    first = create_key(operator, "Rotating", "main", "robot")
    operator.button("Rotate robot").click()
    dialog = operator.page.get_by_role("dialog")
    dialog.get_by_label("Hours until the old key ends").fill("1")
    dialog.get_by_role("button", name="Rotate").click()
    shown = operator.page.get_by_role("dialog", name="Copy the key now")
    second = shown.get_by_label("Secret key").input_value()
    shown.get_by_role("button", name="I have stored it").click()
    assert second != first

    def status(secret):
        return httpx.get(f"{server.url}/v1/account",
                         headers={"authorization": f"Bearer {secret}"}).status_code
    assert status(first) == status(second) == 200
    tenant = open_console(server.url).sign_in(second)
    tenant.expects_failures = True
    operator.show("keys", "Keys")
    row = operator.page.get_by_role("row", name=re.compile(re.escape(second[:11])))
    row.get_by_role("button", name=re.compile("^Revoke")).click()
    operator.page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    row.wait_for(state="detached")
    assert status(second) == 401
    tenant.page.goto(f"{server.url}/console/#/caps")
    tenant.page.get_by_label("Key").wait_for()  # signed out


def test_a_suspended_tenant_is_refused_and_resumed(open_console, server):
    operator = open_console().sign_in(ADMIN_KEY)
    create_tenant(operator, "Pausing", credit="1.00")
    operator.page.get_by_role("link", name="Pausing", exact=True).click()
    operator.button("Suspend").click()
    operator.page.get_by_role("dialog").get_by_role("button", name="Suspend").click()
    operator.page.get_by_text("suspended", exact=True).wait_for()
    operator.button("Resume").click()
    operator.page.get_by_text("active", exact=True).wait_for()


def test_a_lease_is_made_and_cancelled(open_console, server):
    operator = open_console().sign_in(ADMIN_KEY)
    add_price(operator, "per share-hour", "1.50", tier="lease")
    create_tenant(operator, "Leasing", credit="50.00")
    operator.show("leases", "Leases")
    operator.button("New lease").first.click()
    dialog = operator.page.get_by_role("dialog", name="New lease")
    dialog.get_by_label("Tenant").select_option(label="Leasing")
    dialog.get_by_label("Share of the device (%)").fill("25")
    dialog.get_by_role("button", name="Create").click()
    row = operator.page.get_by_role("row", name=re.compile("Leasing"))
    row.wait_for()
    assert "25%" in row.inner_text() and "9.00" in row.inner_text()  # 24 h at 1.50, a quarter
    operator.button("Cancel the lease of Leasing").click()
    operator.page.get_by_role("dialog").get_by_role("button", name="Cancel the lease").click()
    operator.page.get_by_text("cancelled").first.wait_for()


def test_hostile_names_through_the_real_api(open_console, server):
    operator = open_console().sign_in(ADMIN_KEY)
    create_tenant(operator, HOSTILE, credit="1.00")
    for place in ("tenants", "caps", "usage", "audit"):
        operator.show(place)
        assert operator.page.evaluate("window.hacked") is None
        assert operator.page.locator("main img, main script").count() == 0
    assert HOSTILE in operator.show("tenants", "Tenants").page.evaluate(
        "document.querySelector('main').textContent")


def test_charts_move_while_work_is_done(open_console, server):
    tenant = open_console().sign_in(server.developer_key)
    for _ in range(2):
        httpx.post(f"{server.url}/v1/chat/completions", timeout=60,
                   headers={"authorization": f"Bearer {server.developer_key}"},
                   json={"model": "demo", "max_tokens": 32,
                         "messages": [{"role": "user", "content": "Hello"}]})
    tenant.show("overview", "Overview")
    tenant.until("document.querySelectorAll('figure path.line')[2].getAttribute('d') !== null")
    tiles = tenant.page.inner_text(".tiles")
    assert " generated in all" in tiles and "–" not in tiles.split("Time to first token")[1][:12]
    assert "demo" in tenant.main()


# ---- What the server sends

@pytest.mark.parametrize("port", ["admin_url", "url"])
def test_every_file_binds_the_browser(server, port):
    url = getattr(server, port)
    answer = httpx.get(f"{url}/console/")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    redirected = httpx.get(f"{url}/console")
    assert redirected.status_code == 308 and redirected.headers["location"] == "/console/"


@pytest.mark.parametrize("path", [
    "/console/../models", "/console/%2e%2e/v1/models", "/console/%2e%2e%2fetc%2fpasswd",
    "/console/..%5c..%5cetc", "/console//etc/passwd", "/console/app.js%00.html",
    "/console/pages%2fusage.js", "/console/./app.js", "/console/pages/"])
def test_paths_lead_nowhere(server, path):
    port = urllib.parse.urlsplit(server.url).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_accept_encoding=True)  # as it is, unlike httpx
    connection.endheaders()
    assert connection.getresponse().status == 404
    connection.close()
