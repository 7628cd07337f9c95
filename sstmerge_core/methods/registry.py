"""The registry of merge methods: a method's signature is its schema.

A method is a pure function with a decorator. Its keyword-only arguments, annotated with `Real`, `Whole`, `Choice`,
`Flag` or `Numbers`, give the form on the Merge page, the command-line flags, the validation and the row in the docs.
Reading the registry imports no torch.

The kinds are told apart by what the function receives and returns. Adapters come in one order: the utility experts
first, the safety adapter last.

- ``combination``: number of adapters → one weight per adapter, the same for every module; the merge is the weighted
  sum of the ΔW.
- ``angular``: inner products of the ΔW of one module → one weight per adapter for that module.
- ``elementwise``: one tensor per adapter and their weights → the merged tensor, in the space the user chose.
- ``aligned``: the same, the tensors being ΣVᵢᵀ of the SVD of all ΔW side by side; what is merged is multiplied by U.
- ``located``: one ΔW and one mask of elected weights per adapter, and their weights → the merged ΔW.
- ``core``: a `sstmerge_core.space.View` of one module in canonical core coordinates → the merged core matrix.
- ``mask``: a `sstmerge_core.space.View` of many modules as flat vectors → a mask m in 0–1; the merge is ΔU + α·m⊙φ.
- ``patch``: a `sstmerge_core.gevp.DualProblem` → a `sstmerge_core.gevp.DualPatch` δ; the merge is ΔU + α·δ.
- ``learned``: a `sstmerge_core.space.View` of one module in canonical core coordinates, and α → a
  `sstmerge_core.methods.coefficients.Coefficients`: the numbers that are fitted by descent before the merge.
- ``iterated``: a `sstmerge_core.gevp.LeastSquares` of linearised samples → the coefficients of a step; the passes are
  taken before the merge.
- ``edited``: a `sstmerge_core.methods.edits.Seen` of one pass over prompts at base + ΔU + αΔS → an
  `sstmerge_core.methods.edits.Edit` of some modules' whole weights; the passes are taken before the merge.
- ``weights``: works on base weights, not on ΔW.

Parameters that every method of a kind has (α, mode, where the gradients are taken …) belong to the driver that applies
the method: they are listed in the decorator, from `sstmerge_core.methods.shared`, and the function never sees them.

Everything else that is known about a method is in its decorator too: its family, what it does to the adapters in words,
what holds it to its formula in the tests. Pages, plots, labels, grids, docs and tests read it from here, so a new
method is one file in this package and nothing else by hand.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_origin

from sstmerge_core.errors import Problem, RecipeError

Kind = Literal[
    "reference",
    "combination",
    "angular",
    "elementwise",
    "aligned",
    "located",
    "core",
    "mask",
    "patch",
    "learned",
    "iterated",
    "edited",
    "weights",
]
Axis = Literal["share", "strength", "tuned"]
AXES: dict[str, str] = {
    "share": "share of the safety adapter",
    "strength": "strength of what is added to the utility adapter",
    "tuned": "share of the tuned model, the rest is the base",
}
"""What α means, in words."""
Family = Literal["SST-Merge", "Averaging", "Sparse", "Subspace", "Safety-aware", "Reference"]
FAMILIES: tuple[str, ...] = ("SST-Merge", "Averaging", "Sparse", "Subspace", "Safety-aware")
"""The groups in which a researcher looks for methods, in the order of every list; reference points are in none"""


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What every kind of parameter says about itself."""

    symbol: str = ""
    """How people write it where that is not its name: τ"""
    telling: bool = False
    """Stands in a run's label even at its default"""
    before: Any = None
    """For a parameter that came after recipes had been recorded: what those recipes meant, which record none. At this
    value it is left out of a run's identity. None: it was there from the first."""


@dataclass(frozen=True)
class Real(_Said):
    """A real parameter within [low, high] (`open_low` excludes the lower end)."""

    low: float = -math.inf
    high: float = math.inf
    step: float = 0.05
    help: str = ""
    open_low: bool = False


@dataclass(frozen=True)
class Whole(_Said):
    """An integer parameter within [low, high]."""

    low: int = 0
    high: int = 2**31 - 1
    step: int = 1
    help: str = ""


@dataclass(frozen=True)
class Choice(_Said):
    """A parameter with a fixed list of values."""

    options: tuple[str, ...]
    help: str = ""


@dataclass(frozen=True)
class Flag(_Said):
    """A parameter that is true or false."""

    help: str = ""


@dataclass(frozen=True)
class Numbers(_Said):
    """Numbers with commas between them as text, so that a recipe writes them one way; or none, an empty text."""

    help: str = ""


Schema = Real | Whole | Choice | Flag | Numbers


@dataclass(frozen=True)
class Parameter:
    name: str
    schema: Schema
    default: Any

    def starting_at(self, default: Any, *, from_the_first: bool = False) -> Parameter:
        """The same parameter with another default; `from_the_first` where the method never had the shared one."""
        schema = replace(self.schema, before=default) if from_the_first else self.schema
        return replace(self, default=default, schema=schema)

    @property
    def symbol(self) -> str:
        """How people write it."""
        return self.schema.symbol or self.name

    def said(self, value: Any) -> str:
        """``τ=100``: this parameter at `value` as it stands in a label."""
        return f"{self.symbol}={value:g}" if isinstance(value, (int, float)) else f"{self.symbol}={value}"

    def parse(self, value: Any) -> Any:
        """`value` (text from a command line, or a number from a form) as this parameter's type.

        Raises ValueError with the allowed values.
        """
        schema = self.schema
        if isinstance(schema, Flag):
            if isinstance(value, bool):
                return value
            if str(value).lower() in ("true", "yes", "1", "on"):
                return True
            if str(value).lower() in ("false", "no", "0", "off"):
                return False
            raise ValueError("must be true or false")
        if isinstance(schema, Choice):
            if value not in schema.options:
                raise ValueError(f"must be one of {', '.join(schema.options)}")
            return value
        if isinstance(schema, Numbers):
            return _numbers(value)
        if isinstance(value, bool):
            raise ValueError("must be a number")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError("must be a number") from None
        if not math.isfinite(number):
            raise ValueError("must be a finite number")
        if isinstance(schema, Whole):
            if number != int(number):
                raise ValueError("must be a whole number")
            number = int(number)
        if not schema.low <= number <= schema.high or (getattr(schema, "open_low", False) and number == schema.low):
            raise ValueError(f"must be {self.bounds()}")
        return number

    def bounds(self) -> str:
        """The allowed values in words."""
        schema = self.schema
        if isinstance(schema, Choice):
            return f"one of {', '.join(schema.options)}"
        if isinstance(schema, Flag):
            return "true or false"
        if isinstance(schema, Numbers):
            return "numbers with commas between them, or nothing"
        above = "above" if getattr(schema, "open_low", False) else "at least"
        if math.isinf(schema.high) or schema.high == 2**31 - 1:
            return f"{above} {schema.low:g}" if not math.isinf(schema.low) else "any number"
        if math.isinf(schema.low):
            return f"at most {schema.high:g}"
        return (
            f"between {schema.low:g} and {schema.high:g}"
            if above == "at least"
            else f"above {schema.low:g} and at most {schema.high:g}"
        )


def _numbers(value: Any) -> str:
    """``1,-0.5`` of a text or a list. Raises ValueError where one is no finite number."""
    given = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    if given == [""]:
        return ""
    try:
        found = [float(one) for one in given]
    except (TypeError, ValueError):
        raise ValueError("must be numbers with commas between them") from None
    if not all(map(math.isfinite, found)):
        raise ValueError("must be finite numbers")
    return ",".join(f"{one:.12g}" for one in found)


@dataclass(frozen=True)
class Look:
    """How a method is drawn where that does not follow from its family; see `sstmerge_core.plots.style`."""

    color: str
    """``#RRGGBB``"""
    symbol: str
    """A marker symbol of plotly"""
    dash: str


Acts = Callable[[Mapping[str, Any], int], str]
"""All parameters and the number of utility experts → what multiplies the adapters, in words"""


def _acts_by_formula(parameters: Mapping[str, Any], experts: int) -> str:
    """What is said of a method that says nothing itself."""
    alpha = f" at α = {parameters['alpha']:g}" if "alpha" in parameters else ""
    side = "ΔU" if experts == 1 else f"ΔU1 to ΔU{experts}"
    return f"what the formula makes of {side} and ΔS{alpha}"


@dataclass(frozen=True)
class Method:
    """A merge method and everything the form, the command line, the pictures and the docs say about it."""

    name: str
    title: str
    family: Family
    kind: Kind
    axis: Axis | None
    """What α means (`AXES`); None where the method has no α."""
    formula: str
    """LaTeX."""
    summary: str
    paper: str
    url: str
    parameters: tuple[Parameter, ...]
    function: Callable[..., Any]
    driver: frozenset[str] = frozenset()
    """Names of the parameters that the driver uses and the function never sees"""
    needs_fisher: bool = False
    """Needs gradients of harmful and benign samples"""
    needs_base: bool = False
    """Needs the base model's weights"""
    needs_importance: bool = False
    """Needs to know which weights matter to each side's samples, at the base and at the tuned model"""
    needs_inputs: bool = False
    """Needs what every module sees of harmful samples, at the base: forward passes alone"""
    needs_near: bool = False
    """Needs near misses: harmless prompts that look dangerous, with helpful answers"""
    needs_answers: bool = False
    """Of kind ``edited``: needs the model's answers, judged, and its outputs at a prompt's last token in the modules
    that write to the residual stream; without it their means over a prompt in every module that an adapter changes"""
    needs_refused: bool = False
    """Needs gradients of refusing near misses, in the words with which their harmful twins are refused"""
    needs_held: bool = False
    """Needs held-out samples of the selection split, on which a fit stops"""
    fisher_of_each: bool = False
    """Where gradients are taken at each side's own adapter, those of several utility experts are kept apart, each with
    its own samples at its own weights"""
    needs_aligned_part: bool = False
    """Compares ΔU with the part of it along a safe direction V, `sstmerge_core.methods.safe_lora.along`"""
    takes_harm: bool = False
    """Its last adapter is a harm adapter, trained to comply with harmful requests, in the place of a safety adapter"""
    cuts_rank: bool = False
    """Of kind ``core``: the rank of its result may be below that of its core matrix, and then so is the adapter's"""
    takes: int | None = None
    """The number of adapters it takes, exactly; None: a utility adapter or more and the safety adapter"""
    acts: Acts = _acts_by_formula
    oracle: str = ""
    """What holds it to its formula in the tests, in a few words; empty: only the properties that every method has"""
    look: Look | None = None
    """None: it follows from the family"""
    keeps_utility: bool = True
    """Whether α = 0 gives ΔU, where the method drops nothing (see `idempotent`)"""
    symmetric: bool = False
    """Whether at α = ½ it does not matter which of two adapters is the safety adapter"""
    idempotent: Mapping[str, Any] | None = None
    """Parameters at which two identical adapters give that adapter; None where no parameters do"""
    swept: tuple[str, ...] = ("k", "seed")
    """Of the lists that a sweep may have beside α, those that this method is varied over"""
    contested: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Parameter → the values it takes in a contest, which gives every method as many settings: what decides beside α"""
    sampled: tuple[str, ...] = ()
    """Parameters that what is learned from samples depends on"""
    measures_budget: Callable[[Mapping[str, Any]], bool] = lambda parameters: False
    """Whether with these parameters the strength is found by measuring on the selection prompts"""

    @property
    def needs_samples(self) -> bool:
        """Whether it looks at harmful and benign samples before it merges."""
        return self.needs_fisher or self.needs_importance or self.needs_inputs or self.needs_near

    @property
    def fits(self) -> bool:
        """Whether numbers are fitted with the model itself before it merges: a stage of its own, kept and resumed."""
        return self.kind in ("learned", "iterated", "edited")

    @property
    def stage(self) -> str:
        """The stage in which it looks at samples, as plans, progress and events call it; empty where it does not."""
        if self.fits:
            return "fit" if self.kind == "learned" else "passes"
        if self.needs_inputs:
            return "inputs"
        return "fisher" if self.needs_fisher else "importance" if self.needs_importance else ""

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Of `parameters` what can change the result, so that runs keep their id when a method learns something new."""
        before = {parameter.name: parameter.schema.before for parameter in self.parameters}
        return {name: value for name, value in parameters.items() if before.get(name) is None or value != before[name]}

    def recorded(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """`parameters` of a recipe, with what a parameter that came after the recipe meant before it came.

        That may be another value than the default of today, so that an old recipe gives its old result.
        """
        missing = {
            parameter.name: parameter.schema.before
            for parameter in self.parameters
            if parameter.schema.before is not None and parameter.name not in parameters
        }
        return {**parameters, **missing}

    def label(self, parameters: Mapping[str, Any]) -> str:
        """The title, and of `parameters` α, what is always told, and what differs from the default."""
        parts = [self.title]
        for parameter in self.parameters:
            value = parameters.get(parameter.name, parameter.default)
            if parameter.schema.telling or value != parameter.default:
                parts.append(parameter.said(value))
        return " ".join(parts)

    def own(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that the function itself takes."""
        return {name: value for name, value in parameters.items() if name not in self.driver}

    def parameter(self, name: str) -> Parameter:
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def problems(self, given: Mapping[str, Any]) -> list[Problem]:
        """Every problem of `given`, none if it is usable."""
        found = []
        known = {parameter.name: parameter for parameter in self.parameters}
        for name, value in given.items():
            if name not in known:
                hint = difflib.get_close_matches(name, known, 1)
                allowed = ", ".join(known) or "none"
                fix = f"Did you mean {hint[0]}?" if hint else f"Its parameters: {allowed}."
                found.append(Problem(f"parameter {name}", f"{self.name} has no such parameter", fix))
                continue
            try:
                known[name].parse(value)
            except ValueError as error:
                found.append(Problem(f"parameter {name}", f"{value!r} {error}", f"Allowed: {known[name].bounds()}."))
        return found

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` parsed, with the defaults of everything not given.

        Raises RecipeError with every problem at once.
        """
        if problems := self.problems(given):
            raise RecipeError(problems)
        return {
            parameter.name: parameter.parse(given[parameter.name]) if parameter.name in given else parameter.default
            for parameter in self.parameters
        }


_METHODS: dict[str, Method] = {}


def method(
    name: str,
    *,
    title: str,
    family: Family,
    kind: Kind,
    axis: Axis | None,
    formula: str,
    paper: str = "",
    url: str = "",
    driver: Sequence[Parameter] = (),
    **about: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a merge method; the docstring's first line is its summary. α comes first, then the method's own.

    `about` are further fields of `Method`, for what is not as with most.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if name in _METHODS:
            raise ValueError(f"method {name} is registered twice")
        first = [parameter for parameter in driver if parameter.name == "alpha"]
        rest = [parameter for parameter in driver if parameter.name != "alpha"]
        _METHODS[name] = Method(
            name=name,
            title=title,
            family=family,
            kind=kind,
            axis=axis,
            formula=formula,
            summary=(inspect.getdoc(function) or "").split("\n")[0],
            paper=paper,
            url=url,
            parameters=(*first, *_parameters(function), *rest),
            function=function,
            driver=frozenset(parameter.name for parameter in driver),
            **about,
        )
        return function

    return register


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    found = []
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        annotation = argument.annotation
        if isinstance(annotation, str):  # only these are evaluated, so that "torch.Tensor" never is
            annotation = eval(annotation, function.__globals__)
        if get_origin(annotation) is None or not isinstance(get_args(annotation)[1], Schema):
            raise TypeError(
                f"{function.__name__}: {argument.name} needs an Annotated[..., Real|Whole|Choice|Flag|Numbers]"
            )
        found.append(Parameter(argument.name, get_args(annotation)[1], argument.default))
    return found


def get(name: str) -> Method:
    """The method called `name`. Raises RecipeError naming the nearest ones."""
    if name not in _METHODS:
        hint = difflib.get_close_matches(name, _METHODS, 1)
        fix = f"Did you mean {hint[0]}?" if hint else f"Known methods: {', '.join(names())}."
        raise RecipeError(Problem(f"method {name}", "there is no such merge method", fix))
    return _METHODS[name]


def names() -> list[str]:
    """Every merge method, family by family, as their files define them; reference points are not merges."""
    merges = [name for name, entry in _METHODS.items() if entry.family in FAMILIES]
    return sorted(merges, key=lambda name: FAMILIES.index(_METHODS[name].family))


def methods() -> list[Method]:
    """Every merge method, in the order of `names`."""
    return [_METHODS[name] for name in names()]
