"""One line per method: worst relative error, tolerance, oracle."""

from benchmarks.oracles import ORACLES
from sstmerge_core import methods

for method, oracle in ORACLES.items():
    print(f"{method:20} {oracle.error():8.1e}  ≤ {oracle.tolerance:g}  {methods.get(method).oracle}")
