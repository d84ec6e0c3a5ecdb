"""Step summaries in blocks; on SQLite the summaries' key is their table"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "step_rollups",
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("metric", sa.String(length=200), nullable=False),
        sa.Column("attempt", sa.String(length=200), nullable=False),
        sa.Column("width", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("sum_mean", sa.Double(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("min", sa.Double(), nullable=True),
        sa.Column("max", sa.Double(), nullable=True),
        sa.Column("non_finite", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.Double(), nullable=False),
        sa.Column("maxima", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_step_rollups_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "metric", "attempt", "width", "block", name=op.f("pk_step_rollups")),
        sqlite_with_rowid=False,
    )
    _copy_summaries(sqlite_with_rowid=False)


def downgrade() -> None:
    _copy_summaries(sqlite_with_rowid=True)
    op.drop_table("step_rollups")


def _copy_summaries(*, sqlite_with_rowid: bool) -> None:
    """SQLite cannot change how a table is kept: it is copied."""
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("step_summaries", recreate="always", table_kwargs={"sqlite_with_rowid": sqlite_with_rowid}):
            pass
