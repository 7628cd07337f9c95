"""An adapter folder as one file to hand on."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from sstmerge_core.errors import AdapterError, Problem


def zip_adapter(folder: Path) -> bytes:
    """The files of an adapter folder as a ZIP archive, stored uncompressed (weights do not shrink).

    Raises AdapterError where the folder is gone.
    """
    if not folder.is_dir():
        fix = "Its merge can be launched again; the same recipe gives the same adapter."
        raise AdapterError(Problem(str(folder), "the merged adapter is not on this machine", fix))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return buffer.getvalue()
