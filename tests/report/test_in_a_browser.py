"""The report in a browser: it asks nothing of any other machine, shows all it has, and can be used by everybody."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Else the browser itself calls home, which is none of the page's doing.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Machines are shared.
TIMEOUT = 120_000

Scheme = Literal["light", "dark"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Browser, folder: Path, width: int = 1400, scheme: Scheme = "light") -> Page:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto((folder / "index.html").as_uri())
    return page


def draw_explorer(page: Page) -> None:
    page.locator("#explorer-plot").scroll_into_view_if_needed()
    page.wait_for_selector("#explorer-plot[data-drawn]", state="attached")


def choose(page: Page, name: str, value: str) -> None:
    before = page.get_attribute("#explorer-plot", "data-drawn")
    page.select_option(f"#choose-{name}", value)
    page.wait_for_selector(f"#explorer-plot:not([data-drawn='{before}'])", state="attached")


def test_nothing_is_asked_of_another_machine_and_nothing_is_said_in_the_console(
    browser: Browser, study_folder: Path
) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = (study_folder / "index.html").as_uri()
    page.goto(address)
    draw_explorer(page)
    choose(page, "lines", "runs")
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [address]


def test_every_image_can_be_seen_and_has_a_text(browser: Browser, study_folder: Path) -> None:
    page = opened(browser, study_folder)
    images = page.evaluate(
        "Promise.all([...document.images].map(async (image) => {"
        " await image.decode(); return [image.naturalWidth, image.alt]; }))"
    )
    drawn = list((study_folder / "figures").rglob("*.png"))
    assert len(images) == len(drawn) + 1, "and the claims"
    assert all(width > 0 and text for width, text in images)


def test_the_explorer_draws_what_is_chosen(browser: Browser, study_folder: Path) -> None:
    page = opened(browser, study_folder)
    draw_explorer(page)
    summary = page.locator("#explorer-summary")
    assert "Test loss on Digits, suite epochs, against training time (s): medians of" in summary.inner_text()
    choose(page, "metric", "test_accuracy")
    assert summary.inner_text().startswith("Test accuracy on Digits")
    assert page.input_value("#choose-scale") == "linear"
    choose(page, "dataset", "diabetes")
    assert summary.inner_text().startswith("Test loss on Diabetes"), "real targets have no accuracy"
    choose(page, "suite", "runtime_train")
    choose(page, "axis", "step")
    assert "suite runtime_train, against steps" in summary.inner_text()
    choose(page, "lines", "runs")
    names, seeds = page.evaluate(
        "(({ data }) => [data.map((trace) => trace.name), [...new Set(data[0].customdata)]])"
        "(document.getElementById('explorer-plot'))"
    )
    assert names == ["Adam (Untuned)", "AdamQLR (Untuned)"]
    assert [seed for seed in seeds if seed is not None] == list(range(6))
    page.locator("#choose-optimizers label", has_text="Adam (Untuned)").click()
    expect(summary).to_have_text(re.compile(r": single seeds of AdamQLR \(Untuned\)\.$"), timeout=TIMEOUT)


def test_the_table_says_in_words_where_curves_end(browser: Browser, study_folder: Path) -> None:
    page = opened(browser, study_folder)
    draw_explorer(page)
    diverged, whole = page.locator("#explorer-table tbody tr").all_inner_texts()
    name, median, interval, *others = diverged.split("\t")
    assert [name, median, *others] == ["Adam (Untuned)", "∞", "33 %", "batch_size 50"]
    assert interval.endswith(" to ∞")
    assert whole.startswith("AdamQLR (Untuned)")
    assert "100 %" in whole


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_everybody_can_use_it(browser: Browser, study_folder: Path, width: int, scheme: Scheme) -> None:
    page = opened(browser, study_folder, width, scheme)
    draw_explorer(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "only what scrolls by itself is wider"
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_keyboard_alone_reaches_the_explorer(browser: Browser, study_folder: Path) -> None:
    page = opened(browser, study_folder)
    draw_explorer(page)
    page.focus("#choose-dataset")
    page.keyboard.press("ArrowDown")
    summary = page.locator("#explorer-summary")
    expect(summary).to_contain_text("on Diabetes", timeout=TIMEOUT)
    page.focus("#choose-optimizers input")
    page.keyboard.press("Space")
    expect(summary).to_have_text(re.compile(r": medians of AdamQLR \(Untuned\)\.$"), timeout=TIMEOUT)
