"""Parameters that belong to a driver and so mean the same in every method that lists them."""

from __future__ import annotations

from sstmerge_core.methods.registry import Choice, Flag, Parameter, Real, Whole

SHARE = Parameter(
    "alpha",
    Real(0.0, 1.0, 0.05, "Share of the safety adapter: 0 is the utility side alone, 1 the safety adapter."),
    0.5,
)
STRENGTH = Parameter(
    "alpha",
    Real(0.0, 4.0, 0.1, "Strength with which safety is added: 0 is the utility side alone, may exceed 1."),
    1.0,
)
EXPERTS = Parameter(
    "experts",
    Choice(("mean", "sum"), "ΔU of several utility experts: the mean of their ΔW, or the sum. The same for one."),
    "mean",
    late=True,
)
SPACE = Parameter(
    "space",
    Choice(
        ("delta", "core", "factors"),
        "Where elements are compared: on the exact ΔW; in core coordinates; or on the factors A and B apart, as PEFT "
        "does (equal ranks only, and the result depends on how ΔW was factorised).",
    ),
    "delta",
    late=True,
)
SEED = Parameter("seed", Whole(0, help="Seed of the random mask."), 42)
MODE = Parameter(
    "mode",
    Choice(("additive", "interpolate"), "φ = ΔS (add it to ΔU), or φ = ΔS − ΔU (move from ΔU towards ΔS)."),
    "additive",
)
LAYERWISE = Parameter("layerwise", Flag("Solve one problem per module instead of one for all."), False)
RHO = Parameter(
    "rho",
    Real(0.0, 10.0, 0.05, "Ridge on the benign Fisher, relative to its mean eigenvalue.", open_low=True),
    0.1,
)
EXPANSION = Parameter(
    "expansion",
    Choice(
        ("utility", "own", "midpoint", "base"),
        "Weights at which the gradients are taken: base + ΔU; each side at its own adapter; base + ½(ΔU + ΔS); base.",
    ),
    "utility",
    late=True,
)
FISHER = Parameter(
    "fisher",
    Choice(("empirical", "true"), "Gradients of the reference responses, or of responses sampled from the model."),
    "empirical",
    late=True,
)
GENERAL = Parameter(
    "general",
    Real(
        0.0,
        100.0,
        0.5,
        "Weight in the benign Fisher of general benign prompts answered by the base model; guards against refusing "
        "everything. 0 leaves them out.",
    ),
    0.0,
    late=True,
)
ATTENTION = Parameter("attention", Real(0.0, 4.0, 0.1, "Factor on what is added to attention modules."), 1.0, late=True)
MLP = Parameter("mlp", Real(0.0, 4.0, 0.1, "Factor on what is added to MLP modules."), 1.0, late=True)

CALIBRATION = (EXPANSION, FISHER, GENERAL)
"""How the gradients are taken"""
ADDED = (MODE, LAYERWISE, ATTENTION, MLP, EXPERTS)
"""How what is added to ΔU is made"""
