"""How ranks end, hang and resume, and how the node agent tells it; real processes throughout."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
from holter.node.process import ProcessWatch, ending_of, kernel_words, oom_kills
from holter.node.progress import LONGEST_SECONDS, SHORTEST_SECONDS, Progress
from holter.node.reader import RingReader
from holter.node.stacks import main_thread, stacks_of
from holter.recorder import Recorder
from holter.ring import Phase, Ring, State, Word

KERNEL_TELLS = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 15)
LAST = "import os, signal, threading, time\n"
# how it ends, exit status as the shell sees it, the event, a part of its attrs
ENDS = {
    "returns": ("", 0, "rank_finished", {"status": "exited"}),
    "finishes": ("run.finish()", 0, "rank_finished", {"status": "finished"}),
    "exits with 3": ("sys.exit(3)", 3, "rank_failed", {"type": "SystemExit", "message": "exit status 3"}),
    "raises": ("raise ValueError('odd')", 1, "rank_failed", {"type": "ValueError", "message": "odd", "last_steps": [0, 1, 2, 3, 4]}),
    "os._exit": ("os._exit(4)", 4, "rank_lost", {"status": 4}),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", -15, "rank_terminated", {"signal": "SIGTERM"}),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", -2, "rank_failed", {"type": "KeyboardInterrupt"}),
    "SIGKILL": (
        "os.kill(os.getpid(), signal.SIGKILL); time.sleep(9)",
        -9,
        "rank_lost",
        {"signal": "SIGKILL", "evidence": "killed by SIGKILL"},
    ),
    "SIGABRT": ("os.abort()", -6, "rank_lost", {"signal": "SIGABRT"}),
    "SIGSEGV": ("os.kill(os.getpid(), signal.SIGSEGV); time.sleep(9)", -11, "rank_lost", {"signal": "SIGSEGV"}),
}


@pytest.mark.parametrize("is_up", [True, False], ids=["collector up", "collector down"])
@pytest.mark.parametrize("end", ENDS)
def test_each_end_is_told_apart_and_the_exit_status_is_the_trainings_own(collector, train, end, is_up):
    """Case 12."""
    code, status, word, attrs = ENDS[end]
    if not is_up:
        collector.stop()
    process = train(collector.url, steps=5, tail=LAST + code)
    process.communicate(timeout=60)
    assert process.returncode == status
    if not is_up:
        collector.start()
    ends = {"rank_finished", "rank_failed", "rank_lost", "rank_terminated"}
    collector.wait_for(lambda collector: ends & {event["event"] for event in collector.events}, seconds=40)
    event = next(event for event in collector.events if event["event"] in ends)
    told = event["attrs"]
    if not KERNEL_TELLS and status in (3, 4, -15, -11, -6, -9):
        pytest.skip("this kernel tells no exit status of a process that is not our child (6.15 and later do)")
    assert event["event"] == word
    assert {key: told.get(key) for key in attrs} == attrs
    assert event["step"] == 4
    assert [step for step, _ in collector.points("loss")] == list(range(5))


def test_a_process_that_ended_before_the_agent_looked_is_still_told(collector, train):
    process = train(collector.url, steps=1, pause=0, tail=LAST + "os._exit(0)")
    process.communicate(timeout=60)
    assert collector.wait_for_event("rank_lost")["step"] == 0


def agent_of(pid):
    """The node agent that looks at the rings of `pid`: the process that holds its ring file open by name."""
    for process in psutil.process_iter(["cmdline"]):
        if "holter.node" in " ".join(process.info["cmdline"] or []):
            try:
                if any(f"/{pid}-" in mapped.path for mapped in process.memory_maps()):
                    return process
            except psutil.Error:
                continue
    return None


def test_an_agent_that_is_killed_is_started_again_and_nothing_is_lost(collector, train):
    """Cases 20 and 23 in small: the rows wait in the ring, the next agent goes on behind what was spooled."""
    process = train(collector.url, steps=160, pause=0.05, tail="run.finish()")
    collector.wait_for(lambda collector: len(collector.points("loss")) > 10)
    agent = agent_of(process.pid)
    agent.kill()
    process.communicate(timeout=60)
    assert process.returncode == 0
    collector.wait_for_event("rank_finished", seconds=30)
    assert [step for step, _ in collector.points("loss")] == list(range(160))
    assert len({frame.boot for frame in collector.frames}) == 2


def test_the_kernels_count_of_kills_is_evidence(tmp_path):
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert oom_kills(tmp_path) == 2
    assert oom_kills(tmp_path / "absent") is None
    log = tmp_path / "kmsg"
    log.write_text("6,1,2,-;Memory cgroup out of memory: Killed process 77 (python) total-vm:1kB\n")
    assert kernel_words(77, str(log)).startswith("Memory cgroup out of memory: Killed process 77")
    assert kernel_words(7, str(log)) == ""
    assert ending_of(State.RUNNING, 9, "out of memory: ...").attrs == {"evidence": "out of memory: ...", "signal": "SIGKILL"}


def test_the_status_of_a_strangers_process_is_read():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watch = ProcessWatch(process.pid, 0)
    process.kill()
    until = time.monotonic() + 10
    while watch.is_alive and time.monotonic() < until:
        time.sleep(0.01)
    assert watch.wait_status() == 9 or watch.began == 0
    process.wait()
    watch.close()


@pytest.fixture
def rank(tmp_path):
    """A recorder, its reader, and a `look` that advances the clock by seconds."""
    ring = Ring.create(tmp_path, "r", {}, (os.getpid(), 0), time.monotonic_ns())
    recorder, reader, progress = Recorder(ring, 0), RingReader(ring.path), Progress()

    def look(seconds=0.0):
        progress.learn(reader.take_rows(), reader.words[Word.PHASE_SINCE])
        told = progress.look(reader, time.monotonic_ns() + int(seconds * 1e9))
        return told and told[0]

    return recorder, look, progress


def steps(recorder, look, count=30):
    for step in range(count):
        recorder.step(step, loss=1.0)
    assert look() is None


def test_a_rank_without_progress_hangs_once_and_resumes(rank):
    recorder, look, _ = rank
    steps(recorder, look)
    assert look(SHORTEST_SECONDS - 5) is None
    assert look(SHORTEST_SECONDS + 1) == "rank_hung"
    assert look(SHORTEST_SECONDS + 50) is None
    recorder.step(30, loss=1.0)
    assert look() == "rank_resumed"


def test_compilation_and_the_first_step_may_take_long(rank):
    _, look, _ = rank
    assert look(900) is None
    assert look(1500) == "rank_hung"


@pytest.mark.parametrize("declare", ["checkpoint", "evaluation"])
def test_a_declared_pause_is_no_hang_and_ends_with_the_next_step(rank, declare):
    recorder, look, progress = rank
    steps(recorder, look)
    recorder.enter(Phase.CHECKPOINT if declare == "checkpoint" else Phase.EVALUATION)
    assert look(900) is None and progress.phase_name() == declare
    recorder.step(31, loss=1.0)
    assert look(900) == "rank_hung" and progress.phase_name() == "step"


def test_the_longest_pause_is_learned_and_bounded(rank):
    _, _, progress = rank
    progress.steps = 100
    progress._note(Phase.STEP, 120.0)
    assert progress.limit(Phase.STEP) == 360.0
    progress._note(Phase.STEP, 1e9)
    assert progress.limit(Phase.STEP) == LONGEST_SECONDS


def test_equal_stacks_are_one_group_and_the_odd_rank_comes_first():
    """Three ranks wait, one reads: what the incident says is "rank 3 stands elsewhere"."""
    if not main_thread('Thread 1 (idle): "MainThread"\n    f (a.py:1)\n'):
        pytest.fail("py-spy's words are not understood")
    waiting = "import time\ndef all_reduce():\n    time.sleep(60)\nall_reduce()"
    reading = "import sys\ndef read():\n    sys.stdin.read()\nread()"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for code in [waiting] * 3 + [reading]]
    try:
        time.sleep(1.0)
        groups = stacks_of({rank: process.pid for rank, process in enumerate(processes)})
    finally:
        [process.kill() for process in processes]
        [process.wait() for process in processes]
    if "(" not in str(groups[0]["stack"]):
        pytest.skip("py-spy is not there or may not look at processes here (kernel.yama.ptrace_scope)")
    assert [group["ranks"] for group in groups] == [[3], [0, 1, 2]]
    assert "read (<string>" in groups[0]["stack"] and "all_reduce (<string>" in groups[1]["stack"]


def test_stacks_by_a_signal_the_operator_allowed(collector, train, tmp_path):
    from holter.node.stacks import by_signal

    process = train(collector.url, steps=1, tail="time.sleep(30)", env={"HOLTER_STACK_SIGNAL": "SIGUSR2"})
    collector.wait_for_event("rank_started")
    file = next(tmp_path.rglob("*.stacks"))
    assert 'File "<string>"' in by_signal(process.pid, signal.SIGUSR2, file)
    assert process.poll() is None


def test_no_signal_handler_and_no_hook_of_the_users_is_touched(tmp_path):
    """Case 13, and the exception hook besides."""
    code = (
        "import signal, sys, threading; before = [signal.getsignal(n) for n in range(1, 65)], sys.excepthook, threading.active_count()\n"
        "import holter; run = holter.init(directory=sys.argv[1], url='http://127.0.0.1:9'); run.step(0, loss=1.0)\n"
        "assert before == ([signal.getsignal(n) for n in range(1, 65)], sys.excepthook, threading.active_count())"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


TORCHRUN = """
import os, signal, sys, time, torch, torch.distributed as dist, holter
dist.init_process_group("gloo")
run = holter.init(project="p", name="n", url=sys.argv[1], directory=sys.argv[2])
for step in range(1000):
    dist.all_reduce(torch.ones(1))
    run.step(step, loss=1.0)
    time.sleep(0.02)
    if step == 50 and dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def torchrun(url, folder, **environment):
    """A job of two ranks, of which the second is killed: its end, and how long it took."""
    pytest.importorskip("torch")
    script = folder / "train.py"
    script.write_text(TORCHRUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), url, str(folder)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env={**os.environ, **environment})
    return done.returncode, time.monotonic() - began


@pytest.mark.torch
def test_torchrun_sees_a_killed_rank_as_it_would_without_us(collector, tmp_path):
    """Case 11: the job ends with torchrun's own status, and it is told which rank was killed and which was then ended."""
    assert torchrun(collector.url, tmp_path)[0] == 1
    lost = collector.wait_for_event("rank_lost", seconds=30)
    assert (lost["rank"], lost["step"]) == (1, 50)
    started = [event["rank"] for event in collector.events if event["event"] == "rank_started"]
    assert sorted(started) == [0, 1] and len({frame.attempt for frame in collector.frames}) == 1


@pytest.mark.soak
@pytest.mark.torch
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("piece", range(5))
def test_fifty_jobs_with_a_killed_rank_end_as_they_would_without_us(collector, tmp_path, piece):
    """Case 11, ten at a time, with two jobs without us beside them."""
    ends, seconds = Counter(), {"with us": [], "without us": []}
    for job in range(12):
        how = "without us" if job % 6 == piece else "with us"
        folder = tmp_path / str(job)
        folder.mkdir()
        status, took = torchrun(collector.url, folder, HOLTER_DISABLED="1" if how == "without us" else "")
        ends[how, status] += 1
        seconds[how].append(round(took, 1))
    collector.wait_for(lambda c: sum(event["event"] == "rank_lost" for event in c.events) >= 10, seconds=60)
    print(f"{dict(ends)}, seconds {seconds}")
    assert ends == {("with us", 1): 10, ("without us", 1): 2}
    assert [(event["rank"], event["step"]) for event in collector.events if event["event"] == "rank_lost"] == [(1, 50)] * 10
