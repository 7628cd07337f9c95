"""Which suites a merge is measured on, by the names a user gives: bundled, declared, or a file. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sstmerge_core.builder import preflight
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.suites import attacks as known_attacks
from sstmerge_core.suites import declared, prepare
from sstmerge_core.suites.bundled import ROLES
from sstmerge_core.suites.columns import Columns
from sstmerge_core.suites.declared import DeclaredSuite
from sstmerge_core.workspace import Workspace, given_path

OPTIONS = {"harmful": "--harmful", "benign": "--benign", "utility": "--suite"}
"""The command line's option for each role"""


def options(
    workspace: Workspace,
    *,
    harmful: str = "harmful",
    attacks: Sequence[str] = (),
    benign: str = "near_miss",
    utility: str = "",
    refusals: str = "harmful",
    near_misses: str = "near_miss",
    fetch: bool = True,
    columns: Columns | None = None,
    **rest: Any,
) -> preflight.Options:
    """`preflight.Options` of suites by name; a declared suite brings its judge, metric and length with it.

    ``harmful+prefill`` is ``harmful`` with the attack ``prefill`` beside it, as by `attacks`. An empty `utility` is the
    first utility adapter's own suite. Without `fetch` the Hugging Face hub is not asked.
    `columns` are those of every file that is named. Raises RecipeError for a suite of another role, DataError for rows
    that are not here.
    """
    if not given_path(harmful).exists():
        harmful, on_it = known_attacks.parted(harmful)
        attacks = (*on_it, *attacks)
    attacks = tuple(dict.fromkeys(known_attacks.get(attack).name for attack in attacks))
    named = (harmful, benign, utility, refusals, near_misses)
    if columns is not None and not any(name and given_path(name).is_file() for name in named):
        fix = "Name one, such as `--suite FILE`; a declared suite has its own columns."
        raise RecipeError(Problem("--columns", "are given, but no file that they are of", fix))
    how: dict[str, Any] = {"fetch": fetch, "columns": columns}
    harmful, declared_harmful = suite(harmful, "harmful", workspace, **how)
    benign, _ = suite(benign, "benign", workspace, **how)
    utility, declared_utility = suite(utility, "utility", workspace, **how)
    refusals, _ = suite(refusals, "harmful", workspace, **how, option="--refusals")
    near_misses, _ = suite(near_misses, "benign", workspace, **how, option="--near-misses")
    known: dict[str, Any] = {"refusal_suite": refusals, "harmful_suite": harmful, "benign_suite": benign}
    known["attacks"] = attacks
    known |= {"utility_suite": utility, "near_suite": near_misses}
    if declared_harmful:
        known["judge"] = declared_harmful.judge
    if declared_utility:
        metric = declared_utility.measured_by
        known |= {"utility_metric": "" if metric == "rouge_l" else metric}
        known |= {"utility_tokens": declared_utility.max_new_tokens}
    return preflight.Options(**known, **rest)


def suite(
    name: str,
    role: str,
    workspace: Workspace,
    *,
    fetch: bool = True,
    option: str = "",
    columns: Columns | None = None,
) -> tuple[str, DeclaredSuite | None]:
    """What a name means, as `preflight` takes it: a bundled suite or a file as it is, a declared suite's rows.

    A file whose `columns` are given is its rows under them. Raises RecipeError for a suite of another role, DataError
    for rows that are not here.
    """
    if not name or (_bundled(name, workspace) and ROLES[name] == role):
        return name, None
    found = declared.find(name, workspace)
    if found is None:
        if columns is not None and given_path(name).is_file():
            return str(prepare.mapped(name, columns, workspace)), None
        return name, None
    if found.role != role:
        fix = f"Suites of role {role}: {', '.join(names(role, workspace))}."
        raise RecipeError(
            Problem(f"{option or OPTIONS[role]} {name}", f"is a {found.role} suite, not a {role} one", fix)
        )
    return str(prepare.prepare(found, workspace, fetch=fetch).path), found


def names(role: str, workspace: Workspace) -> list[str]:
    """Suites of a role: the bundled ones first, then the others that are here, then those that are not."""
    bundled = [name for name, own in ROLES.items() if own == role and _bundled(name, workspace)]
    known = [one for one in declared.suites(workspace) if isinstance(one, DeclaredSuite) and one.role == role]
    here = {one.name: prepare.is_here(one, workspace) for one in known}
    return list(dict.fromkeys([*bundled, *(name for name in here if here[name]), *here]))


def absent(role: str, workspace: Workspace) -> list[str]:
    """Those of `names` whose rows are not here."""
    known = [one for one in declared.suites(workspace) if isinstance(one, DeclaredSuite) and one.role == role]
    bundled = {name for name in ROLES if _bundled(name, workspace)}
    return [one.name for one in known if one.name not in bundled and not prepare.is_here(one, workspace)]


def _bundled(name: str, workspace: Workspace) -> bool:
    """A bundled suite that nothing in the workspace stands before."""
    return name in ROLES and not (declared.folder(workspace) / f"{name}.yaml").is_file()
