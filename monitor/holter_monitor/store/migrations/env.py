"""Alembic's entry: runs the migrations on the connection that `holter_monitor.store.control.upgrade` hands over, in its transaction."""

from alembic import context

from holter_monitor.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
