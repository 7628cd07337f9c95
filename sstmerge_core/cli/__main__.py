"""``python -m sstmerge_core.cli``: the same as ``sstmerge``."""

import sys

from sstmerge_core.cli import main

sys.exit(main())
