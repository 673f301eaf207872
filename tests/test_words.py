"""Words that readers stumble over stay out of everything that users and developers read."""

import re

import pytest
from conftest import REPOSITORY

# Each with what to write instead.
WORDS = {
    r"mend(s|ed|ing|able)?": "fix",
    r"carr(y|ies|ied|ying) on": "resume, continue",
    r"made anew": "recreated",
    r"makes? (\w+ ){1,2}anew": "recreates",
    r"strangers?": "unknown keys",
    r"witness(es)?": "evidence",
    r"verdict lines?": "rating line",
    r"(nobody|nothing|nor) (tells|knows|asks)": "is unknown",
    r"(call|ask)(s|ing)? (nobody|anybody)": "makes no calls",
    r"(is|are|was|were|be|been|being) told": "is reported, is given, is set",
    r"only tell": "only report",
    r"be it": "whether",
    r"left out (by|for) their": "skipped, removed",
    r"all rewards equal": "no reward difference",
    r"people (have )?decided": "review decisions",
    r"half-written": "what exactly is kept",
    r"left alone": "skipped, not changed",
    r"roll-outs?": "rollout",
}
FOLDERS = ("lf_longpo", "yaml", "scripts", "docs")
ENDINGS = {".py", ".sh", ".md", ".yaml", ".html", ".css"}  # prompts are for models
PATHS = sorted(
    path
    for root in (*(REPOSITORY / name for name in FOLDERS), *REPOSITORY.glob("*.md"))
    for path in (root.rglob("*") if root.is_dir() else (root,))
    if path.suffix in ENDINGS and path.name != "demo.py"  # the sentences of its documents are data
)


def words_in(text):
    """Line number, word and replacement of each; a phrase may go on in the next line, behind a comment sign."""
    lines = text.splitlines()
    for number, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), 1):
        both = f"{line} {following.lstrip(' #*>')}"
        for pattern, better in WORDS.items():
            for match in re.finditer(rf"\b(?:{pattern})\b", both, re.IGNORECASE):
                if match.start() < len(line):
                    yield number, match[0], better


def test_no_text_has_a_word_that_readers_stumble_over():
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {word!r}; write: {better}"
        for path in PATHS
        for number, word, better in words_in(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ("Mended by hand.", "it carries\n    # on where", "nobody tells it", "It is told to."))
def test_a_word_is_found_once(text):
    assert len(list(words_in(f"First line.\n{text}\nLast line."))) == 1


@pytest.mark.parametrize(
    "text", ("amend, recommended", "eyewitnessed", "may be its own", "carry only", "scroll outside")
)
def test_other_words_are_not_found(text):
    assert not list(words_in(text))
