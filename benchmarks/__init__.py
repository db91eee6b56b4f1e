"""The benchmarks as a table of strings: importing this package loads no torch and no numpy.

To add a benchmark: one file in benchmarks/tasks with SPEC, prepare, arrange (and TWIN) and one row here.
"""

from __future__ import annotations

BENCHMARKS: dict[str, str] = {
    "crema_d": "benchmarks.tasks.crema_d",
    "kinetics_sounds": "benchmarks.tasks.kinetics_sounds",
    "ave": "benchmarks.tasks.ave",
    "ucf101": "benchmarks.tasks.ucf101",
    "cmu_mosi": "benchmarks.tasks.cmu_mosi",
    "cmu_mosei": "benchmarks.tasks.cmu_mosei",
    "ravdess": "benchmarks.tasks.ravdess",
    "av_digits": "benchmarks.tasks.av_digits",
}
