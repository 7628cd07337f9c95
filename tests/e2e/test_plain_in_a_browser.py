"""What `words.plain` gives is text in a real browser, which looks for addresses, icons and arrows on its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.browser import serving
from sstmerge_core.words import plain
from tests.corpus.injections import INJECTIONS, letters

HOSTILE = [
    "![x](https://evil.example/x.png)", "[x](https://evil.example)", "<img src=https://evil.example/x>",
    "<https://evil.example>", "https://evil.example/x",
    "HTTP://evil.example", "www.evil.example", "_www.evil.example",
    "Www.evil.example", "a@evil.example", "mailto:a@evil.example", "xmpp:a@evil.example", ":fire:", ":material/home:",
    ":streamlit:", ":red[x]", ":small[a]", ":blue-badge[b]", "$x^2$", "~~x~~", "`x`", "*a* _b_ **c**",
    "a -> b <- c -- d",
    "a <-> b", "1. one", "1) one", "- two", "+ two",
    "# h", "> q", "--- ", "===", "a\n\n- b", "a\n===\n", "a\n---\n",
    "    code", "\tcode", "&lt;b&gt; &amp; &copy;", "[x]: https://evil.example", "[^1]", "a|b\n-|-\n1|2", "a  \nb",
    "\\![x](https://evil.example/x.png)", "\\\\[x](y)", "a\\", "<b>b</b>", "<script>1</script>", "<!-- c -->",
    "![x][y]",
    "- [ ] x", "\u2028# x", "a\r# x",
]  # fmt: skip
HOSTILE += [text for name, text in INJECTIONS.items() if len(text) < 1_000 and plain(text).strip() and name not in (
    "half a character", "no character",  # no JSON of a message holds them
)]  # fmt: skip
ALONE = "Array.from(document.querySelectorAll('[data-testid=stMarkdownContainer]'), e => [e.innerText, e.innerHTML])"


def test_every_hostile_text_is_a_paragraph_of_just_that_text(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    (tmp_path / "texts.json").write_text(json.dumps(HOSTILE))
    (tmp_path / "app.py").write_text(
        "import json, streamlit as st\nfrom pathlib import Path\nfrom sstmerge_core.words import plain\n"
        "for text in json.loads(Path(__file__).with_name('texts.json').read_text()):\n    st.markdown(plain(text))\n"
        "st.markdown('END')\n"
    )
    with serving(tmp_path / "ws", script=tmp_path / "app.py") as address:
        page = new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_function("document.body.innerText.includes('END')")
        shown = page.evaluate(ALONE)[:-1]
    assert len(shown) == len(HOSTILE) and not [url for url in asked if "evil.example" in url]
    for text, (seen, html) in zip(HOSTILE, shown, strict=True):
        assert html.startswith("<p>") and html.count("<") == 2, text  # one paragraph and nothing within it
        assert letters(seen) == letters(text), text
