"""docs/methods.md and the README's table of methods, from the registry and the oracles: ``make docs``.

Only the measured errors need the oracles to run; everything else is the registry, and a test holds the two files to it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.oracles import ORACLES
from sstmerge_core import methods
from sstmerge_core.methods import AXES, Method, Parameter

ROOT = Path(__file__).resolve().parents[1]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "methods.md"
OPEN, CLOSE = "<!-- methods: written by `make docs` -->", "<!-- /methods -->"
MEASURED = re.compile(r"\b\d\.\de[-+]\d\d\b")
HEAD = """# Merge methods

Written by `make docs` from the registry (`sstmerge_core/methods/`) and the oracles (`benchmarks/oracles/`).

ΔU is the weight change of the utility adapter, or of several utility experts their mean; ΔS that of the safety adapter;
wᵢ are the shares of the adapters. What α means differs: compare fronts, never two methods at one α.

Every method is checked against an oracle that shares no code with it, on random adapters of mixed shapes, ranks and
scalings, float32 and bfloat16, two and three of them, with modules that only one adapter has. The error given is the
largest relative Frobenius error ‖ΔW − ΔW_oracle‖ / ‖ΔW_oracle‖ of a module. The same tests see to it that every option
is tried and that 1 % more of any parameter is noticed.
"""
NEEDS = {
    "needs_fisher": "gradients of harmful and of benign samples",
    "needs_importance": "dense gradients of each side's samples at the base and at the tuned model",
    "needs_base": "the base model's weights",
}


def main() -> None:
    """Run the oracles and write both files."""
    errors = {method: oracle.error() for method, oracle in ORACLES.items()}
    PAGE.write_text(page(errors))
    README.write_text(with_table(README.read_text(), errors))


def page(errors: Mapping[str, float]) -> str:
    """docs/methods.md. `errors` are the measured ones by method."""
    return "\n".join([HEAD, *(section(method, errors[method.name]) for method in methods.methods())])


def with_table(readme: str, errors: Mapping[str, float]) -> str:
    """The README's text with the table between its two comments made anew. Raises ValueError where they are missing."""
    before, opened, rest = readme.partition(OPEN)
    _, closed, after = rest.partition(CLOSE)
    if not opened or not closed:
        raise ValueError(f"{README}: {OPEN} and {CLOSE} must enclose the table of methods")
    head = ["method", "paper", "formula", "meaning of α", "oracle", "largest error"]
    rows = [row(*head), row(*["---"] * len(head))]
    rows += [
        row(
            f"[`{method.name}`](docs/methods.md#{method.name})",
            paper(method),
            f"$`{method.formula}`$",
            meaning(method),
            ORACLES[method.name].against,
            f"{errors[method.name]:.1e}",
        )
        for method in methods.methods()
    ]
    return "\n".join([before + OPEN, *rows, CLOSE + after])


def section(method: Method, error: float) -> str:
    """One method's part of the page."""
    oracle = ORACLES[method.name]
    needs = [words for flag, words in NEEDS.items() if getattr(method, flag)]
    lines = [
        f'<a id="{method.name}"></a>',
        "",
        f"## {method.title} (`{method.name}`)",
        "",
        method.summary,
        "",
        "```math",
        method.formula,
        "```",
        "",
        f"- Paper: {paper(method)}",
        f"- α: {meaning(method)}",
        *([f"- Needs: {' and '.join(needs)}"] if needs else []),
        f"- Oracle: {oracle.against}; error {error:.1e}, at most {oracle.tolerance:g} in the tests",
        "",
    ]
    if method.parameters:
        lines += [row("parameter", "default", "allowed", "what it is"), row("---", "---", "---", "---")]
        lines += [parameter_row(parameter) for parameter in method.parameters]
        lines.append("")
    return "\n".join(lines)


def parameter_row(parameter: Parameter) -> str:
    default = str(parameter.default).lower() if isinstance(parameter.default, bool) else f"{parameter.default}"
    return row(f"`{parameter.name}`", default, parameter.bounds(), parameter.schema.help)


def paper(method: Method) -> str:
    return f"[{method.paper}]({method.url})" if method.url else method.paper or "–"


def meaning(method: Method) -> str:
    return AXES[method.axis] if method.axis else "–"


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def without_errors(text: str) -> str:
    """`text` with every measured error blanked out: what does not depend on the machine."""
    return MEASURED.sub("·", text)


if __name__ == "__main__":
    main()
