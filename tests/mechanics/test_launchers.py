"""torchrun, two agents as on two machines, and what happens when a rank dies: one decides, the others follow or end."""

import signal
import sys

import pytest
import torch

from tests.mechanics.processes import Processes, apart, free_port
from tests.mechanics.runs import STAGES, assert_same, checkpoint, command, with_callbacks

DEVICES = "--all_stages.trainer.devices=2"
TWO_MACHINES = ("--all_stages.trainer.num_nodes=2", "--all_stages.trainer.strategy=ddp")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    return with_callbacks(folder / "toy.yaml", "killer.Killer", "toy.RankRecorder")


@pytest.fixture(scope="module")
def pair(recipe, tmp_path_factory):
    """Both stages under torchrun, on two ranks."""
    run = tmp_path_factory.mktemp("torchrun") / "toy"
    codes, output = apart(run, recipe=recipe, ranks=2, launcher="torchrun")
    assert codes == [0], output
    return run, output


def test_torchrun(pair):
    run, output = pair
    for stage in STAGES:
        ranks = [torch.load(run / stage / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
        assert [r["rank"] for r in ranks] == [0, 1] and {r["world_size"] for r in ranks} == {2}
        assert not set(ranks[0]["clips"]) & set(ranks[1]["clips"])
        assert output.count(f"[{stage}] done") == 1 and output.count(f"[{stage}] batch 4 clips (2 devices x 2)") == 1
        assert checkpoint(run, stage)["vgen"]["clips"] == 7 * 2 * 2


def test_ranks_that_nobody_told(pair, recipe, tmp_path):
    """Forked ranks meet by themselves, in a new run, one that goes on and one that begins anew."""
    run = tmp_path / "toy"
    apart(run, recipe=recipe, ranks=2, VGEN_KILL="diffusion:step:4:all")
    codes, output = apart(run, "--resume", recipe=recipe, ranks=2)
    assert codes == [0, 0] and output.count("[autoencoder] already trained") == 1, output
    assert_same(pair[0], run)
    (run / "autoencoder" / "samples").mkdir()
    (run / "autoencoder" / "samples" / "old.mp4").touch()
    codes, output = apart(run, "--overwrite", recipe=recipe, ranks=2)
    assert codes == [0, 0] and not list(run.rglob("old.mp4")), output
    assert_same(pair[0], run)


def test_a_mistake_is_told_once(recipe, tmp_path):
    run = tmp_path / "toy"
    run.mkdir()
    (run / "notes.txt").touch()
    for arguments, words in (
        ((), "the run directory is not empty"),
        (("--resume", "--stages.diffusion.data.root=nowhere"), "nowhere"),
        (("--resume", "--stages.diffusion.model.denoiser.dimm=3"), "dimm"),
    ):
        codes, output = apart(run, *arguments, recipe=recipe, ranks=2)
        assert codes == [2, 2] and output.count("error:") == 1 and words in output, output
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_more_processes_than_devices(recipe, tmp_path):
    """Each of them would train the same run alone."""
    port = str(free_port())
    processes = Processes(tmp_path / "output", {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"})
    for rank in ("0", "1"):
        line = command(tmp_path / "toy", recipe=recipe)
        processes.fork(line, RANK=rank, LOCAL_RANK=rank, TORCHELASTIC_RUN_ID="test")
    codes, output = processes.wait()
    assert codes == [2, 2] and output.count("error:") == 1 and "the launcher has started 2 processes" in output


def test_started_again_by_torchrun(pair, recipe, tmp_path):
    """With --overwrite, too: what this command itself has begun is not deleted."""
    run = tmp_path / "toy"
    arguments = {"recipe": recipe, "ranks": 2, "TORCHELASTIC_RUN_ID": "job 7"}
    for restarts, where in (("0", "autoencoder:step:5:all"), ("1", "")):
        codes, output = apart(run, "--overwrite", TORCHELASTIC_RESTART_COUNT=restarts, VGEN_KILL=where, **arguments)
    assert codes == [0, 0] and "going on as with --resume" in output, output
    seen = [torch.load(r / "autoencoder" / "rank0.pt", weights_only=True)["clips"] for r in (pair[0], run)]
    assert len(seen[0]) == 14 and seen[1] == seen[0][-len(seen[1]) :] and len(seen[1]) < 14, "it began anew"
    assert_same(pair[0], run)
    # Another launch is another matter.
    codes, output = apart(run, TORCHELASTIC_RESTART_COUNT="1", **(arguments | {"TORCHELASTIC_RUN_ID": "job 8"}))
    assert codes == [2, 2] and "not empty" in output


@pytest.mark.parametrize("trap, codes, words", [
    ("autoencoder:3:raise:1", [1, 1], "error: rank 1: RuntimeError: the trap"),
    ("autoencoder:3:kill:1", [1, -9], "error: rank 0: "),
])  # fmt: skip
def test_a_rank_that_dies_ends_the_other(recipe, tmp_path, trap, codes, words):
    ended, output = apart(tmp_path / "toy", recipe=recipe, ranks=2, TOY_TRAP=trap)
    assert ended == codes and words in output, output


@pytest.mark.slow
@pytest.mark.parametrize("rank, how, code, words", [
    (1, "raise", 1, "rank 1 ended with exit code 1"),
    (1, "kill", 128 + signal.SIGKILL, "rank 1 was killed by SIGKILL"),
    (0, "raise", 1, "error: rank 0: RuntimeError: the trap"),
    (0, "kill", -signal.SIGKILL, "rank 1"),
])  # fmt: skip
def test_a_rank_of_lightning_that_dies(recipe, tmp_path, rank, how, code, words):
    trap = f"diffusion:3:{how}:{rank}"
    codes, output = apart(tmp_path / "toy", recipe=recipe, ranks=2, launcher="lightning", TOY_TRAP=trap)
    assert codes == [code] and words in output, output


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_rank_of_torchrun_that_dies(recipe, tmp_path, how):
    trap = f"diffusion:3:{how}:1"
    codes, output = apart(tmp_path / "toy", recipe=recipe, ranks=2, launcher="torchrun", TOY_TRAP=trap)
    assert codes == [1]
    assert ("rank 1: RuntimeError: the trap" if how == "raise" else "Signal 9 (SIGKILL)") in output, output


def agents(run, recipe, *arguments):
    """One torchrun on each of two machines, both of which are this one."""
    processes, port = Processes(run.with_name("output"), {}), free_port()
    line = command(run, *TWO_MACHINES, *arguments, recipe=recipe)
    for node in range(2):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}"]
        torchrun += ["--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}", "-m", "vgen"]
        processes.start([*torchrun, *line])
    return processes


@pytest.mark.slow
def test_two_machines_by_torchrun(pair, recipe, tmp_path):
    run = tmp_path / "toy"
    codes, output = agents(run, recipe).wait()
    assert codes == [0, 0], output
    assert_same(pair[0], run)
    codes, output = agents(run, recipe, "--resume").wait()
    assert codes == [0, 0] and output.count("[diffusion] already trained") == 1, output
    codes, output = agents(run, recipe).wait()
    assert codes == [1, 1] and output.count("the run directory is not empty") == 1, output
    codes, output = agents(run, recipe, "--overwrite").wait()
    assert codes == [0, 0], output
    assert_same(pair[0], run)


@pytest.mark.slow
def test_two_machines_by_lightning(pair, recipe, tmp_path):
    """The command on each machine, with NODE_RANK: the first one decides."""
    run, port = tmp_path / "toy", free_port()
    processes = Processes(tmp_path / "output", {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    line = command(run, *TWO_MACHINES, recipe=recipe)
    for node in ("0", "1"):
        processes.start([sys.executable, "-m", "vgen", *line], NODE_RANK=node)
    codes, output = processes.wait()
    assert codes == [0, 0], output
    assert_same(pair[0], run)


@pytest.mark.slow
def test_torchrun_starts_a_failed_run_again(pair, recipe, tmp_path):
    """By itself (--max-restarts), without --resume on the command line."""
    run = tmp_path / "toy"
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    line += [f"--master-port={free_port()}", "-m", "vgen", *command(run, DEVICES, recipe=recipe)]
    processes = Processes(tmp_path / "output", {"VGEN_KILL": "diffusion:step:5:rank1"})
    processes.start(line)
    # The second attempt goes on from step 4: it has three batches, and the killer waits for a fifth.
    codes, output = processes.wait()
    assert "going on as with --resume" in output and codes == [0], output
    assert_same(pair[0], run)


def test_slurms_processes_meet(pair, recipe, tmp_path):
    """The variables of srun, without SLURM: two tasks on one node."""
    run = tmp_path / "toy"
    slurm = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_ID": "77", "SLURM_NODEID": "0"}
    slurm |= {"SLURM_JOB_NAME": "vgen", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1"}
    slurm |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def srun(*arguments, **environment):
        processes = Processes(tmp_path / "output", slurm | environment)
        for rank in ("0", "1"):
            line = command(run, DEVICES, *arguments, recipe=recipe)
            processes.fork(line, SLURM_PROCID=rank, SLURM_LOCALID=rank)
        return processes.wait()

    codes, output = srun(VGEN_KILL="autoencoder:step:4:rank0", VGEN_SIGNAL="USR1")
    assert codes == [138, 138] and "SIGUSR1: saved step 4" in output, output
    # What `scontrol requeue` makes of it: the same job and command.
    codes, output = srun(SLURM_RESTART_COUNT="1")
    assert codes == [0, 0] and "going on as with --resume" in output, output
    assert_same(pair[0], run)
