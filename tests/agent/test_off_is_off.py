"""Whatever is missing or switched off: the training computes the same bits and ends with the same status."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = """
import hashlib, os, random, sys, time
sys.path.insert(0, os.environ["WITH"]) if os.environ.get("WITH") else None
try:
    import holter
    run = holter.init(project="p", name="n", url="http://127.0.0.1:9")
    assert run.step(0, warm=1.0) is None
except ImportError:
    class run:
        step = section = staticmethod(lambda *a, **k: None)
random.seed(7)
weights = [random.random() for _ in range(50)]
for step in range(60):
    noise = [random.gauss(0, 1) for _ in weights]
    weights = [w - 0.01 * (w + n) for w, n in zip(weights, noise)]
    run.step(step, loss=sum(w * w for w in weights), lr=0.01)
print(hashlib.sha256(repr(weights).encode()).hexdigest())
sys.exit(5)
"""


def trained(*, code=TRAINING, limit=None, **environment):
    """`(what the training printed, its status, its complaints)`."""
    words = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", code], env=words, capture_output=True, text=True, timeout=60, preexec_fn=limit)
    return done.stdout, done.returncode, done.stderr


@pytest.fixture(scope="module")
def without():
    """The same training where holter cannot be imported at all."""
    code = "import sys; sys.modules['holter'] = None\n" + TRAINING
    return trained(code=code)


def few_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


HOSTILE = {
    "as it is": {},
    "switched off": {"HOLTER_DISABLED": "1"},
    "no folder": {"HOLTER_DIR": "/proc/nowhere"},
    "a file where the folder should be": {"HOLTER_DIR": "/etc/hostname"},
    "no address": {"HOLTER_URL": "not an address"},
    "a strange world": {"RANK": "x", "WORLD_SIZE": "-3", "LOCAL_RANK": "9" * 30},
    "no home": {"HOME": None, "USER": None},
    "no shell": {"PATH": "/nowhere"},
    "8 files": {"limit": few_files},
    "files of 1 KiB": {"limit": small_files},
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_training_is_bit_identical_and_ends_with_its_own_status(without, tmp_path, hostile):
    """Cases 3, 7 and 16."""
    given = dict(HOSTILE[hostile])
    limit = given.pop("limit", None)
    environment = {"HOLTER_DIR": str(tmp_path), "HOLTER_URL": None, **given}
    out, status, complaints = trained(limit=limit, **environment)
    assert (out, status) == without[:2]
    assert "Traceback" not in complaints
    assert len(complaints.splitlines()) <= 2


def test_nothing_is_made_when_it_is_switched_off(tmp_path):
    trained(HOLTER_DIR=str(tmp_path), HOLTER_DISABLED="1")
    assert list(tmp_path.iterdir()) == []


def broken(where):
    return f"""
import holter, {where.rpartition(".")[0]} as module
def broken(*args, **kwargs):
    raise MemoryError("broken")
setattr(module, {where.rpartition(".")[2]!r}, broken)
""" + TRAINING.replace("    import holter\n", "")


INSIDE = [
    "holter.start.identify",
    "holter.start._make_ring",
    "holter.start._meta",
    "holter.launch.launch",
    "holter.launch._spawn",
    "holter.settings.private_folder",
    "holter.ring.Ring.create",
    "holter.recorder.to_float",
    "holter.recorder.whole",
    "os.posix_fallocate",
    "mmap.mmap",
    "subprocess.run",
    "subprocess.Popen",
    "json.dumps",
    "time.time_ns",
]


@pytest.mark.parametrize("where", INSIDE)
def test_whatever_raises_inside_stays_inside(without, tmp_path, where):
    """Case 7: each of these raises MemoryError whenever it is called."""
    code = broken(where).replace("import holter, holter.ring.Ring as module", "import holter\nfrom holter.ring import Ring as module")
    out, status, complaints = trained(code=code, HOLTER_DIR=str(tmp_path), HOLTER_URL=None)
    assert (out, status) == without[:2], complaints
    assert "Traceback" not in complaints


def test_whatever_function_raises_the_training_is_the_same(collector, tmp_path):
    """Case 7, all of them: each function of the package that runs in a training process, in C's place the Python writer, raises when it is called."""
    words = [sys.executable, str(Path(__file__).with_name("every_call.py")), collector.url, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    lines = [line.split() for line in done.stdout.splitlines()]
    results = {words[0]: words[1] for words in lines if words[0] != "status"}
    statuses = {words[1]: words[2] for words in lines if words[0] == "status"}
    assert len(statuses) > 120, done.stderr
    assert {name: status for name, status in statuses.items() if status != "5"} == {}, done.stderr
    assert {name: result for name, result in results.items() if result != results["nothing"]} == {}
    assert set(results) == set(statuses) and "Traceback" not in done.stderr


@pytest.mark.parametrize("nonsense", ["metrics=[1]", "metrics=7", "step=object()", "metrics={1: object()}"])
def test_an_evaluation_of_nonsense_raises_nothing(tmp_path, nonsense):
    code = (
        "import holter\nclass Bad:\n    def __str__(self): raise OSError('no')\n    __fspath__ = __repr__ = __str__\n"
        "run = holter.init(directory=%r, url='http://127.0.0.1:9')\n"
        "with run.evaluation(%s), run.checkpoint(Bad()), run.section(Bad()): pass\nfor _ in run.batches([1]): run.step(Bad())"
    )
    subprocess.run([sys.executable, "-c", code % (str(tmp_path), nonsense)], check=True, timeout=60)


def test_importing_brings_no_torch_no_numpy_no_network_and_no_thread():
    """Case 17."""
    code = (
        "import sys, threading; import holter; holter.init\n"
        "heavy = {'torch', 'numpy', 'psutil', 'http.client', 'urllib.request', 'ssl', 'socket', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert threading.active_count() == 1\nassert len(holter.__all__) <= 12"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


FORKS = """
import multiprocessing, os, sys, holter
run = holter.init(directory=sys.argv[2], url=sys.argv[1], project="p", name="n")

def child(number):
    run.step(1000 + number, loss=float(number))
    run.event("from the child")
    run.finish()
    return sum(f"{ring}" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{fd}") for ring in [".ring"])

if __name__ == "__main__":
    for step in range(5):
        run.step(step, loss=1.0)
    with multiprocessing.get_context(sys.argv[3]).Pool(2) as pool:
        assert pool.map(child, range(8), chunksize=1) == [0] * 8
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            run.step(2000, loss=1.0)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    for step in range(5, 10):
        run.step(step, loss=1.0)
    run.finish()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_are_silent_and_inherit_nothing(collector, tmp_path, method):
    """Cases 8 to 10 in small. A spawned child imports the script anew, `holter.init` and all."""
    script = tmp_path / "script.py"
    script.write_text(FORKS)
    done = subprocess.run([sys.executable, str(script), collector.url, str(tmp_path), method], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    collector.wait_for_event("rank_finished")
    steps = [step for step, _ in collector.points("loss")]
    assert steps == list(range(10))
    words = [event["event"] for event in collector.events]
    assert "from the child" not in words and words.count("rank_started") == 1


LOADER = """
import sys, torch, holter
run = holter.init(directory=sys.argv[2], url=sys.argv[1], project="p", name="n")
iterators, workers, is_kept = int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "kept"
data = torch.utils.data.TensorDataset(torch.arange(16.0))
loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=workers, persistent_workers=is_kept, timeout=15)
step = 0
for epoch in range(iterators):
    for (batch,) in run.batches(loader):
        run.step(step, loss=batch.sum())
        step += 1
run.finish()
"""


def loads(collector, folder, iterators, workers, kept):
    """Whether a training that makes `iterators` times `workers` processes sees each batch: torch itself gives a worker up after 15 s."""
    pytest.importorskip("torch")
    words = [collector.url, str(folder), str(iterators), str(workers), kept]
    done = subprocess.run([sys.executable, "-c", LOADER, *words], timeout=1500, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    collector.wait_for_event("rank_finished", seconds=60)
    assert [step for step, _ in collector.points("loss")] == list(range(4 * iterators))
    assert len(collector.points("data_wait_seconds")) == 4 * iterators
    assert sum(event["event"] == "rank_started" for event in collector.events) == 1


@pytest.mark.parametrize(("iterators", "kept"), [(25, "anew"), (25, "kept")])
def test_a_dataloader_with_workers_trains_beside_a_run(collector, tmp_path, iterators, kept):
    """Case 8 with torch's own DataLoader: new workers again and again (50 forks), and the same workers again and again."""
    loads(collector, tmp_path, iterators, 2, kept)


@pytest.mark.soak
@pytest.mark.timeout(1600)
def test_two_thousand_forks_of_a_dataloader(collector, tmp_path):
    loads(collector, tmp_path, 500, 4, "anew")
