"""Alembic's environment: runs the migrations on the connection that `persistence.postgres.migrate` hands over. Without
one (`alembic --sql`) it prints the SQL.
"""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(
        url=context.config.get_main_option("sqlalchemy.url"), literal_binds=True, version_table="schema_version"
    )
else:
    context.configure(connection=connection, version_table="schema_version")
with context.begin_transaction():
    context.run_migrations()
