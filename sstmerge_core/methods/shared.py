"""Parameters that belong to a driver and so mean the same in every method that lists them."""

from __future__ import annotations

from typing import Annotated

from sstmerge_core.methods.registry import Choice, Flag, Numbers, Parameter, Real, Whole

SHARE = Parameter(
    "alpha",
    Real(
        0.0,
        1.0,
        0.05,
        "Share of the safety adapter: 0 is the utility side alone, 1 the safety adapter.",
        symbol="α",
        telling=True,
    ),
    0.5,
)
STRENGTH = Parameter(
    "alpha",
    Real(
        0.0,
        4.0,
        0.1,
        "Strength with which safety is added: 0 is the utility side alone, may exceed 1.",
        symbol="α",
        telling=True,
    ),
    1.0,
)
EXPERTS = Parameter(
    "experts",
    Choice(
        ("mean", "sum"),
        "ΔU of several utility experts: the mean of their ΔW, or the sum. The same for one.",
        before="mean",
    ),
    "mean",
)
SPACE = Parameter(
    "space",
    Choice(
        ("delta", "core", "factors"),
        "Where elements are compared: on the exact ΔW; in core coordinates; or on the factors A and B apart, as PEFT "
        "does (equal ranks only, and the result depends on how ΔW was factorised).",
        before="delta",
    ),
    "delta",
)
SCALE = Parameter(
    "scale", Real(0.0, 4.0, 0.1, "λ: what the merged ΔW is multiplied by.", symbol="λ", before=1.0, open_low=True), 1.0
)
TRIM = Parameter(
    "trim",
    Choice(
        ("module", "global"),
        "What a density is a share of: of each module's elements, or of all of an adapter's, so that modules which "
        "changed more keep more.",
        before="module",
    ),
    "module",
)
SEED = Parameter("seed", Whole(0, help="Seed of the random mask.", telling=True), 42)
MODE = Parameter(
    "mode",
    Choice(("additive", "interpolate"), "φ = ΔS (add it to ΔU), or φ = ΔS − ΔU (move from ΔU towards ΔS)."),
    "additive",
)
LAYERWISE = Parameter("layerwise", Flag("Solve one problem per module instead of one for all."), False)
RHO = Parameter(
    "rho",
    Real(0.0, 10.0, 0.05, "Ridge on the benign Fisher, relative to its mean eigenvalue.", open_low=True, symbol="ρ"),
    0.1,
)
EXPANSION = Parameter(
    "expansion",
    Choice(
        ("utility", "own", "midpoint", "base"),
        "Weights at which the gradients are taken: base + ΔU; each side at its own adapter; base + ½(ΔU + ΔS); base.",
        before="utility",
    ),
    "utility",
)
FISHER = Parameter(
    "fisher",
    Choice(
        ("empirical", "true"),
        "Gradients of the reference responses, or of responses sampled from the model.",
        before="empirical",
    ),
    "empirical",
)
GENERAL = Parameter(
    "general",
    Real(
        0.0,
        100.0,
        0.5,
        "Weight in the benign Fisher of general benign prompts answered by the base model; guards against refusing "
        "everything. 0 leaves them out.",
        before=0.0,
    ),
    0.0,
)
ATTENTION = Parameter(
    "attention", Real(0.0, 4.0, 0.1, "Factor on what is added to attention modules.", before=1.0), 1.0
)
MLP = Parameter("mlp", Real(0.0, 4.0, 0.1, "Factor on what is added to MLP modules.", before=1.0), 1.0)

WEIGHTS = Parameter(
    "weights",
    Numbers(
        help="What each adapter's ΔW is multiplied by first, one number per adapter, the safety adapter's last; "
        "negative ones subtract. Nothing: 1 for each.",
        before="",
    ),
    "",
)

Scale = Annotated[float, SCALE.schema]
Weights = Annotated[str, WEIGHTS.schema]
"""The same, of methods whose function itself takes them"""

CALIBRATION = (EXPANSION, FISHER, GENERAL)
"""How the gradients are taken"""
ADDED = (MODE, LAYERWISE, ATTENTION, MLP, EXPERTS)
"""How what is added to ΔU is made"""
