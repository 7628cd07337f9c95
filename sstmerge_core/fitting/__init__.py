"""Numbers of a merge that are fitted with the model itself, on calibration data: kept, and resumed where stopped."""

from sstmerge_core.fitting.descent import Descent, descend
from sstmerge_core.fitting.edited import Prompts, edit, edits_of
from sstmerge_core.fitting.fit import Fit
from sstmerge_core.fitting.kept import Checkpoint
from sstmerge_core.fitting.learned import coefficients, learn
from sstmerge_core.fitting.newton import KINDS, Landscape, iterate
from sstmerge_core.fitting.objective import ModelObjective, Objective, Part
from sstmerge_core.fitting.side_path import side_path

__all__ = [
    "KINDS",
    "Checkpoint",
    "Descent",
    "Fit",
    "Landscape",
    "ModelObjective",
    "Objective",
    "Part",
    "Prompts",
    "coefficients",
    "descend",
    "edit",
    "edits_of",
    "iterate",
    "learn",
    "side_path",
]
