"""LLM-VA: whether the model answers is made to depend on whether the prompt is harmless.

Zhang et al., ACL 2026 (arXiv 2601.19487). In what each layer writes to the residual stream a linear SVM finds the
answer vector v_a (prompts that the model answers against those that it refuses) and another one the benign vector v_b
(harmless against harmful). The closest weights for which v_a·y becomes (σ_a/σ_b) v_b·y of every output y = Wx are
W ← W + v_a((σ_a/σ_b)v_b − v_a)ᵀW, σ the deviations of the two projections: rank one. The layers whose two vectors lie
along those of the last residual, weighted by how often the SVMs are right on held-out prompts, are changed; then the
model answers anew and all is repeated, and the pass with the best F1 of answering exactly the harmless is kept, the
start among them. Read: the authors' code (github.com/HotBento/LLM-VA, `src/llmva.py`: `calculate_activation_and_std`,
`get_modified_matrix`, and the loop). As there: the last token of the prompt, squared hinge loss with C = 1 and no
intercept. Different, and stated: the model is the merge, base + ΔU + αΔS; harmless prompts are the near misses and the
utility prompts; a refusal is what the program's own judge calls one, of answers of at most 32 tokens, and broken text
is no answer; every fifth prompt is held out for the SVMs, and the F1 is that of all. Where the model answers all, or
nothing, there is no answer vector and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.edits import KINDS, Edit, Seen
from sstmerge_core.methods.registry import Real, Whole, method
from sstmerge_core.methods.shared import EXPERTS, STRENGTH, WEIGHTS
from sstmerge_core.methods.weighting import added

if TYPE_CHECKING:
    import torch

HELD = 5
"""Of so many prompts one is held out"""
NEWTON = 50
"""Steps at most; a handful is taken"""


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    passes = f"in {parameters['passes']} passes at most"
    what = f"{100 * parameters['layers']:g} % of the layers' outputs"
    return f"{added(parameters, experts)}; in {what} the answer vector made to follow the benign one, {passes}"


@method(
    "llm_va",
    title="LLM-VA",
    family="Safety-aware",
    kind="edited",
    axis="strength",
    formula=r"W'=W+v_a\big(\tfrac{\sigma_a}{\sigma_b}v_b-v_a\big)^{\mathsf{T}}W,\quad "
    r"W=W_0+\Delta U+\alpha\,\Delta S,\quad v_a,v_b\ \text{by SVM from answered and from harmless prompts}",
    paper="Zhang et al. 2026, LLM-VA: Resolving the Jailbreak-Overrefusal Trade-off via Vector Alignment",
    url="https://arxiv.org/abs/2601.19487",
    driver=(STRENGTH, EXPERTS, WEIGHTS),
    needs_base=True,
    needs_near=True,
    needs_answers=True,
    keeps_utility=False,
    acts=_acts,
    swept=(),
    contested={"layers": (0.25, 0.5)},
)
def llm_va(
    seen: Seen,
    *,
    passes: Annotated[
        int, Whole(1, 20, 1, "Most passes; in each the model answers all prompts anew.", telling=True)
    ] = 2,
    layers: Annotated[
        float, Real(0.0, 1.0, 0.05, "Share of the modules that write to the residual stream that are changed.")
    ] = 0.5,
) -> dict[str, Edit]:
    """Make whether the merged model answers follow whether the prompt is harmless: rank-one changes of layers."""
    import torch

    assert seen.answered is not None and seen.residual is not None
    harmless = torch.cat([torch.full((len(seen.answered[kind]),), kind != "harm") for kind in KINDS])
    answered = torch.cat([seen.answered[kind] for kind in KINDS])
    if not _told_apart(harmless) or not _told_apart(answered):
        return {}
    last = torch.cat([seen.residual[kind] for kind in KINDS])
    ends = [vector(last, labels)[0] for labels in (harmless, answered)]
    found, worth = {}, {}
    for name, own in seen.outputs.items():
        outputs = torch.cat([own[kind] for kind in KINDS])
        (v_b, s_b, right_b), (v_a, s_a, right_a) = (vector(outputs, labels) for labels in (harmless, answered))
        found[name] = Edit(v_a[:, None], (s_a / s_b * v_b - v_a)[:, None])
        worth[name] = float(v_b @ ends[0]) * right_b + float(v_a @ ends[1]) * right_a
    count = round(layers * len(found))
    return {name: found[name] for name in sorted(found, key=lambda name: -worth[name])[:count]}


def _told_apart(labels: torch.Tensor) -> bool:
    """Whether both labels are among the prompts that are fitted."""
    import torch

    fitted = labels[torch.arange(len(labels)) % HELD != HELD - 1]
    return bool(fitted.any()) and not bool(fitted.all())


def vector(outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """Unit normal (d,) of the SVM of `labels` (n,) bool, the deviation of `outputs` (n, d) along it, and its accuracy.

    Fitted, and its deviation taken, on all but the held-out prompts; the accuracy is theirs.
    """
    import torch

    held = torch.arange(len(labels)) % HELD == HELD - 1
    sign = torch.where(labels, 1.0, -1.0).double()
    normal = svm(outputs[~held].double(), sign[~held])
    normal = normal / normal.norm().clamp(min=1e-300)
    right = ((outputs[held].double() @ normal > 0) == labels[held]).double()
    spread = (outputs[~held].double() @ normal).std().clamp(min=1e-300)
    return normal, float(spread), float(right.mean()) if len(right) else 0.0


def svm(points: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """argmin ½‖w‖² + Σ max(0, 1 − s_i w·x_i)² over w (d,); `points` (n, d) and `sign` (n,) ±1 are float64.

    Newton with backtracking, each step in the dual of the points within the margin (Chapelle 2007, Training a support
    vector machine in the primal, §3): exact where the points within the margin no longer change.
    """
    import torch

    def value(w: torch.Tensor) -> float:
        return float(w @ w / 2 + (1 - sign * (points @ w)).clamp(min=0).square().sum())

    w = torch.zeros(points.shape[1]).to(points)
    for _ in range(NEWTON):
        inside = sign * (points @ w) < 1
        own = points[inside]
        gram = own @ own.T + torch.eye(len(own)).to(own) / 2
        step = own.T @ torch.linalg.solve(gram, sign[inside]) - w
        before, length = value(w), 1.0
        while length > 1e-8 and value(w + length * step) > before:
            length /= 2
        w = w + length * step
        if float(step.norm()) <= 1e-12 * max(1.0, float(w.norm())):
            break
    return w
