"""The style sheets: contrast of all text, computed by the formula of WCAG 2.2 (1.4.3), and the reader's preferences."""

import re

import pytest

from lf_longpo.report.page import STYLE

REPORT = STYLE.read_text(encoding="utf-8")
VIEWER = (STYLE.parents[2] / "viewer/templates/viewer.css").read_text(encoding="utf-8")
BLOCKS = re.findall(r":root \{(.*?)\}", REPORT, re.DOTALL)
LIGHT = dict(re.findall(r"--([\w-]+): (#\w{6})", BLOCKS[0]))
DARK = LIGHT | dict(re.findall(r"--([\w-]+): (#\w{6})", BLOCKS[1]))
# The backgrounds of each colour of text.
USED = {
    "ink": ("page", "card", "warn", "mark", "hit", "on-chosen", "on-rejected"),
    "soft": ("page", "card"),
    "link": ("page", "card"),
}
# Borders of fields and the focus need 3 (1.4.11).
EDGES = {"edge": ("page", "card"), "link": ("page", "card")}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula():
    assert contrast("#000000", "#ffffff") == 21 and round(contrast("#777777", "#ffffff"), 2) == 4.48


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_all_text_has_enough_contrast(colours):
    for least, pairs in ((4.5, USED), (3, EDGES)):
        low = {
            (text, background): contrast(colours[text], colours[background])
            for text, backgrounds in pairs.items()
            for background in backgrounds
            if contrast(colours[text], colours[background]) < least
        }
        assert not low


def test_text_has_only_these_colours_and_no_opacity():
    css = REPORT + VIEWER
    colours = set(re.findall(r"(?<![\w-])color: ([^;}]+)", css))
    assert colours == {"var(--ink)", "var(--soft)", "var(--link)"}
    assert not re.search(r"opacity: (?!1[;\s])", css)
    backgrounds = set(re.findall(r"background: var\(--([\w-]+)\)", css))
    assert backgrounds == set(USED["ink"])
    # What lies on a mark has the colour of ink, also in muted text and in links.
    for selector in ("mark", ".on"):
        assert re.search(rf"^{re.escape(selector)} {{[^}}]*(?<!-)color: var\(--ink\)", css, re.MULTILINE)


def test_movement_and_print_follow_the_reader():
    assert "smooth" not in re.sub(r"@media \(prefers-reduced-motion: no-preference\) {.*", "", REPORT + VIEWER)
    assert "@media print" in REPORT and "@media screen and (prefers-color-scheme: dark)" in REPORT
