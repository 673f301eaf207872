"""Markdown of responses as HTML that is safe to insert: no HTML of the response, no links, no images.

Links and images stay as they were written, so that a reader sees their addresses and nothing is loaded or followed.
"""

from collections.abc import Sequence
from functools import cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from lf_longpo.viewer.search_hits import find_hits

_OFF = ["link", "image", "autolink", "html_inline", "html_block", "reference"]


def markdown_html(text: str, search: str) -> Markup:
    """The HTML of a Markdown text. Each block has the direction of its first letter; search hits are marked."""
    return Markup(_markdown().render(text, {"search": search}))


class _Renderer(RendererHTML):
    """Renders texts and code with their search hits."""

    def text(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """A text."""
        pieces = find_hits(tokens[idx].content, env["search"]).pieces
        return "".join(
            f'<mark class="hit">{escape(piece.text)}</mark>' if piece.hit else escape(piece.text) for piece in pieces
        )

    def code_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Code in a line."""
        return f"<code>{self.text(tokens, idx, options, env)}</code>"

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Code in lines of its own."""
        return f"<pre>{self.code_inline(tokens, idx, options, env)}</pre>\n"

    fence = code_block


@cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table").disable(_OFF)
    markdown.core.ruler.push("layout", lambda state: _lay_out(state.tokens))
    return markdown


def _lay_out(tokens: list[Token]) -> None:
    """Gives each block its direction. Headings become paragraphs, because they are not headings of the page."""
    for token in tokens:
        if token.type.startswith("heading"):
            token.tag = "p"
        if token.nesting == 1:
            token.attrs = {"class": "heading"} if token.type.startswith("heading") else {}
            token.attrSet("dir", "auto")
