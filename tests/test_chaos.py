"""A sweep that is killed at ten chosen moments loses nothing; tests/chaos.py does the same hundreds of times."""

from __future__ import annotations

from pathlib import Path

import chaos

MOMENTS = {moment.name: moment for moment in chaos.MOMENTS}
ROUNDS = (
    {
        "checkpoint half written": "self",
        "checkpoint moved to previous": "self",
        "between the renames of a publication": "self",
        "predictions half written": "self",
        "curves half written": "self",
        "record half written": "self",
        "record written, not published": "self",
        "published, claim not released": "all",
    },
    {"claim put aside": "self", "attempt not yet inherited": "self", "just before the publication": "grandparent"},
    {"attempt inherited": "self", "runner: tidying": "self"},
)
REPORTS = ("merge: predictions half written", "tables half written")


def test_a_sweep_that_is_killed_at_chosen_moments_loses_nothing(tmp_path: Path) -> None:
    with chaos.cache_in(tmp_path):
        havoc = chaos.Chaos(tmp_path, 0)
        sweep = havoc.sweep("sweep", begins_stale=True)
        for moments in ROUNDS:
            sweep.arm([(MOMENTS[name], "SIGKILL", whom) for name, whom in moments.items()])
            sweep.wait([sweep.run(2)])
        sweep.finish(havoc.calm)
        assert havoc.counts.wrong == []
        assert havoc.counts.total >= 8, havoc.counts.kills
        assert sorted(chaos.done(sweep.out)) == sorted(chaos.done(havoc.calm.out))


def test_a_report_that_is_killed_leaves_whole_files_and_the_next_one_is_as_if_it_never_was(tmp_path: Path) -> None:
    with chaos.cache_in(tmp_path):
        havoc = chaos.Chaos(tmp_path, 0, seeds="0-1")
        sweep = havoc.sweep("sweep")
        sweep.wait([sweep.run(2)])
        for name in REPORTS:
            sweep.arm([(MOMENTS[name], "SIGKILL", "self")])
            sweep.wait([sweep.report()])
        sweep.finish(havoc.calm)
        assert havoc.counts.wrong == []
        assert havoc.counts.total == len(REPORTS)
