"""Ray Train's worker: a stand-in for `ray.train` with the signatures of release 2.60, and a real training where Ray is installed."""

from types import SimpleNamespace

import pytest


def module(got):
    def report(metrics, checkpoint=None, checkpoint_dir_name=None, validation=False):
        got.append(metrics)

    context = SimpleNamespace(get_world_rank=lambda: 3, get_local_rank=lambda: 1, get_world_size=lambda: 4)
    return SimpleNamespace(report=report, get_context=lambda: context)


def test_what_a_worker_reports_is_recorded_as_its_rank(collector):
    from holter.integrations.ray import watch

    got = []
    train = module(got)
    run = watch(train, project="p", name="n")
    assert run.rank == 3
    for step in range(1, 4):
        train.report({"step": step, "train_loss": 3.0 / step, "note": "text"})
    train.report({"step": 4, "loss": 0.5}, checkpoint=SimpleNamespace(path="saved/4"))
    run.finish()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 4)
    assert collector.points("loss") == [(1, 3.0), (2, 1.5), (3, 1.0), (4, 0.5)]
    saved = collector.wait_for_event("checkpoint")
    assert (saved["step"], saved["attrs"]["path"]) == (4, "saved/4")
    assert got[0] == {"step": 1, "train_loss": 3.0, "note": "text"}


def test_two_workers_of_a_real_training(collector, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "1")
    ray = pytest.importorskip("ray")
    trainers = pytest.importorskip("ray.train.v2.api.data_parallel_trainer")

    def work():
        import ray.train
        from holter.integrations.ray import watch

        run = watch(project="p", name="n")
        for step in range(1, 4):
            ray.train.report({"step": step, "loss": 1.0 / step})
        run.finish()

    ray.init(num_cpus=2, include_dashboard=False)
    try:
        settings = ray.train.RunConfig(storage_path=str(tmp_path / "results"))
        trainers.DataParallelTrainer(work, scaling_config=ray.train.ScalingConfig(num_workers=2), run_config=settings).fit()
    finally:
        ray.shutdown()
    collector.wait_for(lambda seen: len(seen.points("loss")) == 6)
    collector.wait_for(lambda seen: {event["rank"] for event in seen.events if event["event"] == "rank_finished"} == {0, 1})
    assert sorted(collector.points("loss")) == sorted([(step, 1.0 / step) for step in range(1, 4)] * 2)
