"""One thread, as workers have: with more, a seed alone and the same seed in company need not round alike."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
