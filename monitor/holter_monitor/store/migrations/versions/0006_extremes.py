"""Blocks of steps know the lowest and the highest point of each aggregate"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    with op.batch_alter_table("step_rollups") as batch_op:
        batch_op.add_column(sa.Column("extremes", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("step_rollups") as batch_op:
        batch_op.drop_column("extremes")
