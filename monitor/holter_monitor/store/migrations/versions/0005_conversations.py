"""An incident may be told in the conversation of one that was told before it"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
INDEX = "ix_outbox_conversation_receiver_status"


def upgrade() -> None:
    with op.batch_alter_table("incidents") as batch_op:
        batch_op.add_column(sa.Column("conversation", sa.String(length=64), nullable=True))
    with op.batch_alter_table("outbox") as batch_op:
        batch_op.add_column(sa.Column("conversation", sa.String(length=64), nullable=True))
    op.execute("UPDATE outbox SET conversation = incident")
    with op.batch_alter_table("outbox") as batch_op:
        batch_op.alter_column("conversation", existing_type=sa.String(length=64), nullable=False)
        batch_op.create_index(INDEX, ["conversation", "receiver", "status"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("outbox") as batch_op:
        batch_op.drop_index(INDEX)
        batch_op.drop_column("conversation")
    with op.batch_alter_table("incidents") as batch_op:
        batch_op.drop_column("conversation")
