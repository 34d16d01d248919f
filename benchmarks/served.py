"""The contender that the environment names, for gunicorn to serve: see gunicorn.py."""

from __future__ import annotations

import os
from pathlib import Path

from .apps import CONTENDERS, Place

app = CONTENDERS[os.environ["BENCH_CONTENDER"]].build(
    Place(Path(os.environ["BENCH_FOLDER"]), os.environ["BENCH_REDIS"], os.environ["BENCH_VALKEY"])
)
