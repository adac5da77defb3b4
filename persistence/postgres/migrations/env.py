"""Alembic's environment: runs the migrations on the connection that `persistence.postgres.migrate` hands over. Without
one (`alembic --sql`) it prints the SQL. Each revision is a transaction of its own.
"""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(
        url=context.config.get_main_option("sqlalchemy.url"),
        literal_binds=True,
        version_table="schema_version",
        transaction_per_migration=True,
    )
else:
    context.configure(connection=connection, version_table="schema_version", transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
