"""What a rank's processes wait for: on this kernel for real, and on a written `/proc` for what cannot be brought about everywhere."""

import os
import subprocess
import sys
import time
from pathlib import Path

from holter.samplers import Place
from holter.samplers.trees import trees
from holter.samplers.waits import Waits

BUSY = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
PLACE = Place(pid=100, local_rank=0)


class Written:
    """A `/proc` of our own, and the clock that goes with it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 50.0
        (folder / "self").mkdir(parents=True)
        (folder / "self" / "stat").touch()

    def put(self, pid: int, *, parent: int = 1, state: str = "S", ticks: int = 0, spent: int = 1_000, queued: int = 0) -> None:
        (self.folder / str(pid)).mkdir(exist_ok=True)
        fields = [state, str(parent), *(["0"] * 37), str(ticks), "0", "0"]
        (self.folder / str(pid) / "stat").write_text(f"{pid} (a name) with) {' '.join(fields)}\n")
        (self.folder / str(pid) / "schedstat").write_text(f"{spent} {queued} 7\n")

    def waits(self) -> Waits:
        return Waits(proc=self.folder, clock=lambda: self.now)

    def ask(self, waits: Waits, change=lambda look: None) -> dict[str, float]:
        """Ten looks half a second apart, `change(n)` before each; what the last of them answers."""
        for look in range(10):
            change(look)
            found = waits.sample([PLACE])
            self.now += 0.5
        return found.values[100]


def test_a_worker_that_is_seen_blocked_speaks_for_its_rank(tmp_path):
    proc = Written(tmp_path / "proc")
    proc.put(100)

    def change(look: int) -> None:
        proc.put(101, parent=100, state="D" if look % 2 else "R")
        proc.put(102, parent=1, state="D")  # another job's

    assert proc.ask(proc.waits(), change) == {"process_cpu_wait_ratio": 0.0, "process_io_wait_ratio": 0.5}


def test_the_kernels_own_account_of_delays_counts_where_it_is_kept(tmp_path):
    proc = Written(tmp_path / "proc")
    # 4.5 s from the first look to the answer; 2.25 s of them blocked, in ticks of this machine, though never seen so.
    rate = os.sysconf("SC_CLK_TCK")
    found = proc.ask(proc.waits(), lambda look: proc.put(100, ticks=int(look / 9 * 2.25 * rate)))
    assert abs(found["process_io_wait_ratio"] - 0.5) < 0.02


def test_time_in_the_run_queue_is_a_share_of_the_time_that_passed(tmp_path):
    proc = Written(tmp_path / "proc")
    found = proc.ask(proc.waits(), lambda look: proc.put(100, queued=int(look / 9 * 0.9e9)))
    assert abs(found["process_cpu_wait_ratio"] - 0.2) < 0.01


def test_a_kernel_that_counts_nothing_is_absent_not_zero(tmp_path):
    proc = Written(tmp_path / "proc")
    assert proc.ask(proc.waits(), lambda look: proc.put(100, spent=0)) == {"process_io_wait_ratio": 0.0}


def test_a_rank_that_is_gone_has_no_values(tmp_path):
    proc = Written(tmp_path / "proc")
    assert proc.ask(proc.waits()) == {}


def test_a_process_that_shares_its_core_waits_for_the_cpu_and_one_that_sleeps_does_not():
    core = {max(os.sched_getaffinity(0))}
    pin = f"import os\nos.sched_setaffinity(0, {core})\n"
    started = [subprocess.Popen([sys.executable, "-c", pin + BUSY]) for _ in range(3)]
    started.append(subprocess.Popen([sys.executable, "-c", "import time\ntime.sleep(60)"]))
    try:
        time.sleep(0.5)  # past their own start
        waits = Waits()
        places = [Place(pid=process.pid, local_rank=rank) for rank, process in enumerate(started)]
        for _ in range(10):
            found = waits.sample(places).values
            time.sleep(0.1)
        shares = [found[place.pid]["process_cpu_wait_ratio"] for place in places]
        assert min(shares[:3]) > 0.3, shares
        assert shares[3] < 0.1, shares
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_thread_that_reads_is_looked_at_too(tmp_path):
    """A loader of threads: the one that reads stands blocked, the hundred that compute are left alone."""
    proc = Written(tmp_path / "proc")
    proc.put(100)
    for thread in range(200, 300):
        proc.put(thread, parent=1)
        (proc.folder / "100" / "task" / str(thread)).mkdir(parents=True)
        (proc.folder / "100" / "task" / str(thread) / "io").write_text(f"rchar: {10**9 if thread == 250 else 0}\nwchar: 0\n")
    waits = proc.waits()
    assert proc.ask(waits, lambda look: proc.put(250, state="D"))["process_io_wait_ratio"] == 1.0
    assert waits.families == {100: [100, 250]}


def test_a_tree_holds_children_of_children():
    inner = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(1, flush=True)\\nimport time\\ntime.sleep(60)'])"
    with subprocess.Popen([sys.executable, "-c", inner], stdout=subprocess.PIPE) as outer:
        assert outer.stdout is not None and outer.stdout.readline() == b"1\n"
        found = trees([os.getpid(), outer.pid, 2**22 + 1])
        assert set(found[outer.pid]) < set(found[os.getpid()])
        assert found[outer.pid][0] == outer.pid and len(found[outer.pid]) == 2
        assert found[2**22 + 1] == []
        for pid in found[outer.pid][::-1]:
            os.kill(pid, 9)
