"""Used with a keyboard, a screen reader, little room, or other colours. Against the mock."""

import pytest
from axe_playwright_python.base import AXE_SCRIPT

from mock_server import ADMIN_KEY, TENANT_KEY
from test_states import OPERATOR_PAGES, TENANT_PAGES

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What a keyboard must reach.
REACHABLE = ("a[href], button:not([disabled]), input:not([disabled]), select, textarea, summary, "
             "[tabindex='0']")


def faults(console):
    """What axe-core finds: contrast, names, roles, landmarks, order of headings and more."""
    console.page.evaluate(AXE_SCRIPT)
    found = console.page.evaluate(
        "(rules) => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES)
    return [f"{each['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
            for each in found["violations"] for node in each["nodes"]]


@pytest.mark.browser(color_scheme="light", reduced_motion="reduce")
def test_operators_pages_have_no_known_fault(operator, mock):
    pages = {**OPERATOR_PAGES, "playground": "Playground",
             f"tenants/{mock.state.tenants[0]['id']}": "Northwind Research",
             f"invoices/{mock.state.tenants[0]['id']}/2026-11": None}
    for place, title in pages.items():
        operator.show(place, title)
        assert faults(operator) == [], place


@pytest.mark.browser(color_scheme="dark", reduced_motion="reduce")
def test_pages_in_the_dark_have_no_known_fault(operator):
    for place, title in OPERATOR_PAGES.items():
        operator.show(place, title)
        assert faults(operator) == [], place


@pytest.mark.browser(color_scheme="light", reduced_motion="reduce")
def test_tenants_pages_have_no_known_fault(console, mock):
    console.open()
    assert faults(console) == []
    console.sign_in(TENANT_KEY)
    for place, title in {**TENANT_PAGES, "playground": "Playground"}.items():
        console.show(place, title)
        assert faults(console) == [], place


@pytest.mark.browser(color_scheme="dark", reduced_motion="reduce")
def test_dialogs_have_no_known_fault(operator):
    for place, opens in (("tenants", "New tenant"), ("keys", "New key"), ("leases", "New lease"),
                         ("prices", "New price"), ("keys", "Revoke production"),
                         ("keys", "Rotate production")):
        operator.show(place, OPERATOR_PAGES[place])
        operator.button(opens).first.click()
        operator.page.get_by_role("dialog").wait_for()
        assert faults(operator) == [], opens
        operator.page.keyboard.press("Escape")


def focused(page):
    return page.evaluate("document.activeElement.textContent || document.activeElement.name")


def test_the_first_tab_skips_to_the_content(operator):
    operator.show("prices", "Price book")
    operator.page.reload()
    operator.page.get_by_role("heading", name="Price book", level=1).wait_for()
    operator.page.keyboard.press("Tab")
    assert focused(operator.page) == "Skip to content"
    box = operator.page.locator("a.skip").bounding_box()
    assert box["y"] >= 0  # it can be seen while it has the focus
    operator.page.keyboard.press("Enter")
    assert operator.page.evaluate("document.activeElement.id") == "main"
    assert operator.page.evaluate("location.hash") == "#/prices"
    operator.page.keyboard.press("Tab")
    assert operator.page.evaluate("document.querySelector('main').contains(document.activeElement)")


@pytest.mark.parametrize("place", [*OPERATOR_PAGES, "playground"])
def test_tab_reaches_everything(operator, place):
    operator.show(place, OPERATOR_PAGES.get(place))
    operator.page.evaluate("document.activeElement.blur()")
    operator.page.evaluate(
        "(what) => [...document.querySelectorAll(what)].forEach((e, i) => { e.dataset.at = i; })",
        REACHABLE)
    wanted = set(operator.page.evaluate(
        "(what) => [...document.querySelectorAll(what)].filter((e) => e.checkVisibility())"
        ".map((e) => e.dataset.at)", REACHABLE))
    assert len(wanted) > 5
    reached = set()
    for _ in range(4 * len(wanted) + 20):  # dates and times take several
        operator.page.keyboard.press("Tab")
        at, outlined = operator.page.evaluate(
            "() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [e.dataset.at, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0]; }")
        if at is not None:
            assert outlined, f"no visible focus on element {at}"
            reached.add(at)
        if wanted <= reached:
            break
    assert wanted <= reached


def test_all_by_keyboard_from_signing_in_to_a_new_tenant(console, mock):
    page = console.open().page
    page.keyboard.type(ADMIN_KEY)  # the field has the focus
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Overview", level=1).wait_for()
    assert focused(page) == "Overview"  # focus is at the new page's heading
    for _ in range(30):
        page.keyboard.press("Shift+Tab")
        if focused(page) == "Tenants":
            break
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Tenants", level=1).wait_for()
    assert focused(page) == "Tenants"
    page.get_by_role("button", name="New tenant").wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "New tenant"
    page.keyboard.press("Enter")
    assert focused(page) == "name"
    for _ in range(40):  # focus stays in the dialog, or the browser's own controls
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || "
            "document.querySelector('dialog').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert focused(page) == "New tenant"  # back to where it was
    page.keyboard.press("Enter")
    page.keyboard.type("By keyboard")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="By keyboard").wait_for()


def test_a_page_is_announced(operator):
    operator.page.get_by_role("link", name="Leases").click()
    operator.until(
        "document.getElementById('status').textContent.includes('Leases')")
    assert operator.page.locator("#status").get_attribute("aria-live") == "polite"


@pytest.mark.browser(viewport={"width": 360, "height": 740})
def test_a_phone_needs_no_scrolling_sideways(operator, mock):
    for place in [*OPERATOR_PAGES, "playground", f"tenants/{mock.state.tenants[3]['id']}"]:
        operator.show(place)
        assert operator.page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"), place


@pytest.mark.browser(reduced_motion="reduce")
def test_nothing_moves_for_who_wants_it_still(operator):
    operator.show("overview", "Overview")
    assert operator.page.evaluate(
        "[...document.querySelectorAll('*')].every((e) => "
        "getComputedStyle(e).animationName === 'none')")
