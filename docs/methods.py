"""docs/methods, a page per method, and the README's table, from the registry and the oracles: ``make docs``.

Only the measured errors need the oracles to run; everything else is the registry, and a test holds the files to it.
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
README, PAGES = ROOT / "README.md", ROOT / "docs" / "methods"
OPEN, CLOSE = "<!-- methods: written by `make docs` -->", "<!-- /methods -->"
MEASURED = re.compile(r"\b\d\.\de[-+]\d\d\b")
APP = "http://localhost:8501/pareto?pair=A5_A7&method="
"""Where `make app` shows one method's points"""
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
    """Run the oracles and write everything."""
    write({method: oracle.error() for method, oracle in ORACLES.items()})


def write(errors: Mapping[str, float]) -> None:
    for old in PAGES.glob("*.md"):
        old.unlink()
    PAGES.mkdir(exist_ok=True)
    for name, text in pages(errors).items():
        (PAGES / name).write_text(text)
    README.write_text(with_table(README.read_text(), errors))


def pages(errors: Mapping[str, float]) -> dict[str, str]:
    """File name → text of everything in docs/methods. `errors` are the measured ones by method."""
    listed = [row("method", "what it does", "meaning of α"), row("---", "---", "---")]
    listed += [row(f"[{own.title}]({own.name}.md)", own.summary, meaning(own)) for own in methods.methods()]
    found = {f"{method.name}.md": page(method, errors[method.name]) for method in methods.methods()}
    return {"README.md": "\n".join([HEAD, *listed, ""])} | found


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
            f"[`{method.name}`](docs/methods/{method.name}.md)",
            paper(method),
            f"$`{method.formula}`$",
            meaning(method),
            ORACLES[method.name].against,
            f"{errors[method.name]:.1e}",
        )
        for method in methods.methods()
    ]
    return "\n".join([before + OPEN, *rows, CLOSE + after])


def page(method: Method, error: float) -> str:
    """One method's page."""
    oracle = ORACLES[method.name]
    needs = [words for flag, words in NEEDS.items() if getattr(method, flag)]
    lines = [
        f"# {method.title} (`{method.name}`)",
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
        lines += ["## Parameters", "", row("parameter", "default", "allowed", "what it is"), row(*["---"] * 4)]
        lines += [parameter_row(parameter) for parameter in method.parameters]
        lines.append("")
    lines += [
        "## Use",
        "",
        "```",
        f"sstmerge merge --base DIR --utility DIR --safety DIR --method {method.name}{_options(method)} --out DIR",
        "```",
        "",
        f"On the demo: [what it does to A5 with A7]({APP}{method.name}), with `make app` running; "
        "[results of every method](../results.md). ΔU, ΔS, wᵢ and how methods are checked: [all methods](README.md).",
        "",
    ]
    return "\n".join(lines)


def _options(method: Method) -> str:
    """The parameters at their defaults, as the command line takes them."""
    own = {
        each.name: str(each.default).lower() if isinstance(each.default, bool) else each.default
        for each in method.parameters
    }
    direct = [f" --{name} {own[name]}" for name in ("alpha", "k", "seed") if name in own]
    rest = [f"{name}={value}" for name, value in own.items() if name not in ("alpha", "k", "seed")]
    return "".join(direct) + (f" --set {' '.join(rest)}" if rest else "")


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
