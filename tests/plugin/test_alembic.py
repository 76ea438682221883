"""Migrations of alembic as the schema of all tests, by one option."""

from __future__ import annotations

import subprocess
import sys

import pytest

FIRST = """
    import os
    import sqlalchemy as sa
    from alembic import op

    revision, down_revision = "first", None

    def upgrade():
        op.create_table("item", sa.Column("id", sa.Integer, primary_key=True))
        op.execute("INSERT INTO item VALUES (1)")
"""
MODELS = """
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "item"
        id: Mapped[int] = mapped_column(primary_key=True)
"""


@pytest.fixture
def shop(project):
    command = [sys.executable, "-P", "-m", "alembic", "init", "-t", "async", "migrations"]
    subprocess.run(command, cwd=project.pytester.path, check=True, capture_output=True, timeout=60)
    project.file("migrations/versions/first.py", FIRST)
    project.file("models.py", MODELS)
    return project


def test_both_kinds_of_isolation_have_its_tables_and_nothing_stays_in_the_process(shop):
    shop.ini(asyncio_mode="auto", tdd_schema_alembic="alembic.ini", pythonpath=".")
    shop.run(
        """
        import logging
        import sys
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext
        from sqlalchemy import select
        from models import Base, Item

        LOGGER = logging.getLogger("somebody.else")

        def test_models_and_migrations_agree(tdd_engine):
            assert not LOGGER.disabled
            with tdd_engine.connect() as connection:
                assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []

        async def test_rolled_back(tdd_async_session):
            assert (await tdd_async_session.scalars(select(Item.id))).all() == [1]

        async def test_commits(tdd_database):
            async with tdd_database.connect() as connection:
                assert await connection.fetchval("SELECT version_num FROM alembic_version") == "first"

        def test_nothing_is_left():
            assert not [name for name in sys.modules if name in ("env", "env_py", "first_py")]
        """,
        "-s",
        limit_s=90,
    ).assert_outcomes(passed=4).assert_says("schema migrations of alembic.ini, heads; made in")


def test_a_variable_of_the_project_has_the_url(shop):
    env = shop.pytester.path / "migrations" / "env.py"
    env.write_text(
        env.read_text().replace(
            "config = context.config\n",
            "import os\nconfig = context.config\n"
            "config.set_main_option('sqlalchemy.url', os.environ['SHOP_URL'])\n",
        )
    )
    shop.ini(asyncio_mode="auto", tdd_database_env="SHOP_URL")
    shop.env.setenv("DATAFLOW_TDD_SCHEMA_ALEMBIC", "alembic.ini")
    shop.run(
        """
        def test_it(tdd_psycopg):
            assert tdd_psycopg.connection.execute("SELECT id FROM item").fetchall() == [(1,)]
        """,
        limit_s=90,
    ).assert_outcomes(passed=1)


def test_a_migration_that_fails_is_told_once_without_a_traceback(shop):
    shop.file("migrations/versions/first.py", FIRST + '        op.execute("SELECT nothing")\n')
    outcome = shop.run("def test_it(tdd_psycopg): pass", "--tdd-schema-alembic=alembic.ini", limit_s=90)
    outcome.assert_outcomes(errors=1).assert_says(
        'SchemaFailed: the schema could not be built: revision first: column "nothing" does not exist',
        "at migrations/versions/first.py:11, in upgrade",
        "statement: SELECT nothing",
    ).assert_silent_about("Traceback")


def test_without_alembic_it_is_told_how_to_get_it(project):
    project.conftest("import sys; sys.modules['alembic'] = None")
    project.file("alembic.ini", "[alembic]\nscript_location = here\n")
    project.run("def test_it(tdd_psycopg): pass", "--tdd-schema-alembic=alembic.ini").assert_outcomes(
        errors=1
    ).assert_says("MissingLibrary: alembic cannot be imported", 'pip install "dataflow-tdd[alembic]"')
