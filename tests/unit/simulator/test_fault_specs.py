"""How fault specs are read, and how often faults happen."""

from __future__ import annotations

import pytest

from comfyui.simulator.faults import Faults, FaultSpecError, parse_fault


@pytest.mark.parametrize(
    ("spec", "kind", "at", "times"),
    [
        ("die@node=3", "die", {"node": "3"}, None),
        ("die@node=3,step=2,times=4", "die", {"node": "3", "step": "2"}, 4),
        ("die@start", "die", {"start": "yes"}, None),
        ("die@start,times=2", "die", {"start": "yes"}, 2),
        ("hang@node=2.0.0.1", "hang", {"node": "2.0.0.1"}, None),
        ("drop-socket@message=5", "drop-socket", {"message": "5"}, None),
        ("drop-socket@event=progress,times=1", "drop-socket", {"event": "progress"}, 1),
        ("lose-event=executing-null", "lose-event", {"event": "executing-null"}, None),
        ("late-history=1.5", "late-history", {"seconds": "1.5"}, None),
        ("slow-view=2,times=3", "slow-view", {"seconds": "2"}, 3),
        ("corrupt-output", "corrupt-output", {}, None),
        ("empty-output,times=1", "empty-output", {}, 1),
    ],
)
def test_good_specs(spec, kind, at, times):
    fault = parse_fault(spec)
    assert (fault.kind, fault.at, fault.times) == (kind, at, times)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "nonsense",
        "die",
        "die@",
        "die@node",
        "die@step=3",
        "die@node=3,times=0",
        "die@node=3,times=x",
        "die@node=3,step=x",
        "hang@step=1",
        "drop-socket",
        "drop-socket@message=x",
        "drop-socket@message=1,event=executed",
        "lose-event",
        "lose-event@event",
        "late-history",
        "late-history=soon",
        "corrupt-output=1",
        "reject-all@node=1",
    ],
)
def test_bad_specs_say_what_is_wrong(spec):
    with pytest.raises(FaultSpecError, match=r".{10}"):
        parse_fault(spec)


def test_a_fault_happens_as_often_as_it_says():
    faults = Faults((parse_fault("oom@node=1,times=2"),))
    assert [bool(faults.take("oom", node="1")) for _ in range(3)] == [True, True, False]
    assert faults.describe() == [{"fault": "oom@node=1,times=2", "happened": 2}]


def test_a_fault_happens_only_at_its_place():
    faults = Faults((parse_fault("die@node=1,step=2"),))
    assert not faults.take("die", node="1")
    assert not faults.take("die", node="2", step="2")
    assert faults.take("die", node="1", step="2")


def test_counts_survive_in_the_state_file(tmp_path):
    state = tmp_path / "state.json"
    fault = parse_fault("die@start,times=1")
    assert Faults((fault,), state).take("die", start="yes")
    assert not Faults((fault,), state).take("die", start="yes")
