"""What the console does with what servers say, good and bad. Against the mock."""

import json

import pytest

from mock_server import ADMIN_KEY, HOSTILE, TENANT_KEY

OPERATOR_PAGES = {
    "overview": "Overview", "tenants": "Tenants", "keys": "Keys", "caps": "Caps", "usage": "Usage",
    "leases": "Leases", "prices": "Price book", "invoices": "Invoices", "audit": "Audit",
}
TENANT_PAGES = {name: title for name, title in OPERATOR_PAGES.items()
                if name not in ("tenants", "audit")}


# ---- Signing in

def test_a_wrong_key_is_refused_in_words(console):
    console.expects_failures = True
    console.open()
    console.page.get_by_label("Key").fill("mp-WRONGKEY-" + "y" * 40)
    console.button("Sign in").click()
    assert "No such key" in console.page.get_by_role("alert").inner_text()
    assert console.page.locator("nav").count() == 0
    assert console.page.evaluate("sessionStorage.length") == 0
    # And the right one is taken after it.
    console.page.get_by_label("Key").fill(TENANT_KEY)
    console.page.keyboard.press("Enter")
    console.page.wait_for_selector("nav")


def test_an_empty_key_is_not_sent(console, mock):
    console.open()
    console.button("Sign in").click()
    assert console.page.get_by_role("alert").inner_text().startswith("Key:")
    assert mock.state.asked == []
    assert console.page.evaluate("document.activeElement.name") == "key"


def test_roles_see_their_pages(operator, mock):
    links = operator.page.locator("nav a").all_inner_texts()
    assert {"Tenants", "Audit"} <= set(links)
    operator.button("Sign out").click()
    mock.state.asked.clear()
    operator.sign_in(TENANT_KEY)
    links = operator.page.locator("nav a").all_inner_texts()
    assert not {"Tenants", "Audit"} & set(links)
    assert "Northwind Research" in operator.page.inner_text("header")
    # A tenant's key is never shown to the admin API.
    assert not [path for _, path, _ in mock.state.asked if path.startswith("/admin")]


def test_the_key_stays_in_its_tab_and_goes_when_signing_out(tenant):
    tenant.page.reload()
    tenant.page.wait_for_selector("nav")
    assert tenant.page.evaluate("localStorage.length") == 0
    assert tenant.page.evaluate("document.cookie") == ""
    other = tenant.context.new_page()
    other.goto(tenant.url + "/console/")
    other.get_by_label("Key").wait_for()
    other.close()
    tenant.button("Sign out").click()
    assert tenant.page.evaluate("sessionStorage.length") == 0
    tenant.page.reload()
    tenant.page.get_by_label("Key").wait_for()


def test_says_when_the_server_keeps_no_accounts(console, mock):
    console.expects_failures = True
    for path in ("/admin/v1/overview", "/v1/account"):
        mock.state.failing[path] = (404, "not_found", "no such path")
    console.open()
    console.page.get_by_label("Key").fill(ADMIN_KEY)
    console.button("Sign in").click()
    # The other way needs another key here; a server without a ledger says 404 to both.
    console.page.get_by_role("alert").wait_for()
    console.page.get_by_label("Key").fill(TENANT_KEY)
    console.button("Sign in").click()
    console.page.get_by_role("alert").wait_for()
    assert console.page.locator("nav").count() == 0


def test_a_key_that_ends_leads_back_to_signing_in(tenant, mock):
    tenant.expects_failures = True
    tenant.show("caps", "Caps")
    mock.state.failing["/v1/account"] = (401, "invalid_api_key", "revoked")
    tenant.page.get_by_role("link", name="Leases").click()
    tenant.page.get_by_label("Key").wait_for()
    assert "revoked" in tenant.page.inner_text("main")
    assert tenant.page.evaluate("sessionStorage.length") == 0


def test_a_server_that_is_gone_can_be_tried_again(tenant, mock):
    tenant.expects_failures = True
    tenant.context.set_offline(True)
    tenant.page.get_by_role("link", name="Caps").click()
    alert = tenant.page.get_by_role("alert")
    assert "does not answer" in alert.inner_text()
    tenant.context.set_offline(False)
    tenant.button("Try again").click()
    tenant.page.get_by_role("heading", name="Limits").wait_for()


# ---- Every page

@pytest.mark.parametrize("place", OPERATOR_PAGES)
def test_operators_pages_show_what_there_is(operator, place):
    operator.show(place, OPERATOR_PAGES[place])
    assert operator.page.get_by_role("alert").count() == 0
    assert "Northwind Research" in operator.main() or place in ("overview", "prices", "usage")
    assert operator.page.title() == f"{OPERATOR_PAGES[place]} · Millpower"
    assert operator.page.locator("nav a[aria-current=page]").inner_text() == OPERATOR_PAGES[place]


@pytest.mark.parametrize("place", TENANT_PAGES)
def test_tenants_pages_show_what_there_is(tenant, mock, place):
    tenant.show(place, TENANT_PAGES[place])
    assert tenant.page.get_by_role("alert").count() == 0
    assert not [path for _, path, _ in mock.state.asked if path.startswith("/admin")]


@pytest.mark.parametrize("place,path", [
    ("tenants", "/admin/v1/tenants"), ("keys", "/admin/v1/keys"), ("caps", "/admin/v1/projects"),
    ("usage", "/admin/v1/usage"), ("leases", "/admin/v1/leases"), ("prices", "/admin/v1/prices"),
    ("invoices", "/admin/v1/invoices"), ("audit", "/admin/v1/audit"),
    ("overview", "/admin/v1/overview")])
def test_a_page_that_fails_says_so_and_recovers(operator, mock, place, path):
    operator.expects_failures = True
    operator.show("prices" if place != "prices" else "audit")
    mock.state.failing[path] = (503, "unavailable", "the disk is full")
    operator.page.goto(f"{operator.url}/console/#/{place}")
    alert = operator.page.get_by_role("alert")
    alert.wait_for()
    assert "the disk is full" in alert.inner_text()
    mock.state.failing.clear()
    operator.button("Try again").click()
    operator.until("!document.querySelector('main [role=alert]')")
    assert "the disk is full" not in operator.main()


def test_a_place_that_does_not_exist(operator):
    operator.show("nowhere/at/all%ff", "No such page")
    operator.page.locator("main").get_by_role("link", name="Overview").click()
    operator.page.get_by_role("heading", name="Overview", level=1).wait_for()


def test_empty_states_say_what_to_do(operator, mock):
    for things in (mock.state.tenants, mock.state.projects, mock.state.keys):
        things.clear()
    mock.state.leases = lambda: []
    mock.state.prices = lambda: []
    mock.state.rows = mock.state.usage = lambda: []
    for place, says in (("tenants", "no tenant yet"), ("keys", "no such key"),
                        ("caps", "Nothing has a cap"), ("leases", "Nobody has leased"),
                        ("prices", "There is no price"), ("usage", "Nothing was used"),
                        ("invoices", "no invoice")):
        operator.show(place, OPERATOR_PAGES[place])
        assert says in operator.main()


# ---- Charts

def test_charts_follow_and_are_there_as_text(operator, mock):
    operator.show("overview", "Overview")
    chart = operator.page.locator("figure", has_text="Tokens per second")
    picture = chart.get_by_role("img")
    operator.until(
        "document.querySelector('figure path.line').getAttribute('d')?.includes('L')")
    label = picture.evaluate("(e) => e.getAttribute('aria-labelledby').split(' ')"
                             ".map((id) => document.getElementById(id).textContent).join(' ')")
    assert label.startswith("Tokens per second generated: now ")
    chart.locator("summary").click()
    table = chart.get_by_role("table")
    table.wait_for()
    rows = table.locator("tbody tr").count()
    assert rows >= 3
    operator.until(
        f"document.querySelectorAll('figure tbody tr').length > {rows}")
    # The mock makes 137 tokens between two looks, 2 s apart and the time that a look takes.
    value = float(chart.locator(".legend .value").first.inner_text())
    assert 137 / 3 < value < 137 / 1.9


def test_polling_ends_with_the_page(operator, mock):
    operator.show("overview", "Overview")
    operator.show("prices", "Price book")
    operator.page.wait_for_timeout(200)
    before = len(mock.state.asked)
    operator.page.wait_for_timeout(2500)
    assert len(mock.state.asked) == before


def test_overview_survives_a_restart_of_the_server(operator, mock):
    operator.show("overview", "Overview")
    mock.state.generated = 5  # counters went back
    operator.until(
        "document.querySelector('.tile dd.hint').textContent.startsWith('1')")
    assert "-" not in operator.page.locator(".tile dd").first.inner_text()


# ---- Hostile names

def test_names_never_become_markup(operator, mock):
    mock.state.model_name = HOSTILE
    mock.state.faults = [HOSTILE]
    for place, title in OPERATOR_PAGES.items():
        operator.show(place, title)
        assert operator.page.evaluate("window.hacked") is None
        assert operator.page.locator("main img, main script, main iframe").count() == 0
        if place not in ("audit", "leases"):
            assert HOSTILE in operator.page.evaluate("document.querySelector('main').textContent")
    operator.button("Verify the books").click()
    operator.page.get_by_text(HOSTILE).first.wait_for()
    operator.show(f"tenants/{mock.state.tenants[3]['id']}", HOSTILE)
    operator.button("Suspend").click()
    assert HOSTILE in operator.page.locator("dialog h2").inner_text()
    operator.page.keyboard.press("Escape")
    operator.show(f"invoices/{mock.state.tenants[3]['id']}/2026-11")
    assert operator.page.evaluate("window.hacked") is None


def test_errors_and_answers_never_become_markup(tenant, mock):
    tenant.expects_failures = True
    mock.state.stream = [HOSTILE[:9], HOSTILE[9:]]
    mock.state.reasoning = [HOSTILE]
    ask(tenant, HOSTILE)
    tenant.page.get_by_text("Generated tokens").wait_for()
    assert tenant.page.locator("main img, main script").count() == 0
    assert tenant.page.locator(".said").all_inner_texts() == [HOSTILE, HOSTILE]
    mock.state.failing["/v1/account"] = (500, "internal", HOSTILE)
    tenant.page.goto(f"{tenant.url}/console/#/caps")
    assert HOSTILE in tenant.page.get_by_role("alert").inner_text()
    assert tenant.page.evaluate("window.hacked") is None


def test_markup_cannot_be_made_even_by_mistake(operator):
    """Trusted types: the browser stops a script that hands text to its HTML parser."""
    stopped = operator.page.evaluate(
        "() => { try { document.body.innerHTML = '<p>x'; } catch (e) { return e.name; } }")
    assert stopped == "TypeError"
    operator.complaints.clear()  # the browser says that it stopped it


# ---- Playground

def ask(console, text, **fields):
    console.show("playground", "Playground")
    for label, value in fields.items():
        console.page.get_by_label(label.replace("_", " ")).fill(value)
    console.page.get_by_label("Message", exact=False).last.fill(text)
    console.button("Send").click()


def test_an_answer_streams_with_its_reasoning_apart(tenant, mock):
    mock.state.delay_s = 0.1
    ask(tenant, "hello", System_message="Be brief.", Temperature="0.5", Most_tokens="64")
    answer = tenant.page.locator(".turn").nth(1)
    tenant.until("document.querySelectorAll('.turn .said')[1]?.textContent === 'Hello, '")
    assert answer.get_attribute("aria-busy") == "true"  # in the middle of it
    assert not tenant.button("Send").is_enabled()
    tenant.page.get_by_text("Generated tokens").wait_for()
    assert answer.locator(".said").inner_text() == "Hello, world."
    assert answer.get_attribute("aria-busy") is None
    answer.locator("summary").click()
    assert answer.locator(".thinking").inner_text() == "Thinking about it."
    numbers = tenant.page.locator(".answer-numbers").inner_text()
    assert "36 (16 cached)" in numbers and "128" in numbers and "stop" in numbers
    assert "0.000321 USD" in numbers
    method, path, body = next(each for each in mock.state.asked if each[0] == "POST")
    assert body["messages"] == [{"role": "system", "content": "Be brief."},
                                {"role": "user", "content": "hello"}]
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0.5, 64, True)
    # The conversation goes on.
    tenant.page.get_by_label("Message (required)").fill("more")
    tenant.page.keyboard.press("Control+Enter")
    tenant.until("document.querySelectorAll('.turn').length === 4")
    tenant.page.get_by_text("Generated tokens").wait_for()
    body = [each[2] for each in mock.state.asked if each[0] == "POST"][-1]
    assert [message["content"] for message in body["messages"]] == [
        "Be brief.", "hello", "Hello, world.", "more"]


def test_stop_ends_the_request(tenant, mock):
    mock.state.stream = ["word "] * 1000
    ask(tenant, "go on for ever")
    tenant.until(
        "document.querySelectorAll('.turn .said')[1]?.textContent.length > 10")
    tenant.button("Stop").click()
    tenant.page.get_by_text("Stopped. What was generated until then is billed.").wait_for()
    assert tenant.button("Send").is_enabled()
    assert not tenant.button("Stop").is_enabled()


def test_an_answer_that_is_cut_off_says_so(tenant, mock):
    mock.state.cut_off = True
    ask(tenant, "hello")
    tenant.page.get_by_text("The answer was cut off: the server went away.").wait_for()


def test_a_refusal_is_shown_in_the_conversation(tenant, mock):
    tenant.expects_failures = True
    mock.state.failing["/v1/chat/completions"] = (
        429, "insufficient_quota", "the cap of 10.00 USD in all is used up")
    ask(tenant, "hello")
    tenant.page.get_by_text("the cap of 10.00 USD in all is used up").first.wait_for()
    mock.state.failing.clear()
    tenant.page.get_by_label("Message (required)").fill("again")
    tenant.button("Send").click()
    tenant.page.get_by_text("Generated tokens").wait_for()
    # What was refused is not asked again.
    assert len(mock.state.asked[-2][2].get("messages", [])) <= 1


def test_an_operator_is_asked_for_a_key(operator, mock):
    operator.expects_failures = True
    operator.show("playground", "Playground")
    operator.page.get_by_label("API key to use").fill("mp-WRONGKEY-" + "y" * 40)
    operator.button("Use this key").click()
    operator.page.get_by_text("The server does not know that key.").wait_for()
    operator.page.get_by_label("API key to use").fill(TENANT_KEY)
    operator.button("Use this key").click()
    operator.page.get_by_label("Message (required)").fill("hello")
    operator.button("Send").click()
    operator.page.get_by_text("Generated tokens").wait_for()
    stored = operator.page.evaluate("JSON.stringify(sessionStorage)")
    assert TENANT_KEY not in stored


# ---- Changes

def test_a_form_shows_what_the_server_refuses(operator, mock):
    operator.expects_failures = True
    operator.show("tenants", "Tenants")
    operator.button("New tenant").click()
    dialog = operator.page.get_by_role("dialog", name="New tenant")
    dialog.get_by_role("button", name="Create").click()
    assert "Name" in dialog.get_by_role("alert").inner_text()  # not sent at all
    mock.state.failing["/admin/v1/tenants"] = (409, "already_exists", "there is such a tenant")
    dialog.get_by_label("Name").fill("Northwind Research")
    dialog.get_by_role("button", name="Create").click()
    dialog.get_by_text("there is such a tenant").wait_for()
    mock.state.failing.clear()
    dialog.get_by_label("Name").fill("Someone new")
    today = dialog.get_by_role("group", name="Each day")
    today.get_by_label("Money (USD)").fill("nonsense")
    dialog.get_by_role("button", name="Create").click()
    assert "an amount like 5.00" in dialog.get_by_role("alert").inner_text()
    today.get_by_label("Money (USD)").fill("2.50")
    today.get_by_label("Tokens").fill("1000")
    dialog.get_by_label("Requests per minute").fill("60")
    dialog.get_by_role("button", name="Create").click()
    operator.page.get_by_role("link", name="Someone new").wait_for()
    body = [each[2] for each in mock.state.asked if each[0] == "POST"][-1]
    assert body == {"name": "Someone new", "credit_line": "0.00",
                    "caps": [{"period": "day", "measure": "money", "limit": "2.50"},
                             {"period": "day", "measure": "tokens", "limit": 1000}],
                    "limits": {"requests_per_minute": 60, "tokens_per_minute": 0,
                               "concurrent_requests": 0}}


def test_a_secret_is_shown_once(operator, mock):
    operator.context.grant_permissions(["clipboard-read", "clipboard-write"])
    operator.show("keys", "Keys")
    operator.button("Rotate production").click()
    dialog = operator.page.get_by_role("dialog", name="Rotate production")
    dialog.get_by_label("Hours until the old key ends").fill("1.5")
    dialog.get_by_role("button", name="Rotate").click()
    shown = operator.page.get_by_role("dialog", name="Copy the key now")
    secret = shown.get_by_label("Secret key").input_value()
    assert secret.startswith("mp-NEWKEY00-")
    shown.get_by_role("button", name="Copy", exact=True).click()
    shown.get_by_text("Copied.").wait_for()
    assert operator.page.evaluate("navigator.clipboard.readText()") == secret
    shown.get_by_role("button", name="I have stored it").click()
    operator.until("!document.querySelector('dialog')")
    assert secret not in operator.page.content()
    assert ("POST", f"/admin/v1/keys/{mock.state.keys[0]['id']}/rotate",
            {"overlap_s": 5400}) in mock.state.asked


def test_bars_say_what_they_show(operator):
    operator.show("caps", "Caps")
    bars = operator.page.get_by_role("meter").all()
    labels = [bar.evaluate("(e) => document.getElementById(e.getAttribute('aria-labelledby'))"
                           ".textContent") for bar in bars]
    assert "Today, money1.25 used + 0.0321 held of 2.00 USD" in labels
    assert [bar.get_attribute("aria-valuenow") for bar in bars] == ["64", "93", "100"]
    assert "full" in bars[2].get_attribute("class")


def test_verification_tells_faults(operator, mock):
    operator.show("audit", "Audit")
    operator.button("Verify the books").click()
    operator.page.get_by_text("The books balance.").wait_for()
    mock.state.faults = ["usage 7 is not what was posted"]
    operator.button("Verify the books").click()
    operator.page.get_by_text("The books do not balance.").wait_for()
    assert "usage 7 is not what was posted" in operator.main()


def test_audit_pages_on_and_back(operator):
    operator.show("audit", "Audit")

    def numbers():
        return operator.page.locator("tbody th").all_inner_texts()
    assert numbers()[0] == "1" and len(numbers()) == 50
    assert not operator.button("Earlier").is_enabled()
    operator.button("Later").click()
    operator.until("document.querySelector('tbody th').textContent === '51'")
    operator.button("Later").click()
    operator.until("document.querySelector('tbody th').textContent === '101'")
    assert not operator.button("Later").is_enabled()
    operator.button("Earlier").click()
    operator.until("document.querySelector('tbody th').textContent === '51'")


def test_usage_is_added_up_exactly_and_exported(tenant, mock):
    tenant.show("usage", "Usage")
    # 1.000001 + 2.000001 + 3.000001, which binary fractions would not give.
    assert tenant.page.locator("tfoot").inner_text().split()[-1] == "6.000003"
    with tenant.page.expect_download() as download:
        tenant.button("Export CSV").click()
    assert download.value.suggested_filename.endswith(".csv")
    with open(download.value.path(), "rb") as file:
        assert file.read() == b"day,model,amount\r\n2026-11-01,demo,1.000001\r\n"
    with tenant.page.expect_download() as download:
        tenant.button("Export JSON").click()
    with open(download.value.path(), "rb") as file:
        assert len(json.load(file)["data"]) == 3
    tenant.page.get_by_label("Through (UTC)").fill("2026-11-30")
    tenant.page.get_by_label("model", exact=True).uncheck()
    tenant.button("Show").click()
    tenant.until("location.hash.includes('group_by=day')")
    path = [each[1] for each in mock.state.asked if each[1].startswith("/v1/usage?")][-1]
    assert "to=2026-12-01" in path and "group_by=day" in path and "tenant" not in path
