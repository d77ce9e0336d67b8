"""The documentation and the reports in headless Chromium: ``make test-docs``."""

import functools
import os
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

SITE, SCREENSHOTS = Path(os.environ["SITE"]), Path(os.environ["SCREENSHOTS"])
PAGES = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html"))
WIDTHS = (1280, 390)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *arguments):
        """Nothing."""


@pytest.fixture(scope="session")
def address():
    """Of the site, served on the loopback device."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as tools:
        # No sandbox: it does not work for root, and the pages are our own.
        yield tools.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])


class Visit:
    """A page of the browser, and what went wrong on it."""

    def __init__(self, browser, width: int):
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(120_000)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", lambda request: self.wrong.append(request.url))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, url: str, name: str) -> None:
        self.page.goto(url, wait_until="load")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def overflow(self) -> int:
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", PAGES)
def test_every_page_renders(browser, address, path, width):
    visit = Visit(browser, width)
    visit.open(f"{address}/{path}", f"{path.removesuffix('.html').replace('/', '-')}-{width}")
    assert visit.wrong == []
    assert all(url.startswith((address, "data:")) for url in visit.asked), visit.asked
    assert visit.page.locator("h1").count() == 1
    assert visit.overflow() <= 0
    broken = "images => images.filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
    assert visit.page.eval_on_selector_all("article img", broken) == []
    if width >= 1000:  # narrow screens scroll figures
        wide = "images => images.filter(i => i.clientWidth > i.parentElement.clientWidth).map(i => i.src)"
        assert visit.page.eval_on_selector_all("article p > img", wide) == []
    visit.page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_search_finds_checkpoint(browser, address, width):
    visit = Visit(browser, width)
    visit.open(f"{address}/index.html", f"search-{width}")
    if width < 1000:
        visit.page.locator("label[for=__search]").first.click()
    # Typed, since the search listens to keys: fill() sends none.
    visit.page.locator("input.md-search__input").press_sequentially("checkpoint")
    found = visit.page.locator(".md-search-result__link")
    found.first.wait_for()
    links = found.evaluate_all("links => links.map(link => link.href)")
    visit.page.screenshot(path=SCREENSHOTS / f"search-{width}.png")
    assert any("checkpoints.html" in link for link in links)
    assert visit.wrong == []
    visit.page.close()


REPORTS = {
    "compare": "compare --nodes 4 --rounds 300",
    "reproduce": "reproduce biased-table4 --quick",
    "step": "bench step --nodes 2 --turns 1 --steps 1 --rates 100mbit --methods bf16,recommended-hook",
}


@pytest.fixture(scope="session", params=sorted(REPORTS))
def report(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / f"{request.param}.html"
    command = [os.environ["LACONIC"], *REPORTS[request.param].split(), "--html", str(file)]
    subprocess.run(command, cwd=folder, check=True, timeout=600, capture_output=True)
    return file


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_opens_as_a_file(browser, report, width):
    visit = Visit(browser, width)
    visit.open(f"file://{report}", f"report-{report.stem}-{width}")
    assert visit.wrong == []
    assert all(url.startswith(("file:", "data:")) for url in visit.asked)
    assert visit.overflow() <= 0
    assert visit.page.locator("img").count() >= 1
    assert visit.page.locator("table").count() >= 1
    visit.page.screenshot(path=SCREENSHOTS / f"report-{report.stem}-{width}-whole.png", full_page=True)
    visit.page.close()
