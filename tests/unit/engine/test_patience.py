"""When an engine counts as hung, and how soon a dead one is started again."""

from __future__ import annotations

from comfyui.launch import Patience, RestartLimits, RestartPolicy


def test_engine_hangs_after_three_failures_and_the_time():
    patience = Patience(60, longest_step=30, now=0)
    verdicts = []
    for now in (20, 40, 59, 61):
        patience.failed(now)
        verdicts.append(patience.is_exhausted)
    assert verdicts == [False, False, False, True]


def test_an_answer_forgives_everything():
    patience = Patience(60, longest_step=30, now=0)
    for now in (30, 55):
        patience.failed(now)
    patience.answered(58)
    for now in (70, 90, 110):
        patience.failed(now)
    assert not patience.is_exhausted
    assert patience.seconds == 52


def test_freeze_between_two_probes_counts_as_one_step():
    # The platform froze the instance for an hour; the probe that was under way fails on waking, two more follow.
    patience = Patience(60, longest_step=15, now=0)
    for now in (3600, 3605, 3610):
        patience.failed(now)
    assert not patience.is_exhausted
    assert patience.seconds == 25


def test_time_alone_is_not_enough():
    patience = Patience(1, longest_step=30, now=0)
    for now in (20, 40):
        patience.failed(now)
    assert not patience.is_exhausted


def die(policy, *deaths):
    """Let `policy` see deaths of (now, ready seconds); return the delay after each."""
    delays = []
    for now, ready_seconds in deaths:
        policy.died(now, ready_seconds)
        delays.append(policy.delay())
    return delays


def test_first_restart_is_immediate_and_the_delay_doubles_to_its_limit():
    policy = RestartPolicy(RestartLimits(death_limit=99))
    assert die(policy, *((i * 100, 1.0) for i in range(9))) == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_delay_starts_over_after_a_settled_life():
    policy = RestartPolicy(RestartLimits(death_limit=99))
    assert die(policy, (0, 1), (10, 1), (20, 1), (90, 60), (91, 1)) == [0, 0.5, 1, 0, 0.5]


def test_three_starts_in_vain_are_a_crash_loop():
    policy = RestartPolicy(RestartLimits())
    assert die(policy, (0, None), (1, None), (2, None)) == [0, 0.5, 30]
    assert policy.verdict() == "failed to start 3 times in a row"


def test_a_ready_engine_between_failed_starts_breaks_the_row():
    policy = RestartPolicy(RestartLimits())
    die(policy, (0, None), (1, None), (2, 1.0), (3, None))
    assert policy.verdict() is None


def test_five_deaths_within_the_window_are_a_crash_loop():
    policy = RestartPolicy(RestartLimits())
    assert die(policy, *((i * 75, 70.0) for i in range(5)))[-1] == 30
    assert policy.verdict() == "died 5 times within 300 s"


def test_five_deaths_in_a_longer_time_are_not():
    policy = RestartPolicy(RestartLimits())
    die(policy, *((i * 76, 70.0) for i in range(5)))
    assert policy.verdict() is None
