"""The tables of the control store: runs, attempts, step summaries, incidents, outbox, silences, tokens, detector snapshots.

Times are unix seconds (float, UTC) in columns that end in `_at`; PostgreSQL and Grafana read them with `to_timestamp()`. Per-rank
points are not here: they live in the sample store.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Id = sa.String(64)
Name = sa.String(200)
Float: sa.Double[float] = sa.Double()

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("project", Name, nullable=False),
    sa.Column("name", Name, nullable=False),
    sa.Column("world_size", sa.Integer, nullable=False, default=1),
    sa.Column("state", sa.String(16), nullable=False, default="waiting"),  # waiting, running, finished, failed, silent
    sa.Column("created_at", Float, nullable=False),
    sa.Column("updated_at", Float, nullable=False),
    sa.Column("last_step", sa.BigInteger),
    sa.Column("reference", Name),  # the run that this one is measured against
    sa.Column("config", sa.JSON, nullable=False, default=dict),  # whatever holter.init(config=…) said
    sa.Column("advice", sa.JSON, nullable=False, default=dict),  # what an operator asks of it; rides in the acks to its agents
    sa.Column("stacks_asked", sa.JSON),  # the newest request for stacks (holter_monitor.store.stack_requests); rides there too
    sa.Column("tallied_at", Float),  # when the hours of its goodput were written last
    sa.UniqueConstraint("project", "name"),
)
attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("run", Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt", Name, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),  # 1, 2, … in order of appearance
    sa.Column("started_at", Float, nullable=False),
    sa.Column("ended_at", Float),
    sa.Column("state", sa.String(16), nullable=False, default="running"),  # running, finished, failed, lost, preempted
    sa.Column("world_size", sa.Integer, nullable=False, default=1),
    sa.Column("first_step", sa.BigInteger),
    sa.Column("last_step", sa.BigInteger),
    sa.Column("mesh", sa.JSON, nullable=False, default=dict),  # {"17": {"node": …, "gpu": …, "dp": 1, "tp": 0}}
)
agents = sa.Table(  # one row per life of a node agent
    "agents",
    metadata,
    sa.Column("run", Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("node", Name, primary_key=True),
    sa.Column("boot", Id, primary_key=True),
    sa.Column("attempt", Name, nullable=False),
    sa.Column("first_seen_at", Float, nullable=False),
    sa.Column("last_seen_at", Float, nullable=False),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("skew_seconds", Float),
    sa.Column("dropped", sa.JSON, nullable=False, default=dict),
)
run_events = sa.Table(  # declared and lifecycle events (docs/architecture.md lists the words)
    "run_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("run", Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("attempt", Name, nullable=False),
    sa.Column("node", Name, nullable=False),
    sa.Column("rank", sa.Integer),
    sa.Column("step", sa.BigInteger),
    sa.Column("at", Float, nullable=False),
    sa.Column("event", Name, nullable=False),
    sa.Column("attrs", sa.JSON, nullable=False, default=dict),
    sa.Column("offset", sa.BigInteger, nullable=False),  # in the frame log; with `number` the key that makes replays harmless
    sa.Column("number", sa.Integer, nullable=False),  # position within its frame
    sa.UniqueConstraint("offset", "number"),
    sa.Index(None, "run", "step"),
)
step_summaries = sa.Table(  # outlives the per-rank points; Grafana reads it with plain SQL
    "step_summaries",
    metadata,
    sa.Column("run", Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("metric", Name, primary_key=True),
    sa.Column("attempt", Name, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("at", Float, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),  # ranks that logged it
    sa.Column("mean", Float),
    sa.Column("min", Float),
    sa.Column("max", Float),
    sa.Column("median", Float),
    sa.Column("min_rank", sa.Integer),
    sa.Column("max_rank", sa.Integer),
    sa.Column(
        "non_finite", sa.Integer, nullable=False, default=0
    ),  # ranks whose value was NaN or infinite; the numbers above leave them out
    sqlite_with_rowid=False,  # the key is the table: a third less to write and to read
)
step_rollups = (
    sa.Table(  # step summaries in blocks of `width` steps (holter_monitor.store.rolling): what a long run's curves are drawn from
        "step_rollups",
        metadata,
        sa.Column("run", Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("metric", Name, primary_key=True),
        sa.Column("attempt", Name, primary_key=True),
        sa.Column("width", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("block", sa.BigInteger, primary_key=True, autoincrement=False),  # step // width
        sa.Column("step", sa.BigInteger, nullable=False),  # the first one that is in
        sa.Column("at", Float, nullable=False),
        sa.Column("sum_mean", Float, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),  # steps with a mean
        sa.Column("min", Float),
        sa.Column("max", Float),
        sa.Column("non_finite", sa.BigInteger, nullable=False),
        sa.Column("amount", Float, nullable=False),  # the sum over steps and ranks
        sa.Column("maxima", sa.LargeBinary),  # of the step time, in the narrowest blocks: float64 a step, its slowest rank; NaN for none
        sa.Column("extremes", sa.LargeBinary),  # (holter_monitor.store.extremes); None in blocks from before there were any
        sqlite_with_rowid=False,
    )
)
goodput_hours = sa.Table(  # where wall time went (holter_monitor.goodput); written anew while the run goes on
    "goodput_hours",
    metadata,
    sa.Column("run", Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("hour_at", Float, primary_key=True, index=True),  # its begin
    sa.Column("cause", sa.String(32), primary_key=True),
    sa.Column("seconds", Float, nullable=False),
    sa.Column("rank_seconds", Float, nullable=False),  # times the ranks that it held
)
breaks = sa.Table(  # attempts that did not end by themselves, and what each cost
    "breaks",
    metadata,
    sa.Column("run", Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt", Name, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),  # failed, lost, preempted
    sa.Column("at", Float, nullable=False, index=True),
    sa.Column("ranks", sa.Integer, nullable=False),
    sa.Column("down_seconds", Float),  # until the next attempt began; none while there is none
    sa.Column("startup_seconds", Float, nullable=False),
    sa.Column("recomputed_seconds", Float, nullable=False),
)
incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("run", Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("project", Name, nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("scope", Name, nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("episode", sa.Integer, nullable=False, default=1),
    sa.Column("attempt", Name, nullable=False, default=""),
    sa.Column("onset_step", sa.BigInteger, nullable=False),
    sa.Column("detected_step", sa.BigInteger, nullable=False),
    sa.Column("end_step", sa.BigInteger),
    sa.Column("metric", Name),
    sa.Column("ranks", sa.JSON, nullable=False, default=list),
    sa.Column("nodes", sa.JSON, nullable=False, default=list),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("cost_seconds", Float),
    sa.Column("causes", sa.JSON, nullable=False, default=list),
    sa.Column("evidence", sa.JSON, nullable=False, default=dict),
    sa.Column("parent", Id),  # the incident that this one is a symptom of
    sa.Column("conversation", Id),  # the incident under whose name receivers know this one; null: its own
    sa.Column("silence", Name),  # the silence or maintenance window that hides it
    sa.Column("over_since_at", Float),  # when its last lasting finding had passed
    sa.Column("comings", sa.JSON, nullable=False, default=list),  # when findings came and went lately; flapping is judged by it
    sa.Column("revision", sa.Integer, nullable=False, default=0),  # grows with every change that somebody is told of
    sa.Column("due_at", Float),  # when time alone will change it: resolve, remind, escalate, end of a silence
    sa.Column("opened_at", Float),  # this episode
    sa.Column("reminded_at", Float),  # when somebody was last told that it still lasts
    sa.Column("escalations", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", Float, nullable=False),
    sa.Column("updated_at", Float, nullable=False),
    sa.Column("acknowledged_by", Name),
    sa.Column("acknowledged_at", Float),
    sa.Column("resolved_at", Float),
    sa.Column("resolved_by", Name),
    sa.Index(None, "run", "state"),
    sa.Index(None, "updated_at"),
    sa.Index(None, "due_at"),
)
incident_findings = sa.Table(  # the newest word of each finding, and which incident it belongs to: what makes a replay harmless
    "incident_findings",
    metadata,
    sa.Column("id", Id, primary_key=True),  # the first 20 hex digits of SHA-256 of run|kind|scope|onset_step
    sa.Column("incident", Id, sa.ForeignKey("incidents.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),  # 1, 2, … within its incident
    sa.Column("is_over", sa.Boolean, nullable=False, default=False),
    sa.Column("finding", sa.JSON, nullable=False),
    sa.Index(None, "incident", "number"),
)
incident_history = sa.Table(
    "incident_history",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("incident", Id, sa.ForeignKey("incidents.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("at", Float, nullable=False),
    sa.Column("change", sa.String(32), nullable=False),  # opened, worsened, updated, acknowledged, noted, resolved, flapping, reopened
    sa.Column("actor", Name),
    sa.Column("note", sa.Text),
    sa.Column("severity", sa.String(16)),
)


def _own_conversation(context: Any) -> str:
    return str(context.get_current_parameters()["incident"])


outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("incident", Id, nullable=False),
    sa.Column("conversation", Id, nullable=False, default=_own_conversation),  # what the receiver knows it by
    sa.Column("receiver", Name, nullable=False),
    sa.Column("transition", sa.String(16), nullable=False),  # trigger, update, remind, acknowledge, resolve, test
    sa.Column("urgency", sa.Integer, nullable=False, default=0),  # 3 = critical; a receiver's due rows go by urgency, then age
    sa.Column("idempotency_key", sa.String(255), nullable=False, unique=True),
    sa.Column("position", sa.BigInteger, nullable=False),  # strict order per (conversation, receiver)
    sa.Column("notice", sa.JSON, nullable=False),
    sa.Column("status", sa.String(16), nullable=False, default="ready"),  # ready, leased, sent, dead, superseded
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", Float, nullable=False),
    sa.Column("lease_owner", Name),
    sa.Column("lease_until", Float),
    sa.Column("last_error", sa.Text),  # secrets already struck out
    sa.Column("created_at", Float, nullable=False),
    sa.Column("sent_at", Float),
    sa.Column("provider_id", Name),  # Slack's ts, PagerDuty's dedup_key: what an update needs
    sa.Index(None, "receiver", "status", "next_at"),
    sa.Index(None, "incident", "receiver", "status"),
    sa.Index(None, "conversation", "receiver", "status"),
)
silences = sa.Table(
    "silences",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("matchers", sa.JSON, nullable=False),  # {"project": "smol", "kind": "loss_*"}; shell patterns, all must match
    sa.Column("author", Name, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("starts_at", Float, nullable=False),
    sa.Column("ends_at", Float, nullable=False),
    sa.Column("created_at", Float, nullable=False),
)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("name", Name, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),  # SHA-256 of the token, hex
    sa.Column("scopes", sa.JSON, nullable=False),  # of write, read, operate
    sa.Column("project", Name, nullable=False, default="*"),
    sa.Column("created_at", Float, nullable=False),
    sa.Column("expires_at", Float),
    sa.Column("revoked_at", Float),
)
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", Float, nullable=False),
    sa.Column("actor", Name, nullable=False),
    sa.Column("action", Name, nullable=False),
    sa.Column("subject", Name, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False, default=dict),
)
consumers = sa.Table(  # how far each consumer of the frame log has come; commits together with what it did
    "consumers",
    metadata,
    sa.Column("name", Name, primary_key=True),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("updated_at", Float, nullable=False),
)
detector_snapshots = sa.Table(
    "detector_snapshots",
    metadata,
    sa.Column("run", Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("taken_at", Float, nullable=False),
)
