"""Who decides, and where the others hear of it, from the variables that launchers set."""

import threading

import pytest

from vgen.cli import launch
from vgen.cli.launch import Meeting, agree, check_world, find_meeting, launch_id, started_again
from vgen.errors import UserError

HERE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}
TORCHRUN = HERE | {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
SLURM = HERE | {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": "0", "SLURM_JOB_ID": "77"}
NAMES = {*TORCHRUN, *SLURM, "NODE_RANK", "SLURM_JOB_NAME", "TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"}


@pytest.fixture
def variables(monkeypatch):
    def given(values):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    given({})
    return given


@pytest.mark.parametrize(
    "values, first, others",
    [
        (TORCHRUN, False, 3),
        (TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0"}, True, 3),
        (SLURM, True, 1),
        (SLURM | {"SLURM_PROCID": "1"}, False, 1),
        (TORCHRUN | SLURM, False, 3),  # torchrun within a SLURM job
        (HERE | {"NODE_RANK": "0"}, True, None),
        (HERE | {"NODE_RANK": "1"}, False, None),
        (HERE | {"NODE_RANK": "0", "LOCAL_RANK": "1"}, False, None),
    ],
)
def test_who_decides(variables, values, first, others):
    variables(values)
    assert find_meeting() == Meeting("127.0.0.1", 29999, first, others)


@pytest.mark.parametrize(
    "values",
    [{}, {"LOCAL_RANK": "0"}, HERE, TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}, SLURM | {"SLURM_NTASKS": "1"}],
)
def test_nobody_else_is_there(variables, values):
    variables(values)
    assert find_meeting() is None
    assert agree(lambda: "the plan") == "the plan"
    check_world(1, "a")


def test_processes_and_devices(variables):
    variables(TORCHRUN | {"RANK": "0"})
    check_world(4, "a")
    with pytest.raises(UserError, match="started 4 processes, and the trainer is made for 2"):
        check_world(2, "a")
    variables(TORCHRUN)
    with pytest.raises(SystemExit) as stop:
        check_world(2, "a")
    assert stop.value.code == 2


def test_a_launch_and_its_restarts(variables):
    assert launch_id() is None and not started_again()
    variables(SLURM | {"SLURM_RESTART_COUNT": "1"})
    assert launch_id() == "slurm 77" and started_again()
    variables(TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "0"})
    assert "none" not in (launch_id() or "none") and not started_again()
    variables(TORCHRUN | {"TORCHELASTIC_RUN_ID": "job 7", "TORCHELASTIC_RESTART_COUNT": "2"})
    assert launch_id() == "torchrun job 7" and started_again()


@pytest.fixture
def meet(monkeypatch):
    """Two processes of one meeting, as two threads: what the first decides, and how both end."""
    from tests.mechanics.processes import free_port

    def both(decide):
        port, ends, role = free_port(), {}, threading.local()
        monkeypatch.setattr(launch, "find_meeting", lambda: Meeting("127.0.0.1", port, role.first, 1))
        monkeypatch.setattr(launch, "_decisions", iter([0] * 9))

        def process(first):
            role.first = first
            try:
                ends[first] = agree(decide)
            except BaseException as error:
                ends[first] = error

        threads = [threading.Thread(target=process, args=(first,)) for first in (False, True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return ends[True], ends[False]

    return both


def test_one_decides_and_the_other_hears(meet):
    calls = []
    assert meet(lambda: calls.append(1) or "plan") == ("plan", "plan") and calls == [1]


@pytest.mark.parametrize(
    "raised, code",
    [
        (UserError("wrong"), 2),
        (KeyboardInterrupt(), 130),
        (RuntimeError("x"), 1),
        (SystemExit(0), 0),
        (SystemExit(), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_first_one_gives_up(meet, raised, code):
    def decide():
        raise raised

    first, other = meet(decide)
    assert first is raised and isinstance(other, SystemExit) and other.code == code
