"""Which trouble is the symptom of which: one cause, one message. Declarative: a line says what a kind brings about."""

from __future__ import annotations

from holter_monitor.incidents import Incident

_SLOW = ("throughput_drop", "throughput_decline", "throughput_stalls")
BRINGS_ABOUT: dict[str, tuple[str, ...]] = {
    "rank_lost": ("hang", "agent_silent", *_SLOW, "straggler", "checkpoint_overdue", "eval_overdue"),
    "agent_silent": ("hang", "checkpoint_overdue", "eval_overdue"),
    "gpu_error": ("rank_lost", "hang", *_SLOW, "straggler", "non_finite", "memory_corruption"),
    "hang": (*_SLOW, "data_stall", "straggler", "checkpoint_overdue", "eval_overdue"),
    "gpu_throttle": ("straggler", *_SLOW),
    "straggler": _SLOW,
    "throughput_drop": ("throughput_stalls", "throughput_decline"),
    "data_stall": (*_SLOW, "step_locked_stalls"),
    "step_locked_stalls": (*_SLOW, "data_stall"),
    "memory_growth": (*_SLOW, "data_stall", "rank_lost", "disk_pressure"),
    "disk_pressure": ("checkpoint_lost", "checkpoint_overdue", "rank_lost"),
    "loss_divergence": ("loss_spike", "loss_shift", "loss_noise", "grad_explosion", "non_finite"),
    "grad_explosion": ("loss_spike", "non_finite"),
    "non_finite": ("loss_spike", "grad_explosion", "rank_disagreement", "loss_shift", "loss_plateau"),
    "memory_corruption": ("non_finite", "loss_spike", "replica_mismatch", "rank_disagreement"),
    "tp_duplicate_shards": ("reference_gap", "loss_shift"),
    "replica_mismatch": ("rank_disagreement", "reference_gap", "loss_shift"),
    "loss_shift": ("loss_spike",),
    "restart_storm": ("rank_lost", "agent_silent", "gpu_error", "hang", "checkpoint_overdue"),
}
SHOWS_IN: dict[str, tuple[str, ...]] = dict.fromkeys((*_SLOW, "data_stall"), ("disk_pressure",))
"""Which trouble speaks for another where the diagnosis gives the same cause for both: a slow disk is told with what it costs."""
SURE = 0.5
"""From this confidence on a cause is known."""
_NEAR_STEPS = 200
_NEAR_SECONDS = 900.0
_EARLIER_STEPS, _EARLIER_SECONDS, _BLOCK_STEPS = 16, 5.0, 64
"""So much earlier than its cause's a symptom's onset may be told: a level is judged in blocks of steps, and quick steps pass by the hundred."""


def explains(cause: Incident, symptom: Incident) -> bool:
    """Whether the one incident explains the other: same run, about the same time, same ranks or nodes."""
    return cause.id != symptom.id and cause.run == symptom.run and cause.is_active and _speaks_for(cause, symptom) and _meet(cause, symptom)


def _speaks_for(cause: Incident, symptom: Incident) -> bool:
    if symptom.kind in BRINGS_ABOUT.get(cause.kind, ()):
        return _near(cause, symptom) or _tell_one_clock(cause, symptom) or _have_one_cause(cause, symptom)
    return symptom.kind in SHOWS_IN.get(cause.kind, ()) and _have_one_cause(cause, symptom)


def _near(cause: Incident, symptom: Incident) -> bool:
    # A symptom cannot begin long before its cause; but both onsets are estimates, so a little earlier is allowed. Of a symptom that came
    # before, what lasts now is to be explained; a cause that came before may have begun it then.
    if cause.onset_step < 0 or symptom.episode_onset < 0:
        return abs(cause.created - symptom.created) <= _NEAR_SECONDS
    if symptom.episode_onset < cause.onset_step - _earlier_steps(cause, symptom):
        return False
    return symptom.episode_onset <= max(cause.detected_step, cause.end_step or cause.detected_step) + _NEAR_STEPS


def _tell_one_clock(cause: Incident, symptom: Incident) -> bool:
    """Both are about the same lost time: what is noticed while a drop lasts is part of it, however far back a trend or a first stall reaches."""
    return cause.kind in _SLOW and symptom.kind in _SLOW and symptom.is_active and symptom.detected_step >= cause.episode_onset


def _have_one_cause(one: Incident, other: Incident) -> bool:
    """Both last, and the diagnosis gives the same cause for them: where each detector puts its onset matters no more."""
    if not (one.causes and other.causes and other.is_active):
        return False
    first, second = one.causes[0], other.causes[0]
    return bool(first["cause"] == second["cause"] and max(first["confidence"], second["confidence"]) >= SURE)


def _earlier_steps(one: Incident, other: Incident) -> float:
    """By how long a step takes, as when the two were seen tells; seen at once they may be as far apart as a block."""
    steps, seconds = abs(one.detected_step - other.detected_step), abs(one.created - other.created)
    return max(_EARLIER_STEPS, _EARLIER_SECONDS * steps / seconds if seconds else _BLOCK_STEPS)


def _meet(cause: Incident, symptom: Incident) -> bool:
    if cause.ranks and symptom.ranks and set(cause.ranks) & set(symptom.ranks):
        return True
    if cause.nodes and symptom.nodes and set(cause.nodes) & set(symptom.nodes):
        return True
    # One that names no place is about the whole run.
    return not (cause.ranks or cause.nodes) or not (symptom.ranks or symptom.nodes)
