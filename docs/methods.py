"""docs/methods, a page per method and a table of all, from the registry and the oracles' tolerances: ``make docs``.

No figure in them depends on the machine: the error given is the one that the tests hold a method to.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.oracles import ORACLES
from sstmerge_core import methods
from sstmerge_core.methods import AXES, FAMILIES, Method, Parameter

PAGES = Path(__file__).resolve().parent / "methods"
APP = "http://localhost:8501/pareto?pair=A5_A7&method="
"""Where `make app` shows one method's points"""
HEAD = """# Merge methods

Written by `make docs` from the registry (`sstmerge_core/methods/`) and the oracles (`benchmarks/oracles/`).

ΔU is the weight change of the utility adapter, or of several utility experts their mean; ΔS that of the safety adapter;
wᵢ are the shares of the adapters, τᵢ their sparse updates. What α means differs: compare fronts, never two methods at
one α. Where α is the *share* of the safety adapter, 1 is that adapter alone only with the averages; the sparse methods
and SafeMERGE change it too.

Every method is held by the tests to properties: the factors' gauge, the order of keys and experts and the files' dtype
do not matter, α = 0 and two identical adapters give what the method says they give, and PEFT reloads what was written.
Most are also held to an oracle that shares no code with them, on random adapters of mixed shapes, ranks and scalings,
float32 and bfloat16, two and three of them, with modules that only one adapter has. The error is the largest relative
Frobenius error ‖ΔW − ΔW_oracle‖ / ‖ΔW_oracle‖ of a module, and the tests fail above it. They also see to it that every
option is tried and that 1 % more of any parameter is noticed.

Methods that need the model itself fit numbers to calibration data, of the Fisher split alone; the statistic `fitted` of
a run says how many. A fit is a stage of its own: kept under everything it depends on, and resumed at its step with the
same bits. Their gradients are held to autograd's on a model with the dense ΔW, their start (no steps, or α = 0) to the
merge that they start from. ProSafePrune and LLM-VA look at a model's outputs, not at its losses, and change the merged
weights themselves, the base's among them, by few directions a module: the adapter is low-rank all the same. Their tests
hold them to dense float64 matrices and an SVM solved otherwise.
"""
NO_ORACLE = "none of its own; the properties of every method"
NEEDS = {
    "needs_fisher": "gradients of harmful and of benign samples",
    "needs_importance": "dense gradients of each side's samples at the base and at the tuned model",
    "needs_inputs": "what every module sees of harmful prompts at the base, by forward passes alone",
    "needs_near": "near misses, harmless prompts that look dangerous, with helpful answers",
    "needs_answers": "the model's own answers to the samples, judged",
    "needs_refused": "near misses with the refusals of their harmful twins",
    "needs_held": "held-out samples of the selection split, on which the fit stops",
    "fits": "the model itself, on which numbers are fitted before the merge",
    "needs_base": "the base model's weights",
}


def main() -> None:
    """Write everything; a page whose method is gone goes too."""
    found = pages()
    PAGES.mkdir(exist_ok=True)
    for old in PAGES.glob("*.md"):
        if old.name not in found:
            old.unlink()
    for name, text in found.items():
        (PAGES / name).write_text(text)


def pages() -> dict[str, str]:
    """File name → text of everything in docs/methods."""
    return {"README.md": "\n".join([HEAD, *tables()])} | {f"{own.name}.md": page(own) for own in methods.methods()}


def tables() -> list[str]:
    """A table a family."""
    head = ["method", "what it does", "formula", "meaning of α", "oracle", "error", "paper"]
    lines = []
    for family in FAMILIES:
        lines += [f"## {family}", "", row(*head), row(*["---"] * len(head))]
        lines += [
            row(
                f"[{own.title}]({own.name}.md)",
                own.summary,
                f"$`{own.formula}`$",
                meaning(own),
                own.oracle or NO_ORACLE,
                bound(own) or "–",
                paper(own),
            )
            for own in methods.methods()
            if own.family == family
        ]
        lines.append("")
    return lines


def bound(method: Method) -> str:
    """``≤ 1e-6``: the error that the tests hold the method to; empty without an oracle."""
    return f"≤ {ORACLES[method.name].tolerance:.0e}" if method.oracle else ""


def page(method: Method) -> str:
    """One method's page."""
    oracle = f"{method.oracle}; error {bound(method)} in the tests" if method.oracle else NO_ORACLE
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
        *([f"- Needs: {'; '.join(needs)}"] if needs else []),
        f"- Oracle: {oracle}",
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
    rest = [f"{name}={value}" for name, value in own.items() if name not in ("alpha", "k", "seed") and value != ""]
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


if __name__ == "__main__":
    main()
