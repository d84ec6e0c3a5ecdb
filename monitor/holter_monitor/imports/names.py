"""Many frameworks, one vocabulary: the columns and tags of logs mapped onto the metrics of docs/architecture.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

ROLES = ("step", "time", "rank", "event", "stage", "run", "metric", "value")
"""What a column can be that is not a metric."""

_ROLE_NAMES = {
    "step": "step global_step trainer_global_step train_global_step current_step training_step steps iteration iterations iter it update "
    "num_updates training_iteration _step step_num batch batch_idx",
    "time": "time_s time_seconds _timestamp timestamp wall_time walltime time elapsed_s elapsed elapsed_seconds _runtime",
    "rank": "rank global_rank local_rank worker",
    "run": "run run_name run_id experiment exp_name trial_name trial_id variant",
    "event": "event events",
    "stage": "stage phase training_stage training_phase train_stage train_phase curriculum_stage curriculum_phase data_stage",
}
"""The preferred name first: of `global_step` and wandb's `_step`, the former counts steps."""

_ALIASES = {
    "loss": "loss train_loss training_loss lm_loss loss_train reduced_train_loss loss_metrics_global_avg_loss global_avg_loss trl ce_loss train_ce_loss "
    "train_crossentropyloss train_lm_loss total_loss train_total_loss lm_loss_training step_loss loss_lm_loss loss_train_total",
    "grad_norm": "grad_norm gradient_norm gnorm global_grad_norm total_grad_norm train_grad_norm optim_total_grad_norm training_grad_norm norm "
    "train_gnorm l2_norm_grad_global gradnorm grdn",
    "lr": "lr learning_rate train_lr train_learning_rate optim_lr learning_rate_learning_rate",
    "eval_loss": "eval_loss val_loss valid_loss validation_loss lm_loss_validation tel test_loss loss_val validation_metrics_loss loss_eval_total",
    "tokens_per_second": "tokens_per_second tokens_per_s tokens_per_sec tok_s tokens_s tps throughput throughput_tps train_tokens_per_second "
    "tokens_per_sec_per_gpu tokens_per_second_per_gpu throughput_device_tokens_per_sec throughput_tokens_per_sec tok_per_sec tgs wps tok_sec tokens_s_device "
    "tokens_sec throughput_device_tokens_per_second",
    "samples_per_second": "samples_per_second samples_per_s samples_per_sec train_samples_per_second examples_per_second images_per_second samples_sec",
    "step_time_seconds": "step_time_seconds step_time_s step_time iteration_time iter_time sec_per_step seconds_per_step step_duration "
    "step_seconds time_per_step time_per_iteration elapsed_time_per_iteration_s iter_time_s "
    "batch_time time_metrics_end_to_end_s end_to_end_s train_step_time perf_step_time",
    "data_wait_seconds": "data_wait_seconds data_wait_s data_time_s data_time data_loading_time data_load_time dataloader_time "
    "time_metrics_data_loading_s data_loading_s data_s",
    "compute_seconds": "compute_seconds compute_time_s compute_time updt_s",
    "process_memory_rss_bytes": "process_memory_rss_bytes mem_bytes rss_bytes",
    "gpu_memory_used_bytes": "gpu_memory_used_bytes gpu_mem_bytes memory_allocated_bytes cuda_memory_allocated",
    "gpu_temperature_celsius": "gpu_temperature_celsius gpu_temp temperature_gpu",
    "gpu_power_watts": "gpu_power_watts gpu_power power_draw",
    "node_power_watts": "node_power_watts node_power",
    "gpu_utilization_ratio": "gpu_utilization_ratio",
    "consumed_tokens": "consumed_tokens tokens_seen num_tokens total_tokens num_input_tokens_seen train_num_input_tokens_seen tokens_consumed "
    "train_tokens total_tokens_seen",
    "tokens": "tokens step_tokens tokens_per_step",
    "loss_scale": "loss_scale loss_scaler grad_scale",
    "skipped_steps": "skipped_steps number_of_skipped_iterations skipped_iterations",
    "nan_steps": "number_of_nan_iterations nan_iterations",
    "mfu": "mfu",
    "tflops": "tflops tflops_per_gpu model_tflops_per_gpu throughput_per_gpu_tflop_s_gpu throughput_tflops",
    "params_norm": "params_norm param_norm",
}

_SCALED = {
    "step_time_ms": ("step_time_seconds", 1e-3),
    "time_per_iteration_ms": ("step_time_seconds", 1e-3),
    "elapsed_time_per_iteration_ms": ("step_time_seconds", 1e-3),
    "iteration_time_ms": ("step_time_seconds", 1e-3),
    "iter_time_ms": ("step_time_seconds", 1e-3),
    "step_duration_ms": ("step_time_seconds", 1e-3),
    "batch_time_ms": ("step_time_seconds", 1e-3),
    "data_time_ms": ("data_wait_seconds", 1e-3),
    "data_wait_ms": ("data_wait_seconds", 1e-3),
    "compute_time_ms": ("compute_seconds", 1e-3),
    "gpu_mem": ("gpu_memory_used_bytes", 2.0**20),  # MiB, as nvidia-smi prints it
    "memory_allocated_gb": ("gpu_memory_used_bytes", 2.0**30),
    "gpu_util": ("gpu_utilization_ratio", 1e-2),
    "mfu_percent": ("mfu", 1e-2),
    "mfu_pct": ("mfu", 1e-2),
}
_UNITS = {"mfu(%)": ("mfu", 1e-2)}

_METRICS = {alias: (metric, 1.0) for metric, aliases in _ALIASES.items() for alias in aliases.split()} | _SCALED
_ROLE_OF = {name: (role, place) for role, names in _ROLE_NAMES.items() for place, name in enumerate(names.split())}
_PREFIXES = ("train_", "training_", "trainer_", "metrics_", "perf_", "optim_", "megatron_training_")
_NOT_A_WORD = re.compile(r"[^0-9a-z_]+")

ABSENT = frozenset({"", "na", "n/a", "null", "none", "-", "<na>", "nat", "undefined"})
"""Cells that say "not logged"."""
_NON_FINITE = {
    "1.#qnan": "nan", "-1.#ind": "nan", "nan(ind)": "nan", "-nan(ind)": "nan", "1.#inf": "inf", "-1.#inf": "-inf", "+nan": "nan", "-nan": "nan",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """What a column means: a role, or a metric with the factor that brings it to the metric's unit."""

    role: str
    """One of `ROLES`, or ""."""
    metric: str
    scale: float = 1.0
    is_known: bool = True
    """False for a column Holter has no word for; it is kept under its own name, and text in it is no error."""
    order: int = 0
    """Smaller is preferred where two columns claim one role."""


def snake(name: str) -> str:
    """`Train/Grad-Norm ` -> `train_grad_norm`."""
    return _NOT_A_WORD.sub("_", name.strip().lower()).rstrip("_") or "unnamed"


def target(name: str, mapped: Mapping[str, str]) -> Target:
    """The meaning of a column; what `--map` says goes first."""
    said = mapped.get(name)
    if said is not None:
        return Target(said, "", order=-1) if said in ROLES else Target("", said, order=-1)
    if name.strip().lower() in _UNITS:
        return Target("", *_UNITS[name.strip().lower()])
    plain = snake(name)
    if plain in _ROLE_OF:
        role, order = _ROLE_OF[plain]
        return Target(role, plain, order=order)
    for prefix in ("", *_PREFIXES):
        if plain.startswith(prefix) and plain[len(prefix) :] in _METRICS:
            return Target("", *_METRICS[plain[len(prefix) :]])
    return Target("", plain, is_known=False)


def number(cell: object) -> float | None:
    """The number that a cell says, None where it says "not logged"; raises ValueError where it says neither."""
    if isinstance(cell, str):
        try:
            return float(cell)
        except ValueError:
            word = cell.strip().lower()
            if word in ABSENT:
                return None
            if word in _NON_FINITE:
                return float(_NON_FINITE[word])
            return float(word.replace(",", "")) if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", word) else float(cell)
    if cell is None or isinstance(cell, bool):
        return None if cell is None else float(cell)
    if isinstance(cell, (int, float)):
        return float(cell)
    raise ValueError(f"{type(cell).__name__} is no number")
