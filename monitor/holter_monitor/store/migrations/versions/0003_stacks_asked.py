"""Requests for the stacks of a run's ranks"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("runs", sa.Column("stacks_asked", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "stacks_asked")
