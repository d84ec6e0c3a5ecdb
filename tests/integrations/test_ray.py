"""Ray Train's worker by a stand-in for the module `ray.train`, with the signatures of release 2.60."""

from types import SimpleNamespace


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
