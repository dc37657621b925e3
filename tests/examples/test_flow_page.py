"""The page of examples/flow, played in a real browser: every step, every attack, by mouse and by keyboard."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dpop_middleware.authorization_server import CHECKS
from dpop_middleware.checks import CHECKS_OF_A_JWT
from tests.support.flow import HOUSE, Flow, decision_of, running_flow
from tests.support.webdriver import Browser, chromium, needs_chromium

pytestmark = [pytest.mark.slow, needs_chromium]

# Of each exchange of an attack: the check that must catch it, empty for what must be accepted.
ATTACKS = {
    "replay": ["", "jti"],
    "bearer": ["binding"],
    "own-key": ["jkt"],
    "method": ["htm"],
    "url": ["htu"],
    "old": ["iat"],
    "nonce": ["nonce", ""],
    "refresh": ["jkt"],
}


@pytest.fixture(scope="module")
def flow() -> Generator[Flow]:
    with running_flow() as origins:
        yield origins


@pytest.fixture
def client() -> Generator[httpx2.Client]:
    with httpx2.Client(trust_env=False) as one:
        yield one


def each(browser: Browser, selector: str, value: str = "one.textContent") -> list[Any]:
    """Return a JavaScript expression's value for `one` element after the other."""
    source = f"return [...document.querySelectorAll(arguments[0])].map((one) => {value})"
    return list(browser.script(source, selector))


def ready(browser: Browser) -> None:
    browser.wait_for("document.documentElement.dataset.ready === 'true'")


def unfold(browser: Browser, place: str) -> None:
    """Open a result by a click on its first line, where it isn't open."""
    if browser.script("return !document.querySelector(arguments[0])", f"{place} .fold[open]"):
        browser.script("document.querySelector(arguments[0]).click()", f"{place} .fold > summary")
    browser.wait_for("document.querySelector(arguments[0]) !== null", f"{place} .fold[open]")


def get_a_token(browser: Browser, flow: Flow) -> None:
    """Walk the four steps by clicks, through the authorization server's own page."""
    browser.open(flow.page)
    ready(browser)
    if browser.script("return !document.querySelector('#start-over').disabled"):
        browser.click("#start-over")
    browser.click("#make-key")
    browser.click("#ask")
    browser.find("form [value=allow]")
    assert browser.url.startswith(f"{flow.issuer}/authorize?")
    browser.click("form [value=allow]")
    browser.find("#step-authorize[data-done]")
    browser.click("#get-token")
    browser.find("#step-token[data-done]")
    browser.click("#call-api")
    browser.find("#step-api[data-done]")


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def played(browser: Browser, flow: Flow) -> Browser:
    """The browser, after the four steps."""
    get_a_token(browser, flow)
    return browser


def complaints(browser: Browser) -> list[dict[str, Any]]:
    """The errors in the console, except for the expected refusals: Chromium lists every 4xx."""
    refusal = re.compile(r"the server responded with a status of 40[01] ")
    return [
        entry
        for entry in browser.console()
        if not (entry["source"] == "network" and refusal.search(entry["message"]))
    ]


def test_each_step_shows_request_proof_token_and_checks(played: Browser, flow: Flow) -> None:
    assert played.url == f"{flow.page}/"  # the code is gone from the address
    assert "InvalidAccessError" in played.text("#key-result .verdict")
    states = "[one.dataset.check, one.dataset.state]"
    token_checks = each(played, "#token-result .checks li", states)
    assert [name for name, _ in token_checks] == [*CHECKS, "jkt"]
    api_checks = each(played, "#api-result .checks li", states)
    assert [name for name, _ in api_checks] == [check.value for check in CHECKS_OF_A_JWT]
    assert {state for _, state in api_checks} == {"passed", "not asked"}
    for step in ("token", "api"):
        titles = each(played, f"#{step}-result .panes > div > details > summary")
        assert [title.partition(":")[0] for title in titles] == [
            "The request",
            "The proof, decoded",
            "The access token, decoded",
            "The authorization server's checks" if step == "token" else "The API's checks",
            "The answer",
        ]
        bound = played.script(
            "return document.querySelector(arguments[0]).textContent", f"#{step}-result .bound"
        )
        assert bound == "✓ your key's thumbprint"
    assert complaints(played) == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_caught_by_the_check_that_is_named(played: Browser, attack: str) -> None:
    played.click(f"[data-attack={attack}]")
    played.find(f"#{attack}-result .lesson")
    caught = each(played, f"#{attack}-result article", "one.dataset.check")
    assert caught == ATTACKS[attack]
    for number, check in enumerate(caught, start=1):
        article = f"#{attack}-result article:nth-of-type({number})"
        failed = each(played, f"{article} li[data-state=failed]", "one.dataset.check")
        assert failed == ([check] if check else [])
        assert played.text(f"{article} .verdict").startswith(f"Caught by {check}" if check else "Accepted")
        assert played.text(f"{article} .status") in (("400", "401") if check else ("200",))
    spoken = played.script("return document.querySelector('[role=status]').textContent")
    assert all(check in spoken for check in caught)
    assert complaints(played) == []


def test_every_attack_is_tried(played: Browser) -> None:
    assert each(played, "[data-attack]", "one.dataset.attack") == list(ATTACKS)


def test_every_request_is_shown_as_a_curl_command(played: Browser, client: httpx2.Client) -> None:
    exchanges = each(played, ".exchange")
    assert len(each(played, ".curl pre")) == len(exchanges) - 1  # all but the key
    (line,) = each(played, "#api-result .curl pre")
    words = shlex.split(line)
    assert words[:2] == ["curl", "-i"]
    headers = dict(words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H")
    again = client.get(words[2], headers=headers)
    assert (again.status_code, decision_of(again)["check"]) == (401, "jti")
    if shutil.which("curl"):
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, timeout=600)
        assert done.stdout.startswith("HTTP/1.1 401")


def test_a_curl_command_is_copied_with_one_click(played: Browser) -> None:
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    played.devtools("Browser.grantPermissions", permissions=permissions)
    unfold(played, "#api-result")
    played.click("#api-result .copy")
    played.wait_for("document.querySelector('#api-result .copy').textContent === 'Copied'")
    assert played.script("return document.querySelector('[role=status]').textContent") == "Copied."
    read = "navigator.clipboard.readText().then(arguments[0])"
    copied = played.command("POST", "/execute/async", script=read, args=[])
    assert [copied] == each(played, "#api-result .curl pre")


def test_the_key_survives_a_reload_and_still_can_not_be_read(played: Browser) -> None:
    jkt = "return JSON.parse(sessionStorage.getItem('steps')).key.jkt"
    before = played.script(jkt)
    played.command("POST", "/refresh")
    ready(played)
    assert played.script(jkt) == before
    assert played.script("return sessionStorage.getItem('steps').includes('\"d\":')") is False
    played.click("#call-api")
    played.wait_for("document.querySelector('#api-result .status').textContent === '200'")
    loaded = """
        const [done] = arguments;
        import("/memory.js").then(async ({ loadKey }) => {
          const { privateKey } = await loadKey();
          const copy = await crypto.subtle.exportKey("pkcs8", privateKey).catch((error) => error.name);
          done([privateKey.extractable, copy]);
        });
    """
    assert played.command("POST", "/execute/async", script=loaded, args=[]) == [False, "InvalidAccessError"]


def test_a_foreign_answer_is_not_accepted(browser: Browser, flow: Flow) -> None:
    browser.open(f"{flow.page}/?code=stolen&state=guessed&iss={flow.issuer}")
    ready(browser)
    assert "state differs" in browser.text("#trouble")
    assert browser.url == f"{flow.page}/"
    assert complaints(browser) == []


def test_a_refused_consent_is_shown(browser: Browser, flow: Flow) -> None:
    browser.open(flow.page)
    ready(browser)
    if browser.script("return !document.querySelector('#start-over').disabled"):
        browser.click("#start-over")
    browser.click("#make-key")
    browser.click("#ask")
    browser.click("form [value=deny]")
    ready(browser)
    assert "access_denied" in browser.text("#trouble")
    browser.click("#ask")
    browser.click("form [value=allow]")
    browser.find("#step-authorize[data-done]")
    assert browser.script("return document.querySelector('#trouble').hidden") is True


TAB, ENTER = "\ue004", "\ue007"
FOCUSED = "return document.activeElement.id || document.activeElement.value || document.activeElement.tagName"


def tab_to(browser: Browser, wanted: str) -> None:
    """Press Tab until the focus is there, as a user without a mouse does."""
    for _ in range(80):
        if browser.script(FOCUSED) == wanted:
            return
        browser.press(TAB)
    raise AssertionError(f"{wanted} is not reached by the Tab key")


def test_the_whole_flow_works_by_keyboard(browser: Browser, flow: Flow) -> None:
    browser.open(flow.page)
    ready(browser)
    if browser.script("return !document.querySelector('#start-over').disabled"):
        browser.click("#start-over")
        browser.command("POST", "/refresh")
        ready(browser)
    for button, done in (("make-key", "#step-key[data-done]"), ("ask", "form [value=allow]")):
        tab_to(browser, button)
        browser.press(ENTER)
        browser.find(done)
    tab_to(browser, "allow")
    browser.press(ENTER)
    browser.find("#step-authorize[data-done]")
    for button, step in (("get-token", "token"), ("call-api", "api")):
        tab_to(browser, button)
        browser.press(ENTER)
        browser.find(f"#step-{step}[data-done]")
        assert browser.script("return document.activeElement.closest('.step').id") == f"step-{step}"
    spoken = browser.script("return document.querySelector('[role=status]').textContent")
    assert spoken == "Step 4: Accepted by the API: every check that it made passed."


NAMELESS = """
    const name = (one) => (one.getAttribute("aria-label") ?? one.textContent).trim();
    return [...document.querySelectorAll("button, summary, a, section, h1, h2, h3, h4, h5")]
      .filter((one) => !name(one)).map((one) => one.outerHTML);
"""
LANDMARKS = """
    return ["body > header", "main", "body > footer", "section[aria-labelledby]", "[role=alert]",
      "[role=status][aria-live=polite]", "html[lang=en]", "meta[name=viewport]", "a.skip[href='#flow']"]
      .filter((selector) => !document.querySelector(selector));
"""


def test_screen_readers_find_landmarks_names_and_levels(played: Browser) -> None:
    assert played.script(LANDMARKS) == []
    assert played.script(NAMELESS) == []
    levels = each(played, "h1, h2, h3, h4, h5", "Number(one.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= level + 1 for level, later in itertools.pairwise(levels))
    ids = each(played, "[id]", "one.id")
    assert len(ids) == len(set(ids))


# WCAG 2.2, 1.4.3: the contrast of each text with what is painted under it.
FAINT = """
    for (const one of document.querySelectorAll("details")) one.open = true;
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = (rgb) => {
      const [r, g, b] = rgb.map((value) => value / 255)
        .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (node) => {
      for (let one = node; one; one = one.parentElement) {
        const [r, g, b, alpha = 1] = numbers(getComputedStyle(one).backgroundColor);
        if (alpha > 0) return [r, g, b];
      }
      return [255, 255, 255];
    };
    const faint = new Set();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
      if (node.matches("button:disabled")) continue;
      const [first, second] = [numbers(getComputedStyle(node).color), ground(node)]
        .map((colour) => luminance(colour.slice(0, 3)));
      const ratio = (Math.max(first, second) + 0.05) / (Math.min(first, second) + 0.05);
      if (ratio < 4.5) faint.add(`${node.tagName}.${node.className}: ${ratio.toFixed(2)}`);
    }
    return [...faint];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_it_is_readable_in_the_dark_and_on_a_phone(played: Browser, scheme: str, width: int) -> None:
    played.devtools(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    played.devtools(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 800
    )
    try:
        ground = played.script("return getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", ground))) < 128) is (scheme == "dark")
        assert played.script(FAINT) == []
        assert played.script("return document.documentElement.scrollWidth <= innerWidth") is True
        assert all(each(played, "pre, dd", "one.scrollWidth <= one.clientWidth"))
        heights = each(played, "button", "one.offsetHeight")
        assert min(height for height in heights if height) >= 32
    finally:
        played.devtools("Emulation.clearDeviceMetricsOverride")
        played.devtools("Emulation.setEmulatedMedia", features=[])


def test_a_ticket_opens_one_websocket(played: Browser) -> None:
    played.console()
    played.click("#open-socket")
    played.find("#socket-story")
    story = played.text("#socket-story")
    assert "The WebSocket is open, with the subprotocol dpop.ticket. It says: hello, user123" in story
    assert "A second WebSocket with the same ticket is refused." in story
    assert played.text("#socket-result .status") == "200"
    refused = [entry["message"] for entry in played.console()]
    assert len(refused) == 1, refused
    assert "/live' failed: HTTP Authentication failed" in refused[0]


def test_a_page_of_another_origin_can_not_use_a_ticket(played: Browser, flow: Flow) -> None:
    fresh = """
        const [resource, done] = arguments;
        Promise.all([import("/dpop.js"), import("/memory.js")]).then(async ([dpop, memory]) => {
          const { accessToken } = memory.loadSteps();
          const url = `${resource}/ticket`;
          const proof = await dpop.makeProof(await memory.loadKey(), { method: "POST", url, accessToken });
          const headers = { Authorization: `DPoP ${accessToken}`, DPoP: proof.text };
          done((await (await fetch(url, { method: "POST", headers })).json()).ticket);
        });
    """
    ticket = played.command("POST", "/execute/async", script=fresh, args=[flow.resource])
    knock = """
        const [resource, ticket, done] = arguments;
        const address = resource.replace("http", "ws") + "/live";
        const socket = new WebSocket(address, ["dpop.ticket", `dpop.ticket.${ticket}`]);
        socket.onopen = () => done("opened");
        socket.onclose = ({ code }) => done(code);
    """
    played.open(f"{flow.resource}/nothing")  # a page of the API's own origin
    assert played.command("POST", "/execute/async", script=knock, args=[flow.resource, ticket]) == 1006
    played.open(flow.page)
    ready(played)
    assert played.command("POST", "/execute/async", script=knock, args=[flow.resource, ticket]) == "opened"
    played.console()


THREE_SCREENS = 3 * 900


def height_of(browser: Browser) -> int:
    return int(browser.script("return document.documentElement.scrollHeight"))


def test_of_all_results_one_is_open_and_the_page_stays_under_three_screens(played: Browser) -> None:
    played.devtools(
        "Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False
    )
    try:
        for attack in ATTACKS:
            played.click(f"[data-attack={attack}]")
            played.wait_for("document.querySelector(arguments[0]) !== null", f"#{attack}-result .fold[open]")
            (shown,) = each(played, ".fold[open]", "one.closest('.attack-result')?.id")
            assert shown == f"{attack}-result"
            assert height_of(played) < THREE_SCREENS
        for step in ("key", "authorize", "token", "api", "socket"):
            unfold(played, f"#{step}-result")
            played.wait_for("document.querySelectorAll('.fold[open]').length === 1")
            assert height_of(played) < THREE_SCREENS, step
    finally:
        played.devtools("Emulation.clearDeviceMetricsOverride")
        played.console()


def test_the_summary_tells_what_the_thief_sees(played: Browser) -> None:
    played.command("POST", "/refresh")
    ready(played)
    assert played.text("#summary-table caption") == "0 of 8 tried, none got in."
    assert set(each(played, "#summary-table td:nth-of-type(2)")) == {"not tried yet"}
    played.click("#try-all")
    played.wait_for("document.querySelector('#summary-table caption').textContent.startsWith('8 of 8')")
    played.wait_for("document.querySelectorAll('.fold[open]').length === 0")
    assert played.text("#summary-table caption") == "8 of 8 tried, none got in."
    assert each(played, "#summary-table th[scope=row]") == each(played, ".attack h3")
    caught = [next(check for check in checks if check) for checks in ATTACKS.values()]
    assert each(played, "#summary-table tbody tr", "one.dataset.caught") == caught
    told = each(played, "#summary-table td:nth-of-type(2)")
    assert told[0] == "401 invalid_dpop_proof: the DPoP proof was used before"
    assert all(re.match(r"40[01] \w+: .", one) for one in told)
    # The values that the check compared are in the servers' logs, not in the thief's response.
    assert not any("expected" in one or "actual" in one for one in told)
    spoken = played.script("return document.querySelector('[role=status]').textContent")
    assert spoken == "8 of 8 tried, none got in."
    played.console()


PICTURE = HOUSE / "examples" / "flow" / "flow.png"
THIEF = """
    const [first, last] = ["#attacks-title", "#summary-table"].map((one) =>
      document.querySelector(one).getBoundingClientRect());
    return { x: 0, y: scrollY + first.top - 16, width: innerWidth, height: last.bottom - first.top + 32 };
"""


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG (its section 11.2.2)."""
    assert picture.startswith(b"\x89PNG")
    return int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")


def test_the_picture_of_the_page_shows_the_page_as_it_is(played: Browser, tmp_path: Path) -> None:
    """Where this fails, look at the new picture and put it in place: FLOW_PICTURE=1 does so."""
    played.devtools(
        "Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False
    )
    played.devtools(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}]
    )
    try:
        played.click("#try-all")
        played.wait_for("document.querySelector('#summary-table caption').textContent.startsWith('8 of 8')")
        played.wait_for("document.querySelectorAll('.fold[open]').length === 0")
        played.wait_for("!document.querySelector('#try-all').hasAttribute('aria-busy')")
        made = PICTURE if os.environ.get("FLOW_PICTURE") else tmp_path / "flow.png"
        played.screenshot(made, clip=played.script(THIEF))
    finally:
        played.devtools("Emulation.clearDeviceMetricsOverride")
        played.devtools("Emulation.setEmulatedMedia", features=[])
        played.console()
    kept = PICTURE.read_bytes()
    assert len(kept) < 200_000
    (width, height), (kept_width, kept_height) = size_of(made.read_bytes()), size_of(kept)
    assert width == kept_width
    # Fonts differ from one machine to the next.
    assert abs(height - kept_height) < kept_height / 4


def test_start_over_forgets_everything(played: Browser) -> None:
    played.click("#start-over")
    played.wait_for("document.activeElement.id === 'make-key'")
    assert played.script("return sessionStorage.length") == 0
    assert each(played, ".exchange") == []
    assert each(played, "button:enabled", "one.id") == ["make-key"]
