"""Where the wall time of each run went, by hour and cause; what each broken attempt cost"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("runs", sa.Column("tallied_at", sa.Double(), nullable=True))
    op.create_table(
        "goodput_hours",
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("hour_at", sa.Double(), nullable=False),
        sa.Column("cause", sa.String(length=32), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("rank_seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_goodput_hours_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "hour_at", "cause", name=op.f("pk_goodput_hours")),
    )
    op.create_index(op.f("ix_goodput_hours_hour_at"), "goodput_hours", ["hour_at"])
    op.create_table(
        "breaks",
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("ranks", sa.Integer(), nullable=False),
        sa.Column("down_seconds", sa.Double(), nullable=True),
        sa.Column("startup_seconds", sa.Double(), nullable=False),
        sa.Column("recomputed_seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_breaks_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "attempt", name=op.f("pk_breaks")),
    )
    op.create_index(op.f("ix_breaks_at"), "breaks", ["at"])


def downgrade() -> None:
    op.drop_table("breaks")
    op.drop_table("goodput_hours")
    op.drop_column("runs", "tallied_at")
