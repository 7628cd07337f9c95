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

STEPS = Parameter("steps", Whole(0, 1000, 5, "Adam steps of the fit; 0 leaves it at its start.", telling=True), 30)
RATE = Parameter(
    "rate",
    Real(0.0, 1.0, 0.01, "Learning rate: what a coefficient moves by in a step; falls to 0 as a cosine.", symbol="η"),
    0.05,
)
NEAR_WEIGHT = Parameter(
    "near_weight",
    Real(0.0, 100.0, 0.25, "Weight w of helpful answers to near misses in the loss, beside refusing.", symbol="w"),
    1.0,
)
UTILITY_WEIGHT = Parameter(
    "utility_weight",
    Real(0.0, 100.0, 0.25, "Weight v of the utility samples in the loss, beside refusing.", symbol="v"),
    1.0,
)
RIDGE = Parameter(
    "ridge",
    Real(0.0, 1000.0, 0.1, "Nats that a mean squared change of the coefficients by 1 costs.", symbol="ρ"),
    0.1,
)
BATCH = Parameter("batch", Whole(1, 256, 4, "Samples of each kind in a step.", symbol="b"), 8)
ORDER_SEED = Parameter("seed", Whole(0, help="Seed of the order in which samples are drawn."), 0)
TARGETS = Parameter(
    "targets",
    Choice(
        ("answers", "own"),
        "What is learned: the data's answers; or, without labels, one sentence of refusal to harmful prompts, the "
        "base model's own answers to near misses and the utility adapter's own to utility prompts.",
    ),
    "answers",
)
LEARNING = (STEPS, RATE, NEAR_WEIGHT, UTILITY_WEIGHT, RIDGE, BATCH, ORDER_SEED, TARGETS)
"""How coefficients are fitted on samples"""

PASSES = Parameter("passes", Whole(1, 20, 1, "Most passes; each takes the gradients anew.", telling=True), 4)
KAPPA = Parameter(
    "kappa",
    Real(
        -0.5,
        0.5,
        0.1,
        "Share of what the safety update does to near misses' odds of a refusal that is asked for; below 0 the odds "
        "fall.",
        symbol="κ",
        telling=True,
    ),
    0.0,
)
BETA = Parameter(
    "beta", Real(0.0, 100.0, 0.25, "How much a utility sample counts beside a harmful one.", symbol="β"), 1.0
)
