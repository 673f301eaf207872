"""Texts of all kinds on the viewer's pages: search hits, Markdown, directions, errors, switches, keyboard access."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from starlette.testclient import TestClient
from test_viewer import BROWSER, HOSTILE, Open, make_run, write_pairs

from lf_longpo.errors import UserError
from lf_longpo.text.differences import Piece
from lf_longpo.viewer.context_pieces import context_pieces
from lf_longpo.viewer.markdown import markdown_html
from lf_longpo.viewer.pair_evidence import Span
from lf_longpo.viewer.search_hits import find_hits

ARABIC = "تم بناء الجسر في عام 1931.\n\nThe bridge, الجسر, is long.\nprint('مرحبا')\nوهو (الأطول)."


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def hits_of(source, needle):
    """The texts of the hits, each put together from its pieces."""
    found = find_hits(source, needle)
    assert "".join(piece.text for piece in found.pieces) == (
        source if isinstance(source, str) else "".join(piece.text for piece in source)
    )
    texts = {}
    for piece in found.pieces:
        if piece.hit:
            texts[piece.hit] = texts.get(piece.hit, "") + piece.text
            assert piece.begins == (texts[piece.hit] == piece.text)
    return list(texts.values())


def test_hits_are_found_across_pieces_and_keep_characters_whole():
    assert hits_of("The Bridge and the bridge.", "bridge") == ["Bridge", "bridge"]
    assert hits_of([Piece("a bri", False), Piece("d", True), Piece("ge, bridge", False)], "bridge") == ["bridge"] * 2
    assert hits_of("100%_sure (a.b)", "%_") == ["%_"] and hits_of("axb a.b", "a.b") == ["a.b"]
    assert hits_of("cafe\u0301 e", "e") == ["e\u0301", "e"] and hits_of("👨‍👩‍👧 👩", "👩") == ["👨‍👩‍👧", "👩"]
    assert hits_of("ЁЛКА ёлка", "ёлка") == ["ЁЛКА", "ёлка"] and hits_of("桥建桥", "桥") == ["桥", "桥"]
    assert hits_of("a", "") == [] and hits_of("", "a") == [] and hits_of([], "a") == []
    many = find_hits("ab" * 3000, "a")
    assert many.number == 3000 and max(piece.hit for piece in many.pieces) == 1000


def test_evidence_does_not_split_a_character():
    context = "one 👨‍👩‍👧 two"
    pieces = context_pieces(
        context, [Span(0, 6, ("chosen",), "chunk 1"), Span(6, len(context), ("rejected",), "chunk 2")]
    )
    assert [piece.text for piece in pieces] == ["one ", "👨‍👩‍👧 two"]


def test_hits_are_counted_marked_and_linked(tmp_path):
    path = write_pairs(
        tmp_path / "p.jsonl",
        2,
        input="Which bridge?",
        prompt="A bridge. The bridge? Which bridge?",
        chosen="The Bridge.",
    )
    with Open(path) as client:
        rows = client.get("/?text=bridge").text
        page = client.get("/pair/1?text=bridge").text
        plain = client.get("/pair/1").text
    assert 'Which <mark class="hit">bridge</mark>?' in rows
    links = re.findall(r'<a href="#([\w-]+)">(\d+ in [\w ]+)</a>', page)
    assert [text for _, text in links] == ["1 in the question", "1 in chosen", "3 in the training prompt"]
    for target, _ in links:
        assert len(re.findall(f'<mark class="hit" id="{target}">', page)) == 1
    assert 'The <mark class="hit" id="chosen-hit-1">Bridge</mark>.' in page and 'class="hit"' not in plain
    with Open(path) as client:
        assert "no hits in the texts of this page" in client.get("/pair/1?text=zebra").text


HOSTILE_MARKDOWN = [
    HOSTILE,
    "[x](javascript:alert(1)) [y](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "<https://evil.example> <javascript:alert(1)>",
    "[x]\n\n[x]: https://evil.example 'title'",
    "<div onclick=alert(1)>\n\n<!-- x -->",
    "```\"><script>alert(1)</script>\n<b>\n```",
    "`<img src=x>`\n\n    <img src=x>",
    "| <b> |\n|:-:|\n| <script> |",
    "# <img src=x onerror=alert(1)>",
    "&lt;script&gt; &#60;script&#62; \\<script>",
    "> " * 3000 + "x",
    "[" * 5000 + "](" * 5000,
    "*a_" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE_MARKDOWN, ids=range(len(HOSTILE_MARKDOWN)))
def test_hostile_markdown_is_shown_as_text(text):
    allowed = set("p ul ol li blockquote pre code hr em strong br table thead tbody tr th td mark".split())
    tags = Tags(markdown_html(text, "evil")).tags
    assert {tag for tag, _ in tags} <= allowed
    values = {(name, value) for _, attributes in tags for name, value in attributes.items()}
    assert values <= {("dir", "auto"), ("class", "heading"), ("class", "hit")}


def test_markdown_is_rendered_with_directions_and_hits():
    html = str(markdown_html("# عنوان\n\n- **one** `two`\n\n[see](http://x.example)", "two"))
    assert '<p class="heading" dir="auto">عنوان</p>' in html and '<li dir="auto">' in html
    assert "<strong>one</strong>" in html and '<code><mark class="hit">two</mark></code>' in html
    assert "[see](http://x.example)" in html and "<a" not in html


def test_the_switches_are_kept_for_all_pages(tmp_path):
    def checked(page):
        return [attributes["id"] for tag, attributes in Tags(page).tags if tag == "input" and "checked" in attributes]

    with Open(write_pairs(tmp_path / "p.jsonl", 2)) as client:
        assert checked(client.get("/pair/1").text) == ["marks"]
        page = "http://testserver/pair/2?text=Good"
        answer = client.post("/display", data={"markdown": "on"}, headers={"referer": page}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/pair/2?text=Good")
        assert checked(client.get("/pair/1").text) == ["markdown"]
        for referer in ("http://evil.example/pair/1", "http://testserver//evil.example", "javascript:alert(1)"):
            answer = client.post("/display", headers={"referer": referer}, follow_redirects=False)
            assert answer.headers["location"] == "/"
        assert checked(client.get("/pair/1").text) == []


def test_errors_have_a_page_that_leads_back(tmp_path, monkeypatch):
    with Open(write_pairs(tmp_path / "p.jsonl", 2)) as client:
        evil = {"origin": "http://evil.example"}
        answers = {
            404: client.get("/pair/9?text=%22x&state=all"),
            403: client.post("/pair/1", data={"decision": "reject"}, headers=evil),
            405: client.delete("/"),
        }
        answers |= {400: client.post("/pair/1", data={"decision": "shrug"})}
        for status, answer in answers.items():
            assert answer.status_code == status and f"<h1>Error {status}</h1>" in answer.text
            assert '<main id="main"' in answer.text and "Skip to the content" in answer.text
            assert "Back to the list of pairs" in answer.text and "content-security-policy" in answer.headers
        assert 'href="/?text=%22x&amp;state=all"' in answers[404].text
        assert client.get("/nothing").status_code == client.get(f"/pair/{10**30}").status_code == 404
        host = client.get("/", headers={"host": "evil.example"})
        assert host.status_code == 400 and "<h1>Error 400</h1>" in host.text
        assert "p.jsonl" not in host.text and 'href="/' not in host.text

        def full(*_):
            raise UserError("x.sqlite cannot be used: disk full; free space there")

        monkeypatch.setattr("lf_longpo.viewer.index.PairIndex.counts", full)
        answer = client.get("/")
        assert answer.status_code == 500 and "free space there" in answer.text
        monkeypatch.setattr("lf_longpo.viewer.index.PairIndex.counts", lambda *_: 1 / 0)
        answer = TestClient(client.app, raise_server_exceptions=False).get("/")
        assert (
            answer.status_code == 500 and "The page could not be made" in answer.text and "division" not in answer.text
        )


def check_access(page):
    """What a keyboard and a screen reader need of every page."""
    tags = Tags(page).tags
    names = [tag for tag, _ in tags]
    assert ("html", {"lang": "en"}) in tags and names.count("main") == names.count("h1") == 1
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    ids = [
        id for id in ids if not re.fullmatch("[mp][0-9a-f]{10}", id)
    ]  # markers of plots; equal ids are equal drawings
    assert len(ids) == len(set(ids))
    first = next(attributes for tag, attributes in tags if tag == "a")
    assert first == {"class": "skip", "href": "#main"} and "main" in ids
    levels = [int(tag[1]) for tag in names if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    for tag, attributes in tags:
        if tag == "nav" or attributes.get("role") in ("region", "group"):
            assert attributes.get("aria-label")
        if "table" in attributes.get("class", "").split() and tag == "div":
            assert attributes["tabindex"] == "0" and attributes["role"] == "region"
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")


def test_pages_can_be_used_with_a_keyboard(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl", 2, chosen="long " * 200, prompt="one\n" * 20)
    with Open(path) as client:
        for address in ("/", "/?text=nothing", "/pair/1", "/pair/2?text=Good", "/pair/9"):
            check_access(client.get(address).text)
        boxes = [attributes for tag, attributes in Tags(client.get("/pair/1").text).tags if tag == "pre"]
    assert [box.get("aria-label") for box in boxes] == ["chosen response", None, "the training prompt"]
    assert [box.get("tabindex") for box in boxes] == ["0", None, "0"] and {box["dir"] for box in boxes} == {"auto"}


@pytest.mark.slow
def test_pages_of_a_run_can_be_used_with_a_keyboard(tmp_path, key):
    from lf_longpo.cli import main

    run = make_run(tmp_path, "longreward")
    assert main(["report", str(run), str(run)]) == 0
    for name in ("report.html", "comparison.html"):
        check_access((run / name).read_text(encoding="utf-8"))
    with Open(run) as client:
        check_access(client.get("/pair/1").text)


# The distance of a text from the left and from the right edge of its box, in pixels.
_SIDES = """
const box = document.querySelector(arguments[0]), walk = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
for (let node; node = walk.nextNode();) {
  const at = node.data.indexOf(arguments[1]);
  if (at < 0) continue;
  const range = document.createRange();
  range.setStart(node, at); range.setEnd(node, at + arguments[1].length);
  const text = range.getBoundingClientRect(), outer = box.getBoundingClientRect();
  return [text.left - outer.left, outer.right - text.right];
}
"""


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium with its driver here")
def test_each_paragraph_has_its_own_direction_in_a_browser(tmp_path):
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    path = write_pairs(tmp_path / "p.jsonl", 1, chosen=ARABIC, rejected=ARABIC.replace("1931", "1932"), input=ARABIC)
    with Open(path) as client:
        (tmp_path / "pair.html").write_text(client.get("/pair/1").text, encoding="utf-8")
    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(BROWSER))
    try:
        browser.get(f"file://{tmp_path}/pair.html")
        for box in (".chosen pre", "h1"):
            for start, right_to_left in (("تم بناء", True), ("The bridge", False), ("print(", False), ("وهو", True)):
                left, right = browser.execute_script(_SIDES, box, start)
                assert (right < 20 < left) if right_to_left else (left < 20 < right), start
        # The switches work in the page alone.
        mark = browser.find_element(By.CSS_SELECTOR, ".chosen pre mark")
        assert mark.text == "1931" and mark.value_of_css_property("background-color") != "rgba(0, 0, 0, 0)"
        browser.find_element(By.ID, "marks").click()
        assert mark.value_of_css_property("background-color") == "rgba(0, 0, 0, 0)"
        browser.find_element(By.ID, "markdown").click()
        assert not mark.is_displayed() and browser.find_element(By.CSS_SELECTOR, ".chosen .markdown p").is_displayed()
    finally:
        browser.quit()
