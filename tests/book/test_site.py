"""The rendered book, as a reader has it: readable without the pictures, nobody's home folder in it; and in a browser.

There it loads nothing from elsewhere, goes by keyboard and touch, and can be read by all. Every page is opened once
from disk (`visits`), as somebody does who was sent the folder. Where MITOLIB_SCREENSHOTS names a folder, each page is
photographed there, wide and on a phone. All that reads the rendering is in this file: processes that share the tests
take whole files, and to render takes a minute.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from gates import PRIVATE
from PIL import Image
from test_book import toc_files

from mitolib.settings import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENSHOTS = os.environ.get("MITOLIB_SCREENSHOTS")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; apt-get install chromium")
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
CODE = {"exclude": [[".highlight"], [".sig-param"]]}
WITH_CODE = "chapters/freezing.html"  # the shortest chapter
MOST_BYTES = 3_000_000  # of a page with its pictures: a few seconds on a slow line
# Pictures wait until they are scrolled to; a test has no time for that.
ALL_PICTURES = """async () => {
  const images = [...document.images];
  images.forEach(image => { image.loading = "eager"; });
  await Promise.all(images.map(image => image.decode().catch(() => null)));
  return images.filter(image => !image.naturalWidth).map(image => image.src);
}"""
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def html_pages(site: Path) -> list[str]:
    """All but the first, which only leads on to intro.html."""
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts}
    return sorted(pages - {"index.html"})


@pytest.fixture(scope="session")
def browser() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(site, browser) -> Iterator:
    """Open a page of the site, in a window with the options given."""
    contexts = []

    def open_one(name: str, **options):
        contexts.append(browser.new_context(viewport=WIDE, **options))
        page = contexts[-1].new_page()
        page.goto(f"{site.as_uri()}/{name}")
        return page

    yield open_one
    for context in contexts:
        context.close()


def accessibility(page, *rules: str, code: bool = False) -> list[str]:
    """Serious and critical findings of axe; code has the same colours everywhere, and to look at all takes minutes."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"], "preload": False}  # it would fetch each style sheet again
    if rules:
        options["runOnly"] = list(rules)
    found = []
    for rule in Axe().run(page, None if code else CODE, options).response["violations"]:
        if rule["impact"] in ("serious", "critical"):
            found += [f"{rule['id']}: {node['target']} {node['html'][:200]}" for node in rule["nodes"]]
    return found


def photograph(page, name: str, look: str) -> None:
    """The page from its top, if wanted; at most 12,000 px: a browser makes an empty file of the longest ones."""
    if not SCREENSHOTS:
        return
    width, height = page.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
    part = {"x": 0, "y": 0, "width": width, "height": min(height, 12_000)}
    path = Path(SCREENSHOTS) / f"{Path(name).with_suffix('')}-{look}.jpg"
    page.screenshot(path=path, full_page=True, clip=part, quality=60)


@pytest.fixture(scope="session")
def visits(site, browser) -> dict[str, dict[str, list]]:
    """What went wrong on each page, by kind; every page in light and dark, wide and on a phone."""
    found = {}
    context = browser.new_context(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
    for name in html_pages(site):
        page = context.new_page()
        one = found[name] = {"errors": [], "failed": [], "remote": []}
        page.on("console", lambda m, one=one: one["errors"].append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error, one=one: one["errors"].append(str(error)))
        page.on("requestfailed", lambda request, one=one: one["failed"].append(request.url))
        page.on(
            "request",
            lambda r, one=one: None if r.url.startswith(("file:", "data:")) else one["remote"].append(r.url),
        )
        page.goto((site / name).as_uri())
        one["failed"] += page.evaluate(ALL_PICTURES)
        photograph(page, name, "1280")
        one["light"] = accessibility(page, code=name == WITH_CODE)
        page.emulate_media(color_scheme="dark")
        one["dark"] = accessibility(page, "color-contrast", code=name == WITH_CODE)
        page.set_viewport_size(PHONE)
        one["too wide"] = [pixels for pixels in [page.evaluate(TOO_WIDE)] if pixels > 0]
        photograph(page, name, "360-dark")
        page.close()
    context.close()
    return found


def of_kind(visits: dict, kind: str) -> dict[str, list]:
    return {name: one[kind] for name, one in visits.items() if one[kind]}


@pytest.fixture(scope="session")
def soups(site) -> dict[str, BeautifulSoup]:
    """Each page, parsed once for all tests, which only read."""
    return {name: BeautifulSoup((site / name).read_text(), "html.parser") for name in html_pages(site)}


@pytest.fixture(scope="session")
def articles(soups) -> dict[str, BeautifulSoup]:
    """The text of each page, without the theme around it."""
    return {name: soups[f"{name}.html"].find("article") for name in toc_files()}


def test_every_figure_has_words_for_those_who_cannot_see_it(articles):
    for name, article in articles.items():
        for image in article.find_all("img"):
            alt = image.get("alt", "")
            assert alt.strip() and not re.search(r"\.(png|jpe?g|svg|gif)$|_images/", alt), f"{name}: alt={alt!r}"


def test_every_caption_is_numbered(articles):
    for name, article in articles.items():
        for caption in article.select("figcaption, table caption"):
            assert caption.select_one(".caption-number"), f"{name}: {caption.get_text(strip=True)[:80]}"


def test_the_takeaways_of_a_chapter_lead_to_what_shows_them(articles):
    chapters = [name for name in articles if name.startswith("chapters/")]
    assert chapters
    for name in chapters:
        title = articles[name].find(class_="admonition-title", string="Key takeaways")
        links = [link["href"][1:] for link in title.parent.select('a[href^="#"]')]
        assert links and all(articles[name].find(id=target) for target in links), name


def test_every_entry_of_the_limits_leads_to_where_it_shows(articles):
    entries = [p for p in articles["limits"].find_all("p") if p.find("strong", recursive=False)]
    assert entries and all(entry.find("a") for entry in entries)


def test_no_value_is_missing_on_a_page(articles):
    for name, article in articles.items():
        assert "[not available:" not in article.get_text(), name
        assert all(glued.get_text(strip=True) for glued in article.select(".pasted-text, .pasted-inline")), name


def test_no_page_names_a_folder_of_the_machine_that_made_it(site):
    for path in site.rglob("*"):
        if path.suffix in {".html", ".js", ".ipynb", ".md"} and "_static" not in path.relative_to(site).parts:
            text = path.read_text(encoding="utf8", errors="replace")
            assert str(ROOT) not in text, path.name
            assert not (found := PRIVATE.search(text)), f"{path.name}: {text[found.start() - 40 : found.end() + 40]}"


def test_no_picture_carries_more_than_its_pixels(site):
    pictures = [path for path in site.rglob("*") if path.suffix in {".png", ".jpg", ".jpeg", ".webp"}]
    assert len(pictures) > 20
    for path in pictures:
        with Image.open(path) as image:
            # matplotlib names itself; dpi, gamma and the like say how to show the pixels
            shown = {"dpi", "gamma", "jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background"}
            assert set(image.info) <= {"Software", *shown}, path.name
            assert not image.getexif(), path.name


@needs_browser
def test_every_page_loads_without_an_error(visits):
    assert len(visits) > 10
    assert of_kind(visits, "errors") == {}
    assert of_kind(visits, "failed") == {}


@needs_browser
def test_no_page_asks_another_machine_for_anything(visits):
    assert of_kind(visits, "remote") == {}


@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_shuts_anybody_out(visits, theme):
    assert of_kind(visits, theme) == {}


@needs_browser
def test_no_page_has_to_be_scrolled_sideways_on_a_phone(visits):
    assert of_kind(visits, "too wide") == {}


def test_every_link_inside_the_book_leads_somewhere(site, soups):
    anchors = {
        n: {tag[key] for key in ("id", "name") for tag in s.find_all(attrs={key: True})} for n, s in soups.items()
    }
    broken = []
    for name, soup in soups.items():
        for link in soup.find_all("a", href=True):
            parts = urlsplit(link["href"])
            if parts.scheme or parts.netloc:
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            page = target.resolve().relative_to(site.resolve()).as_posix()
            if not target.exists() or (page in anchors and parts.fragment not in {"", "#", *anchors[page]}):
                broken.append(f"{name}: {link['href']}")
    assert broken == []


def test_no_page_is_heavy(site, soups):
    for name, soup in soups.items():
        sources = {img["src"] for img in soup.find_all("img") if not img["src"].startswith("data:")}
        pictures = {((site / name).parent / source).resolve() for source in sources}
        size = (site / name).stat().st_size + sum(path.stat().st_size for path in pictures)
        assert size < MOST_BYTES, f"{name}: {size:,} bytes"


def test_pictures_keep_their_place_and_wait_until_they_are_seen(soups):
    images = [(name, img) for name, soup in soups.items() for img in soup.select("article img:not(.toggler)")]
    assert len(images) > 50
    for name, img in images:
        assert img.get("loading") == "lazy" and {"width", "height"} <= img.attrs.keys(), f"{name}: {str(img)[:200]}"


@needs_browser
def test_search_finds_the_chapter_on_whitening(open_page):
    page = open_page("search.html?q=whitening")
    page.wait_for_selector("ul.search a")
    assert "concept_whitening.html" in " ".join(a.get_attribute("href") for a in page.query_selector_all("ul.search a"))


@needs_browser
def test_the_dark_theme_can_be_chosen(open_page):
    page = open_page("intro.html")
    colour = "getComputedStyle(document.body).backgroundColor"
    seen = {page.evaluate(colour)}
    for _ in range(3):
        page.locator(".theme-switch-button:visible").first.click()
        seen.add(page.evaluate(colour))
    assert len(seen) == 2


@needs_browser
def test_the_overlays_go_by_keyboard(open_page):
    page = open_page("chapters/look.html")
    viewer = page.locator("[data-viewer=overlays]")
    named = "all => all.findIndex(one => one.querySelector('[data-name=\"deficient fibres\"]'))"
    with_truth = viewer.locator(".mito-case").evaluate_all(named)  # others have nothing to outline
    thumbs = viewer.locator("button")
    thumbs.nth(with_truth).click()
    stage = viewer.locator(".mito-case:visible .mito-layers")
    slider = viewer.locator("input[type=range]")
    slider.focus()
    pictures, names = [stage.screenshot()], [slider.get_attribute("aria-valuetext")]
    for key in ("PageUp", "ArrowRight", "End"):
        page.keyboard.press(key)
        pictures.append(stage.screenshot())
        names.append(slider.get_attribute("aria-valuetext"))
    assert len(set(pictures)) == 4
    assert names[0] == "patch" and names[-1] == "deficient fibres"
    title = viewer.locator(".mito-case:visible p").text_content()
    thumbs.nth(0).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert [thumb.get_attribute("aria-pressed") for thumb in thumbs.all()].index("true") == 1
    assert viewer.locator(".mito-case:visible").count() == 1
    assert viewer.locator(".mito-case:visible p").text_content() != title


@needs_browser
def test_the_overlays_go_by_touch(open_page):
    page = open_page("chapters/look.html", has_touch=True)
    slider = page.locator("[data-viewer=overlays] input[type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    assert float(slider.input_value()) > 1
    page.locator("[data-viewer=overlays] button").nth(2).tap()
    assert page.locator("[data-viewer=overlays] button").nth(2).get_attribute("aria-pressed") == "true"


@needs_browser
def test_the_mixer_mixes_the_proteins_chosen(open_page):
    page = open_page("chapters/look.html")
    canvas = page.locator("[data-viewer=mixer] canvas")
    pixels = """canvas => { const {width, height} = canvas;
      const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
      return [0, 1, 2].map(c => data.filter((_, i) => i % 4 === c).reduce((a, b) => a + b, 0)); }"""
    red = page.locator("[data-viewer=mixer] select").first
    page.wait_for_function("document.querySelector('[data-viewer=mixer] canvas').ariaLabel")
    before = canvas.evaluate(pixels)
    assert min(before) > 0 and "NDUFB8 red" in canvas.get_attribute("aria-label")
    red.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("!document.querySelector('[data-viewer=mixer] canvas').ariaLabel.includes('NDUFB8')")
    after = canvas.evaluate(pixels)
    assert after[0] != before[0] and after[1:] == before[1:]
    red.select_option("none")
    page.wait_for_function("!document.querySelector('[data-viewer=mixer] canvas').ariaLabel.includes('red')")
    assert canvas.evaluate(pixels) == [0, *before[1:]]


@needs_browser
def test_the_ledger_is_filtered_by_words_and_verdict(open_page):
    page = open_page("results.html")
    inputs, measured = page.locator("table.ledger").all()
    of_inputs, of_measured = page.locator(".mito-filter").all()
    rows = measured.locator("tbody tr")
    total = rows.count()
    of_measured.locator("input").fill("recall vgg16")
    shown = [row.text_content().lower() for row in rows.all() if row.is_visible()]
    assert 0 < len(shown) < total and all("recall" in text and "vgg16" in text for text in shown)
    rows = inputs.locator("tbody tr")
    total = rows.count()
    of_inputs.locator("select").select_option("differs")
    shown = [row.locator("td").last.text_content() for row in rows.all() if row.is_visible()]
    assert 0 < len(shown) < total and all(text.strip().startswith("differs") for text in shown)
    assert of_inputs.locator("output").text_content() == f"{len(shown)} of {total} numbers"


@needs_browser
def test_without_a_script_every_picture_and_every_number_is_there(open_page):
    page = open_page("chapters/look.html", java_script_enabled=False)
    pictures = page.locator(".mito-viewer img").all()
    assert len(pictures) > 20 and all(picture.is_visible() for picture in pictures)
    assert page.locator(".mito-viewer input, .mito-viewer button, .mito-viewer select").count() == 0
    page = open_page("results.html", java_script_enabled=False)
    assert all(row.is_visible() for row in page.locator("table.ledger tbody tr").all())
    assert page.locator(".mito-filter").count() == 0


@needs_browser
def test_print_leaves_the_sidebar_out(open_page):
    page = open_page("chapters/look.html")
    assert page.locator(".bd-sidebar-primary").is_visible()
    page.emulate_media(media="print")
    assert not page.locator(".bd-sidebar-primary").is_visible()
    assert page.locator("h1:visible").count() == 1


@needs_browser
def test_a_formula_is_set_without_a_network(site, browser, tmp_path):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    script = (site / "_static" / config["mathjax_path"]).resolve()
    (tmp_path / "formula.html").write_text(f'<p>\\(x^2 \\in \\mathbb R\\)</p><script src="{script.as_uri()}"></script>')
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: asked.append(f"failed: {request.url}"))
    page.goto((tmp_path / "formula.html").as_uri())
    page.wait_for_selector("mjx-container")
    page.evaluate("document.fonts.ready.then(() => null)")
    page.close()
    assert any(url.endswith(".woff") for url in asked)
    assert all(url.startswith("file:") for url in asked)
