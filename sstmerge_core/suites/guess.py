"""Which columns of a file are what: by name in any case, by the known formats, and otherwise as a proposal.

Read without a word are this program's own columns, chats (``messages``, ShareGPT's ``conversations``, lists of turns as
prompt and completion) and Alpaca's ``instruction``, ``input``, ``output``. Everything else is a guess to be confirmed:
rows under a wrong column look right and are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sstmerge_core.errors import DataError, Problem
from sstmerge_core.suites import chats, reading
from sstmerge_core.suites.chats import RowFault
from sstmerge_core.suites.columns import ROW_FIELDS, Column, Columns, Template, at, paths, told
from sstmerge_core.suites.records import delimiter_of, format_of, read_records, shown

CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
PROMPTS = (
    *("question", "query", "instruction", "input", "user", "user_input", "user_prompt", "request", "goal", "behavior"),
    *("behaviour", "text", "質問", "問題", "プロンプト", "指示", "入力"),
)
"""Likely names of a prompt, the likelier first"""
RESPONSES = (
    *("completion", "output", "answer", "reference", "reply", "assistant", "回答", "答え", "応答", "出力"),
    *("target", "chosen", "answers", "solution", "label"),
)
SURE_RESPONSES = RESPONSES[: RESPONSES.index("target")]
"""Those that are read as the response where the prompt is sure and no other is there"""
BESIDE = ("system", "system_prompt", "history", "context", "passage", "document", "input")
"""Columns whose text belongs to the prompt: they are not left out silently"""
BESIDE_NATIVE = BESIDE[:3]
"""Of these, what is looked at where a file has a column called prompt; more columns are not"""
MEDIA = ("image", "images", "video", "videos", "audio", "audios", "tools", "functions")
"""What a text cannot hold: it is not left out silently either"""
SAMPLE = 200
"""Records looked at to show what a file has"""


@dataclass(frozen=True)
class Guess:
    """What was found out of a file's columns."""

    columns: Columns | None
    """As `rows.read_rows` takes them: sure or likely; None where not even a guess is there"""
    sure: bool
    """Whether the file is read without more being said"""
    shape: str
    """``prompt``, ``chat`` or ``alpaca`` where sure, else empty"""
    names: tuple[str, ...]
    """All of its columns"""
    beside: tuple[str, ...] = ()
    """Columns whose text belongs to the prompt and which no part of a row takes"""
    problem: Problem | None = None
    """Why it is not sure, with what to give"""
    format: str = ""
    """``csv``, ``jsonl``, ``json``, ``parquet`` or ``yaml``"""
    encoding: str = ""
    delimiter: str = ""
    """Of a CSV file"""

    @property
    def option(self) -> str:
        """As ``--columns`` takes it."""
        return told(self.columns) if self.columns else ""

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns that nothing is taken from."""
        used = used_names(self.columns) if self.columns else set()
        return tuple(name for name in self.names if name not in used)


def guess_columns(path: Path | str, columns: Columns | None = None) -> Guess:
    """What a file's columns are, looking at its first records; what `columns` say goes before.

    Of `columns`, fields that were not set are guessed. Raises DataError where the file cannot be read or has no rows.
    """
    path = Path(path)
    given = columns or Columns()
    kind = format_of(path)
    encoding = "" if kind == "parquet" else given.encoding or reading.encoding_of(path)
    delimiter = (given.delimiter or delimiter_of(path, encoding)) if kind == "csv" else ""
    record: dict[str, Any] = {}
    for number, (_, one) in enumerate(read_records(path, encoding=encoding or None, delimiter=delimiter or None)):
        if number == SAMPLE:
            break
        if isinstance(one, Mapping):
            for name, found in one.items():
                if record.get(str(name)) in (None, "", []):
                    record[str(name)] = found
    if not record:
        raise DataError(Problem(str(path), "has no rows", "Add rows with a prompt column."))
    found = of_record(record, columns, str(path))
    about: dict[str, Any] = {"format": kind, "encoding": encoding, "delimiter": delimiter}
    about["beside"] = tuple(name for name in found.beside if record[name])
    if wrong := unseen(str(path), found.names, columns):
        about |= {"problem": wrong, "sure": False, "shape": ""}
    return Guess(**{**vars(found), **about})


def of_record(record: Mapping[str, Any], given: Columns | None = None, where: str = "row") -> Guess:
    """The columns of one record; see `guess_columns`."""
    known = given.model_fields_set if given else set()
    names = tuple(map(str, record))
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(_plain(name), name)
    by_plain |= {name: name for name in names if name in ROW_FIELDS}  # its own spelling goes before another
    chosen: dict[str, Any] = {name: getattr(given, name) for name in known} if given else {}
    for field in ("topic", "id", "split", "twin_of"):
        if field not in known:
            first = "prompt_id" if field == "id" and "prompt_id" in by_plain else field
            chosen[field] = by_plain.get(first)
    taken = {name for field in chosen if field in ROW_FIELDS for name in _roots(chosen[field], record)}

    prompt, shape, likely = chosen.get("prompt"), "prompt", ""
    if "prompt" not in known:
        prompt, shape, likely = _prompt(record, by_plain, taken)
    taken |= _roots(prompt or likely or None, record)
    response: Column | None = chosen.get("response")
    doubt: tuple[str, ...] = ()
    if "response" not in known:
        response, doubt = _response(record, prompt, likely, by_plain, taken)
    beside = BESIDE_NATIVE if "prompt" in by_plain or "prompt" in known else BESIDE
    taken |= _roots(response, record)
    beside = (*beside, *MEDIA)
    left = tuple(by_plain[name] for name in beside if name in by_plain and by_plain[name] not in taken)

    sure = bool(prompt) and not doubt
    best = prompt or likely
    columns = Columns(**{**chosen, "prompt": best, "response": response}) if best else None
    problem = None if sure else _problem(where, record, columns, not prompt, doubt)
    return Guess(columns, sure, shape if sure else "", names, () if "prompt" in known else left, problem)


def unseen(where: str, names: Iterable[str], given: Columns | None) -> Problem | None:
    """What is wrong where columns were given that no record of a file has, and which would all be empty."""
    names = tuple(names)
    wanted = [
        path for name in ROW_FIELDS if given for path in paths(getattr(given, name)) if name in given.model_fields_set
    ]
    lacking = [path for path in dict.fromkeys(wanted) if path not in names and path.split(".")[0] not in names]
    if not lacking:
        return None
    fault = f"has no column {' and no column '.join(map(shown, lacking))}; its columns: {_listed(names)}"
    return Problem(where, fault, "Name those that it has, by `--columns` or by `columns` in a suite's YAML.")


def used_names(columns: Columns) -> set[str]:
    """The paths that columns read."""
    return {path for name in ROW_FIELDS for path in paths(getattr(columns, name))}


def lacks_response(where: str, guess: Guess) -> Problem:
    """For who needs a response of a file whose prompt alone is known."""
    fault = f"has no column response; its columns: {_listed(guess.names)}"
    only = set(guess.names) <= used_names(guess.columns or Columns())
    return Problem(where, fault, "Add one." if only else _fix(guess.columns, guess.names))


def _prompt(record: Mapping[str, Any], by_plain: Mapping[str, str], taken: set[str]) -> tuple[Column | None, str, str]:
    """(the sure prompt, of which shape, a likely one)."""
    if "prompt" in by_plain:
        return by_plain["prompt"], "prompt", ""
    talks = [by_plain[name] for name in CHATS if name in by_plain and kind(record[by_plain[name]]).startswith("chat")]
    if len(talks) == 1:
        return talks[0], "chat", ""
    if "instruction" in by_plain and not {"question", "query"} & set(by_plain):
        instruction = by_plain["instruction"]
        if "input" in by_plain:
            return Template(template=f"{{{instruction}}}\n\n{{{by_plain['input']}}}"), "alpaca", ""
        return instruction, "alpaca", ""
    likely = [by_plain[name] for name in PROMPTS if name in by_plain and by_plain[name] not in taken]
    return None, "", (talks or likely or [""])[0]


def _response(
    record: Mapping[str, Any], prompt: Column | None, likely: str, by_plain: Mapping[str, str], taken: set[str]
) -> tuple[Column | None, tuple[str, ...]]:
    """(the response, sure where the prompt is; what else it could be)."""
    if "response" in by_plain:
        return by_plain["response"], ()
    if isinstance(prompt, str) and _has_answer(at(record, prompt)):
        return prompt, ()
    free = [by_plain[name] for name in SURE_RESPONSES if name in by_plain and by_plain[name] not in taken]
    if prompt is not None:
        return (free[0] if free else None), tuple(free) if len(free) > 1 else ()
    more = [by_plain[name] for name in RESPONSES if name in by_plain and by_plain[name] not in taken]
    return (more[0] if more and likely else None), ()


def beside_fault(name: str, prompt: Column, *, chat: bool = False) -> RowFault:
    """For a column with text that belongs to the prompt, which may be a conversation."""
    own = prompt.template if isinstance(prompt, Template) else f"{{{prompt}}}"
    leave = told(Columns(prompt=prompt))
    if _plain(name) in MEDIA:
        return RowFault(
            f"has something in the column {shown(name)}, which no text holds",
            f"Leave it out by `--columns '{shown(leave, 200)}'`, or remove the row.",
        )
    if chat:
        return RowFault(
            f"has text in the column {shown(name)}, which no part of a row takes",
            f"Write it into the first turn, or leave it out by `--columns '{shown(leave, 200)}'`.",
        )
    joined = told(Columns(prompt=Template(template=f"{{{name}}}\n\n{own}")))
    return RowFault(
        f"has text in the column {shown(name)}, which no part of a row takes",
        f"Take it in by `--columns '{shown(joined, 200)}'`, or leave it out by `--columns '{shown(leave, 200)}'`.",
    )


def _problem(
    where: str, record: Mapping[str, Any], columns: Columns | None, no_prompt: bool, doubt: tuple[str, ...]
) -> Problem:
    names = tuple(map(str, record))
    empty = next((name for name in names if _plain(name) in CHATS and record[name] == []), "")
    if empty and no_prompt:
        return Problem(where, f"has an empty conversation in {shown(empty)}", "Remove such rows.")
    if doubt:
        fault = f"has its response in {' or '.join(map(shown, doubt))}; its columns: {_listed(names)}"
    else:
        response = "response" if "response" not in map(_plain, names) else ""
        lacking = ["prompt"] * no_prompt + [response] * bool(response)
        fault = f"has no column {' and no column '.join(lacking)}; its columns: {_listed(names)}"
    return Problem(where, fault, _fix(columns, names))


def _fix(columns: Columns | None, names: tuple[str, ...]) -> str:
    if not names:
        return "Give it a prompt and a response."
    prompt = columns.prompt if columns else names[0]
    column = columns.response if columns else None
    if column is None:
        column = next((name for name in names if name not in paths(prompt) and _plain(name) not in ROW_FIELDS), None)
    example = shown(told(Columns(prompt=prompt, response=column)), 200)
    return f"Say which they are, such as `--columns '{example}'`, or by `columns` in a suite's YAML."


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(shown(name) for name in names[:8]) or "none") + more


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _roots(column: Any, record: Mapping[str, Any]) -> set[str]:
    """The record's own columns that a column reads."""
    return {path if path in record else path.split(".")[0] for path in paths(column)}


def kind(found: Any) -> str:
    """What a value is, as far as columns depend on it: ``text``, ``list``, ``chat of user`` …"""
    if not isinstance(found, (list, str)):
        return "other"
    try:
        turns = chats.turns(found)
    except RowFault:
        return "chat of unclear turns"
    if turns is None:
        return "text" if isinstance(found, str) else "list"
    return f"chat of {' '.join(sorted({role for role, _ in turns}))}"


def _has_answer(found: Any) -> bool:
    """Whether a value is a conversation with the assistant's part in it."""
    return kind(found).startswith("chat") and (chats.ASSISTANT in kind(found) or "unclear" in kind(found))
