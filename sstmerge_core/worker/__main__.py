"""``python -m sstmerge_core.worker``."""

import sys

from sstmerge_core.worker import main

if __name__ == "__main__":
    sys.exit(main())
