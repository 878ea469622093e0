"""The environment of every history, the core's and each plugin's: `scrm.migrate` says whose it is and gives the connection."""

from __future__ import annotations

from alembic import context

from scrm.migrate import Owner

owner: Owner = context.config.attributes["owner"]
connection = context.config.attributes["connection"]

context.configure(
    connection=connection,
    target_metadata=owner.metadata,
    version_table=owner.version_table,
    version_table_schema=context.config.attributes.get("schema"),
    include_name=owner.include_name,
    include_object=owner.include_object,
    render_item=owner.render_item,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
