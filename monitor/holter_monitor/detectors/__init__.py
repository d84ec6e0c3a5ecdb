"""Every detector that runs on every run: a class a file, a line here. How to add one: docs/adding-a-detector.md."""

from holter_monitor.detector import DetectorMaker
from holter_monitor.detectors.agent_silent import AgentSilent
from holter_monitor.detectors.checkpoint_age import CheckpointAge
from holter_monitor.detectors.checkpoint_copies import CheckpointCopies
from holter_monitor.detectors.checkpoint_files import CheckpointFiles
from holter_monitor.detectors.checkpoint_room import CheckpointRoom
from holter_monitor.detectors.checkpoint_sight import CheckpointSight
from holter_monitor.detectors.data_position import DataPosition
from holter_monitor.detectors.data_stall import DataStall
from holter_monitor.detectors.disk_pressure import DiskPressure
from holter_monitor.detectors.fingerprints import Fingerprints
from holter_monitor.detectors.fresh_node import FreshNode
from holter_monitor.detectors.gpu_error import GpuError
from holter_monitor.detectors.gpu_throttle import GpuThrottle
from holter_monitor.detectors.grad_explosion import GradExplosion
from holter_monitor.detectors.grad_vanishing import GradVanishing
from holter_monitor.detectors.hang import Hang
from holter_monitor.detectors.loss_divergence import LossDivergence
from holter_monitor.detectors.loss_noise import LossNoise
from holter_monitor.detectors.loss_plateau import LossPlateau
from holter_monitor.detectors.loss_shift import LossShift
from holter_monitor.detectors.loss_spike import LossSpike
from holter_monitor.detectors.memory_growth import MemoryGrowth
from holter_monitor.detectors.non_finite import NonFinite
from holter_monitor.detectors.overdue import Overdue
from holter_monitor.detectors.precision import Precision
from holter_monitor.detectors.rank_data_wait import RankDataWait
from holter_monitor.detectors.rank_disagreement import RankDisagreement
from holter_monitor.detectors.rank_lost import RankLost
from holter_monitor.detectors.reference_evaluations import ReferenceEvaluations
from holter_monitor.detectors.reference_gap import ReferenceGap
from holter_monitor.detectors.reference_pace import ReferencePace
from holter_monitor.detectors.restart_storm import RestartStorm
from holter_monitor.detectors.step_locked_stalls import StepLockedStalls
from holter_monitor.detectors.straggler import Straggler
from holter_monitor.detectors.throughput_decline import ThroughputDecline
from holter_monitor.detectors.throughput_drop import ThroughputDrop
from holter_monitor.detectors.throughput_stalls import ThroughputStalls
from holter_monitor.detectors.update_norm import UpdateNorm

DETECTORS: tuple[DetectorMaker, ...] = (
    LossSpike,
    LossDivergence,
    LossShift,
    LossNoise,
    LossPlateau,
    NonFinite,
    GradExplosion,
    GradVanishing,
    UpdateNorm,
    ThroughputDrop,
    ThroughputDecline,
    ThroughputStalls,
    StepLockedStalls,
    DataStall,
    DataPosition,
    RankDataWait,
    FreshNode,
    Straggler,
    MemoryGrowth,
    GpuThrottle,
    GpuError,
    DiskPressure,
    RankDisagreement,
    Hang,
    RankLost,
    AgentSilent,
    RestartStorm,
    Overdue,
    CheckpointFiles,
    CheckpointAge,
    CheckpointCopies,
    CheckpointSight,
    CheckpointRoom,
    Fingerprints,
    ReferenceGap,
    ReferenceEvaluations,
    ReferencePace,
    Precision,
)
