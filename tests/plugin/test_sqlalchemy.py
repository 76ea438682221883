"""SQLAlchemy's engines and sessions on a test's connections, and SQLModel's by the same way."""

from __future__ import annotations

import pytest

MODELS = """
    from sqlalchemy import JSON, create_engine
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase):
        pass

    class Word(Base):
        __tablename__ = "word"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str] = mapped_column(unique=True)
        about: Mapped[dict | None] = mapped_column(JSON)

    def create(connection):
        from psycopg import Connection
        engine = create_engine("postgresql+psycopg://", creator=lambda: connection)
        with engine.begin() as made:
            Base.metadata.create_all(made)
"""
CONFTEST = """
    import pytest
    from models import create
    from dataflow.testing.tdd_support import PythonFunction

    @pytest.fixture(scope="session")
    def tdd_schema():
        return PythonFunction(create)
"""


@pytest.fixture
def shop(project):
    """A project with a model, whose tests have its table."""
    project.file("models.py", MODELS)
    project.conftest(CONFTEST)
    project.ini(asyncio_mode="auto", pythonpath=".")
    return project


@pytest.mark.parametrize("turns", [1, 3])
def test_an_application_in_plain_tests(shop, turns):
    shop.run(
        f"""
        import pytest
        from sqlalchemy import insert, inspect, select
        from sqlalchemy.exc import IntegrityError
        from sqlalchemy.orm import Session
        from models import Word

        @pytest.mark.parametrize("turn", range({turns}))
        def test_it(turn, tdd_engine, tdd_session):
            tdd_session.add(Word(text="kept", about={{"a": 1}}))
            tdd_session.commit()
            tdd_session.add(Word(text="gone"))
            tdd_session.rollback()
            with pytest.raises(IntegrityError), tdd_session.begin_nested():
                tdd_session.add(Word(text="kept"))
                tdd_session.flush()
            tdd_session.add(Word(text="also kept"))
            assert tdd_session.connection().in_transaction()
            tdd_session.commit()
            with Session(tdd_engine) as other:
                assert sorted(other.scalars(select(Word.text))) == ["also kept", "kept"]
            with pytest.raises(IntegrityError), tdd_engine.begin() as connection:
                connection.execute(insert(Word).values(text="undone"))
                connection.execute(insert(Word).values(text="kept"))
            with tdd_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(insert(Word).values(text="at once"))
                with pytest.raises(IntegrityError):
                    connection.execute(insert(Word).values(text="kept"))
            assert inspect(tdd_engine).get_table_names() == ["word"]
            assert len(tdd_session.scalars(select(Word)).all()) == 3
        """
    ).assert_outcomes(passed=turns)


@pytest.mark.parametrize("loops", ["function", "session"])
def test_an_application_in_asynchronous_tests(shop, loops):
    shop.ini(asyncio_mode="auto", pythonpath=".", asyncio_default_test_loop_scope=loops)
    shop.run(
        """
        import pytest
        from sqlalchemy import insert, inspect, select
        from sqlalchemy.exc import IntegrityError
        from sqlalchemy.ext.asyncio import AsyncSession
        from models import Base, Word

        @pytest.mark.parametrize("turn", range(3))
        async def test_it(turn, tdd_async_engine, tdd_async_session, tdd_test_context):
            session = tdd_async_session
            session.add(Word(text="kept", about={"a": 1}))
            await session.commit()
            session.add(Word(text="gone"))
            await session.rollback()
            with pytest.raises(IntegrityError):
                async with session.begin_nested():
                    session.add(Word(text="kept"))
                    await session.flush()
            session.add(Word(text="also kept"))
            await session.commit()
            async with AsyncSession(tdd_async_engine) as other:
                assert sorted(await other.scalars(select(Word.text))) == ["also kept", "kept"]
            with pytest.raises(IntegrityError):
                async with tdd_async_engine.begin() as connection:
                    await connection.execute(insert(Word).values(text="undone"))
                    await connection.execute(insert(Word).values(text="kept"))
            async with tdd_async_engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(insert(Word).values(text="at once"))
            async with tdd_async_engine.begin() as connection:
                assert await connection.run_sync(lambda c: inspect(c).get_table_names()) == ["word"]
                await connection.run_sync(Base.metadata.drop_all)
                await connection.run_sync(Base.metadata.create_all)
            assert await tdd_test_context.connection.fetchval("SELECT count(*) FROM word") == 0
        """
    ).assert_outcomes(passed=3)


def test_each_decision_can_be_overridden_by_itself(shop):
    shop.conftest(
        CONFTEST
        + """
    import json
    from sqlalchemy import pool
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    def bracketed(value):
        return json.dumps([value])

    @pytest.fixture(scope="session", params=[pool.NullPool, pool.StaticPool, None])
    def tdd_engine_options(request):
        arguments = {"prepare_threshold": None} if "sync" in request.node.nodeid else {}
        given = {"json_serializer": bracketed, "pool_pre_ping": True, "execution_options": {"mine": 1}}
        return given if request.param is None else given | {"poolclass": request.param}

    @pytest.fixture
    def tdd_session_options():
        return {"expire_on_commit": False, "info": {"mine": 2}}

    class MySession(Session):
        pass

    class MyAsyncSession(AsyncSession):
        pass

    @pytest.fixture
    def tdd_session_class():
        return MySession

    @pytest.fixture
    def tdd_async_session_class():
        return MyAsyncSession
    """
    )
    shop.run(
        """
        from sqlalchemy import inspect, text
        from models import Word

        def test_plain(tdd_engine, tdd_session):
            assert type(tdd_session).__name__ == "MySession"
            assert tdd_session.info == {"mine": 2}
            assert tdd_engine.get_execution_options()["mine"] == 1
            word = Word(text="one", about=1)
            tdd_session.add(word)
            tdd_session.commit()
            assert not inspect(word).expired
            assert tdd_session.execute(text("SELECT about::text FROM word")).scalar() == "[1]"

        async def test_asynchronous(tdd_async_engine, tdd_async_session):
            assert type(tdd_async_session).__name__ == "MyAsyncSession"
            assert tdd_async_engine.sync_engine.get_execution_options()["mine"] == 1
            word = Word(text="one", about=1)
            tdd_async_session.add(word)
            await tdd_async_session.commit()
            assert word.text == "one"
            assert (await tdd_async_session.execute(text("SELECT about::text FROM word"))).scalar() == "[1]"
        """
    ).assert_outcomes(passed=6)


def test_what_a_dialect_asks_the_server_it_asks_once_and_no_listener_stays(shop):
    """As listeners of the engine, of its pool and of its dialect; SQLAlchemy itself decides what is which."""
    shop.conftest(
        CONFTEST
        + """
    @pytest.fixture(scope="session")
    def heard():
        return []

    @pytest.fixture(scope="session")
    def dialects():
        return []
    """
    )
    shop.run(
        """
        import pytest
        from sqlalchemy import Engine, event, text
        from sqlalchemy.exc import ProgrammingError

        def listen(engine, turn, heard):
            for name in ("before_cursor_execute", "connect", "checkout", "handle_error"):
                event.listen(engine, name, lambda *given, name=name: heard.append((turn, name)))

        def test_listeners_of_all_engines_stay(tdd_engine, heard):
            for name in ("before_cursor_execute", "connect", "handle_error"):
                event.listen(Engine, name, lambda *given, name=name: everywhere.append(name))
            with pytest.raises(ProgrammingError), tdd_engine.connect() as connection:
                connection.execute(text("SELECT nothing"))
            assert everywhere == ["connect", "before_cursor_execute", "handle_error"]

        everywhere = []

        @pytest.mark.parametrize("turn", range(3))
        def test_plain(turn, tdd_engine, heard, dialects):
            everywhere.clear()
            heard.clear()
            listen(tdd_engine, turn, heard)
            with pytest.raises(ProgrammingError), tdd_engine.connect() as connection:
                connection.execute(text("SELECT nothing"))
            names = ["connect", "checkout", "before_cursor_execute", "handle_error"]
            assert heard == [(turn, name) for name in names]
            dialects.append(tdd_engine.dialect)
            assert all(each is dialects[0] for each in dialects)
            assert tdd_engine.dialect.default_schema_name == "public"
            assert everywhere == ["connect", "before_cursor_execute", "handle_error"]

        @pytest.mark.parametrize("turn", range(3))
        async def test_asynchronous(turn, tdd_async_engine, heard, dialects):
            heard.clear()
            listen(tdd_async_engine.sync_engine, turn, heard)
            with pytest.raises(ProgrammingError):
                async with tdd_async_engine.connect() as connection:
                    await connection.execute(text("SELECT nothing"))
            names = ["connect", "checkout", "before_cursor_execute", "handle_error"]
            assert heard == [(turn, name) for name in names]
            dialects.append(tdd_async_engine.dialect)
            assert all(each is dialects[-1] for each in dialects[3:])
        """
    ).assert_outcomes(passed=7)


def test_marked_for_a_database_the_engine_commits_and_leaves_nothing_open(shop):
    shop.run(
        """
        import asyncpg
        import psycopg
        import pytest
        from sqlalchemy import text
        from models import Word

        pytestmark = pytest.mark.tdd(isolation="database")
        COUNT = "SELECT count(*) FROM word"

        @pytest.mark.parametrize("turn", range(2))
        def test_plain(turn, tdd_engine, tdd_session, tdd_database):
            tdd_session.add(Word(text="one"))
            tdd_session.commit()
            with psycopg.connect(tdd_database.url) as connection:
                assert connection.execute(COUNT).fetchone() == (1,)
            assert tdd_engine.url.database == tdd_database.name
            with tdd_engine.connect() as first, tdd_engine.connect() as second:
                pids = {each.execute(text("SELECT pg_backend_pid()")).scalar() for each in (first, second)}
            assert len(pids) == 2

        @pytest.mark.parametrize("turn", range(2))
        async def test_asynchronous(turn, tdd_async_engine, tdd_async_session, tdd_database):
            tdd_async_session.add(Word(text="one"))
            await tdd_async_session.commit()
            connection = await asyncpg.connect(tdd_database.url)
            assert await connection.fetchval(COUNT) == 1
            await connection.close()
            assert tdd_async_engine.url.database == tdd_database.name
        """,
        "--tdd-leaks=error",
    ).assert_outcomes(passed=4)


def test_a_session_that_waits_for_another_one_is_told_why(shop):
    shop.run(
        """
        import pytest
        from sqlalchemy.exc import DBAPIError
        from models import Word

        def test_plain(tdd_session, tdd_sessionmaker):
            tdd_session.add(Word(text="one"))
            tdd_session.flush()
            with tdd_sessionmaker() as other, pytest.raises(DBAPIError, match="another connection of th"):
                other.add(Word(text="two"))
                other.flush()
            tdd_session.commit()
        """
    ).assert_outcomes(passed=1)


def test_an_engine_of_an_earlier_test_refuses(shop):
    """It would connect to the test that runs now."""
    shop.ini(asyncio_mode="auto", pythonpath=".", asyncio_default_test_loop_scope="session")
    shop.run(
        """
        import pytest
        from sqlalchemy import text
        from dataflow.testing.errors import StaleContext

        kept = []

        @pytest.mark.parametrize("turn", range(2))
        def test_plain(turn, tdd_engine):
            for engine in kept:
                with pytest.raises(StaleContext, match="an engine was used whose test is over"):
                    engine.connect()
            kept[:] = [tdd_engine, tdd_engine.execution_options(mine=1)]
            with tdd_engine.connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1

        @pytest.mark.parametrize("turn", range(2))
        async def test_asynchronous(turn, tdd_async_engine):
            for engine in kept:
                with pytest.raises(StaleContext, match="an engine was used whose test is over"):
                    await engine.connect() if turn else engine.connect()
            kept[:] = [tdd_async_engine]
            async with tdd_async_engine.connect() as connection:
                assert await connection.scalar(text("SELECT 1")) == 1
        """
    ).assert_outcomes(passed=4)


def test_an_application_in_a_loop_of_its_own_is_told_so(shop):
    """The first connection would be opened there; of a second use asyncpg would say something else."""
    shop.conftest(
        CONFTEST
        + """
    from fastapi import FastAPI
    from sqlalchemy import text

    @pytest.fixture
    def app(tdd_async_sessionmaker):
        app = FastAPI()

        @app.get("/")
        async def route():
            async with tdd_async_sessionmaker() as session:
                return await session.scalar(text("SELECT 1"))

        return app
    """
    )
    shop.run(
        """
        import httpx2
        import pytest
        from fastapi.testclient import TestClient
        from sqlalchemy import text
        from dataflow.testing.errors import WrongEventLoop

        @pytest.mark.parametrize("used", [False, True])
        async def test_it(used, app, tdd_async_engine):
            if used:
                async with tdd_async_engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
            with TestClient(app) as client, pytest.raises(WrongEventLoop, match="by AsyncClient with an"):
                client.get("/")
            here = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=here, base_url="http://test") as client:
                assert (await client.get("/")).json() == 1
        """
    ).assert_outcomes(passed=2)


def test_without_sqlalchemy_it_is_told_how_to_get_it(project):
    project.conftest("import sys; sys.modules['sqlalchemy'] = None")
    outcome = project.run(
        """
        def test_plain(tdd_engine): pass
        async def test_asynchronous(tdd_async_session): pass
        def test_other(tdd_psycopg):
            assert tdd_psycopg.connection.execute("SELECT 1").fetchone() == (1,)
        """
    ).assert_outcomes(passed=1, errors=2)
    assert outcome.text.count("MissingLibrary: sqlalchemy cannot be imported") >= 2
    outcome.assert_says('pip install "dataflow-tdd[sqlalchemy]"').assert_silent_about("Traceback")


def test_sqlmodel_by_the_same_way(project):
    project.conftest(
        """
        import pytest
        import sqlmodel
        from sqlmodel.ext.asyncio.session import AsyncSession

        @pytest.fixture(scope="session")
        def tdd_session_class():
            return sqlmodel.Session

        @pytest.fixture(scope="session")
        def tdd_async_session_class():
            return AsyncSession
        """
    )
    project.run(
        """
        import pytest
        from sqlmodel import Field, SQLModel, select

        class Word(SQLModel, table=True):
            id: int | None = Field(default=None, primary_key=True)
            text: str

        @pytest.mark.parametrize("turn", range(2))
        def test_plain(turn, tdd_engine, tdd_session):
            SQLModel.metadata.create_all(tdd_engine)
            tdd_session.add(Word(text="kept"))
            tdd_session.commit()
            tdd_session.add(Word(text="gone"))
            tdd_session.rollback()
            assert [word.text for word in tdd_session.exec(select(Word))] == ["kept"]

        @pytest.mark.parametrize("turn", range(2))
        async def test_asynchronous(turn, tdd_async_engine, tdd_async_session):
            async with tdd_async_engine.begin() as connection:
                await connection.run_sync(SQLModel.metadata.create_all)
            tdd_async_session.add(Word(text="kept"))
            await tdd_async_session.commit()
            tdd_async_session.add(Word(text="gone"))
            await tdd_async_session.rollback()
            assert [word.text for word in await tdd_async_session.exec(select(Word))] == ["kept"]
        """
    ).assert_outcomes(passed=4)
