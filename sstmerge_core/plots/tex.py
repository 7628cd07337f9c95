"""Texts and tables in LaTeX that any engine compiles: what is written is ASCII alone.

What the usual fonts have becomes its command. Anything else becomes ``\\sstchar{decimal}{hexadecimal}``, which XeLaTeX
and LuaLaTeX print where the document's font has it, and which is ``[U+65E5]`` elsewhere: pdfLaTeX would stop at it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

CHARACTER = (
    r"\providecommand{\sstchar}[2]{\ifdefined\Umathchar\iffontchar\font#1 \char#1 "
    r"\else{\scriptsize[U+#2]}\fi\else{\scriptsize[U+#2]}\fi\hskip0pt plus2pt\relax}"
)
"""The definition that a file needs in which `text` may have met such a character"""
LONG = 30
"""Rows beyond which a table breaks over pages"""
_SIZES = {"small": 70, "footnotesize": 80, "scriptsize": 95, "tiny": 115}
"""Letter size → characters on a line of an article's 345 pt, the blanks between columns counted as `_GAP` each"""
_GAP = 3
_SKIPS = r"\setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{6pt}"

_ASCII = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\`{}"}
_ASCII |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\symbol{34}"}
_ASCII |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi . pi rho varsigma sigma tau upsilon"
_GREEK += " phi chi psi omega"
_CAPITALS = {"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi"}
_CAPITALS |= {"Ψ": "Psi", "Ω": "Omega", "ϕ": "phi", "φ": "varphi", "ε": "varepsilon"}
_MATHS = {chr(0x3B1 + index): name for index, name in enumerate(_GREEK.split()) if name != "."} | _CAPITALS
_MATHS |= {"↑": "uparrow", "↓": "downarrow", "→": "rightarrow", "←": "leftarrow", "↔": "leftrightarrow", "∞": "infty"}
_MATHS |= {"≥": "geq", "≤": "leq", "≠": "neq", "≈": "approx", "×": "times", "÷": "div", "±": "pm", "·": "cdot"}
_MATHS |= {"∈": "in", "∑": "sum", "√": "surd", "∂": "partial", "∇": "nabla", "∥": "parallel", "∅": "emptyset"}
_MATHS |= {"µ": "mu", "∩": "cap", "∪": "cup", "⊥": "perp", "⊙": "odot", "∝": "propto", "∘": "circ", "•": "bullet"}
_SIGNS = {sign: f"$\\{name}$" for sign, name in _MATHS.items()}
_SIGNS |= {"−": "$-$", "²": "$^2$", "³": "$^3$", "¹": "$^1$", "°": r"$^\circ$", "‖": r"$\|$"}
_SIGNS |= {"–": "--", "—": "---", "…": r"\dots{}", "\u00a0": "~", "\u202f": r"\,", "‑": "-"}
_SIGNS |= {"“": "``", "”": "''", "‘": "`", "’": "'", "§": r"\S{}", "©": r"\copyright{}", "£": r"\pounds{}"}
_SIGNS |= {"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "œ": r"\oe{}", "Œ": r"\OE{}"}
_SIGNS |= {"ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "å": r"\aa{}", "Å": r"\AA{}"}
_SIGNS |= dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff", "")
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."}
_ACCENTS |= {"\u0308": '"', "\u030b": "H", "\u030c": "v", "\u0327": "c"}
_UNSEEN = re.compile(r"\\text(?:bf|tt)(?=\{[^}])|(?<!\\)[${}^]")
_COMMAND = re.compile(r"\\[a-zA-Z]+|\\(.)")
_TOGETHER = re.compile(r"\[[^][ ]*, [^][ ]*\]|(?:p )?\\text(?:less|greater)\{\} [\d.]+|[pdh] [-$+\d.]+")
_MINUS = re.compile(r"(?<![\w)\]-])-(?=\.?\d)")


def text(plain: str) -> str:
    """`plain` in LaTeX that shows just that, on one line."""
    line = _MINUS.sub("−", " ".join(plain.split()))
    signs = zip(line[:1] + line, line, strict=False)
    # two hyphens or quotes would be joined to one sign, and another text may stand before
    return "".join(("{}" if sign in "-'" and sign == before else "") + _character(sign) for before, sign in signs)


def first(cell: str) -> str:
    """What stands first in a row or an item: a bracket or a star there would belong to the command before it."""
    return re.sub(r"^\s*([\[*])", r"{\1}", cell)


def _character(sign: str) -> str:
    if sign in _ASCII:
        return _ASCII[sign]
    if " " <= sign <= "~":
        return sign
    if sign in _SIGNS:
        return _SIGNS[sign]
    letter, *marks = list(unicodedata.normalize("NFD", sign))
    if len(marks) == 1 and marks[0] in _ACCENTS and letter.isascii():
        return f"\\{_ACCENTS[marks[0]]}{{{letter}}}"
    code = ord(sign) if not 0xD800 <= ord(sign) <= 0xDFFF else 0xFFFD
    return f"\\sstchar{{{code}}}{{{code:04X}}}"


def _cells(cells: Sequence[str]) -> list[str]:
    """A row's cells so that a line breaks before an interval or a p, not within."""
    return [_TOGETHER.sub(lambda found: found[0].replace(" ", "~"), cell) for cell in [first(cells[0]), *cells[1:]]]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str, texts: int = 1) -> str:
    """A booktabs table as wide as the text at most, of cells, and a caption, in LaTeX; `texts` columns are texts.

    Columns that do not fit beside each other break their lines, and letters get smaller; more rows than `LONG` go over
    pages. Needs the packages array, booktabs and longtable.
    """
    lines = [_cells(cells) for cells in (head, *rows)]
    size, columns = _columns(lines, texts)
    heading, *printed = (" & ".join(cells) + r" \\" for cells in lines)
    apart = "\\addlinespace[2pt]\n" if ">" in columns else ""
    letters = f"\\{size}\\setlength{{\\tabcolsep}}{{3pt}}\n{_SKIPS}\n"
    title = f"\\caption{{{caption}}}\\label{{{re.sub(r'[^A-Za-z0-9:.-]+', '-', label)}}}"
    top, body = f"\\toprule\n{heading}\n\\midrule\n", f"\n{apart}".join(printed)
    if len(rows) > LONG:
        begin = f"{{{letters}\\begin{{longtable}}{{{columns}}}\n{title}\\\\\n{top}\\endfirsthead\n{top}\\endhead\n"
        return f"{begin}{body}\n\\bottomrule\n\\end{{longtable}}}}"
    begin = f"\\begin{{table}}[htbp]\n\\centering{letters}{title}\n\\begin{{tabular}}{{{columns}}}\n{top}"
    return f"{begin}{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}"


def _columns(rows: Sequence[Sequence[str]], texts: int) -> tuple[str, str]:
    """Letter size and columns: plain ones where every row fits on a line, else paragraphs that share its width."""
    shown = [[_printed(cell) for cell in cells] for cells in zip(*rows, strict=True)]
    whole = [max(map(len, cells)) + _GAP for cells in shown]
    least = [max(len(word) for cell in cells for word in cell.split(" ")) + _GAP for cells in shown]
    sides = ["l"] * texts + ["r"] * (len(shown) - texts)
    for size, most in _SIZES.items():
        if sum(whole) <= most:
            return size, "".join(sides)
    size = next((size for size, most in _SIZES.items() if sum(least) + sum(whole) // 4 <= most), "tiny")
    free = max(0, _SIZES[size] - sum(least))
    more = [all_of - word for all_of, word in zip(whole, least, strict=True)]
    wide = [word + free * extra / max(1, sum(more)) for word, extra in zip(least, more, strict=True)]
    ragged = {"l": "raggedright", "r": "raggedleft"}
    return size, "".join(
        f">{{\\{ragged[side]}\\arraybackslash}}p{{\\dimexpr{width / sum(wide):.4f}\\linewidth-2\\tabcolsep\\relax}}"
        for side, width in zip(sides, wide, strict=True)
    )


def _printed(cell: str) -> str:
    """About as many characters as LaTeX prints of a cell."""
    return _COMMAND.sub(lambda found: found[1] or "x", _UNSEEN.sub("", cell))
