"""Schemas from alembic's migrations, in projects as `alembic init` makes them."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from tests.integration.template.conftest import Workshop
from tests.integration.template.test_sources import failure
from tests.waiting import LIMIT_S

from dataflow.testing.errors import SchemaFailed
from dataflow.testing.template.alembic import AlembicMigrations

FIRST = """
    op.create_table("item", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("INSERT INTO item VALUES (1), (2)")
"""
COUNT = "SELECT count(*) FROM item"


class Application:
    """A project with migrations, and what it says of itself."""

    def __init__(self, workshop: Workshop, made: Path) -> None:
        self.folder = workshop.folder / workshop.token
        self.folder.mkdir()
        self._made = made

    def init(self, template: str = "generic", folder: str = "migrations") -> None:
        """A copy of what `alembic init` makes, once for each template."""
        made = self._made / f"{template}_{folder}"
        if not made.exists():
            made.mkdir()
            command = [sys.executable, "-P", "-m", "alembic", "init", "-t", template, folder]
            subprocess.run(command, cwd=made, check=True, capture_output=True, timeout=LIMIT_S)
        shutil.copytree(made, self.folder, dirs_exist_ok=True)

    def revision(self, name: str, body: str, after: object = None, folder: str = "migrations/versions") -> Path:
        path = self.folder / folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'"""The {name} one\n\nand more of it."""\nimport sqlalchemy as sa\nfrom alembic import op\n\n'
            f"revision = {name!r}\ndown_revision = {after!r}\nbranch_labels = None\ndepends_on = None\n\n"
            f"def upgrade():\n    pass\n{dedent(body) and _indented(body)}"
        )
        return path

    def replace(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def migrations(self, config: str = "alembic.ini", **arguments: object) -> AlembicMigrations:
        return AlembicMigrations(self.folder / config, **arguments)  # type: ignore[arg-type]


def _indented(body: str) -> str:
    return "".join(f"    {line}\n" for line in dedent(body).strip("\n").splitlines())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alembic")


@pytest.fixture
def app(workshop: Workshop, made: Path) -> Application:
    return Application(workshop, made)


@pytest.mark.parametrize(
    ("template", "config"),
    [
        ("generic", "alembic.ini"),
        ("async", "alembic.ini"),
        ("pyproject", "pyproject.toml"),
        ("pyproject_async", "alembic.ini"),
    ],
)
def test_each_template_of_alembic_as_it_is(
    workshop: Workshop, app: Application, template: str, config: str
) -> None:
    """Its URL is `driver://user:pass@localhost/dbname`; only the folder of the project tells which driver."""
    app.init(template)
    app.revision("first", FIRST)
    app.revision("second", "op.add_column('item', sa.Column('text', sa.Text))", "first")
    before = logging.getLogger("of.the.tests")
    name = workshop.ensure(app.migrations(config))
    assert workshop.rows(name, "SELECT * FROM item") == [(1, None), (2, None)]
    assert workshop.rows(name, "SELECT version_num FROM alembic_version") == [("second",)]
    assert not before.disabled  # which its own logging.config does to all loggers


def test_branches_several_folders_and_names_relative_to_the_file(workshop: Workshop, app: Application) -> None:
    app.init(folder="alembic")
    app.replace("alembic.ini", "# version_locations = ", "version_locations = ")
    ini = (app.folder / "alembic.ini").read_text()
    lines = [line for line in ini.splitlines() if not line.startswith("version_locations")]
    at = lines.index("[alembic]") + 1
    lines.insert(at, "version_locations = %(here)s/one:%(here)s/two:%(here)s/empty")
    (app.folder / "empty").mkdir()
    lines[at + 1 :] = [line for line in lines[at + 1 :] if not line.startswith("path_separator")]
    lines.insert(at, "path_separator = :")
    (app.folder / "alembic.ini").write_text("\n".join(lines))
    app.revision("first", FIRST, folder="one")
    app.revision("left", "op.execute('CREATE TABLE left_one ()')", "first", folder="one")
    app.revision("right", "op.execute('CREATE TABLE right_one ()')", "first", folder="two")
    source = app.migrations()
    name = workshop.ensure(source)
    assert workshop.rows(name, "SELECT version_num FROM alembic_version ORDER BY 1") == [("left",), ("right",)]
    before = source.fingerprint()
    app.revision("right", "op.execute('CREATE TABLE right_two ()')", "first", folder="two")
    assert app.migrations().fingerprint() != before


def test_up_to_a_revision(workshop: Workshop, app: Application) -> None:
    app.init()
    app.revision("first", FIRST)
    app.revision("second", "op.drop_table('item')", "first")
    assert workshop.rows(workshop.ensure(app.migrations(target="first")), COUNT) == [(2,)]


@pytest.mark.parametrize("driver", [None, "asyncpg"])
def test_an_env_py_that_reads_the_environment(workshop: Workshop, app: Application, driver: str | None) -> None:
    """By variables that are the application's own, through one of its modules."""
    app.init("async" if driver else "generic")
    (app.folder / "settings.py").write_text("import os\nURL = os.environ['SHOP_URL']\n")
    app.replace(
        "migrations/env.py",
        "config = context.config\n",
        "import settings\nconfig = context.config\n"
        "config.set_main_option('sqlalchemy.url', settings.URL.replace('%', '%%'))\n",
    )
    app.revision("first", FIRST)
    source = app.migrations(variables=("DATABASE_URL", "SHOP_URL"), driver=driver)
    before = source.fingerprint()
    assert workshop.rows(workshop.ensure(source), COUNT) == [(2,)]
    (app.folder / "settings.py").write_text("import os\n\nURL = os.environ['SHOP_URL']\n")
    assert app.migrations(variables=("DATABASE_URL", "SHOP_URL")).fingerprint() != before


def test_the_driver_is_that_of_the_file(workshop: Workshop, app: Application) -> None:
    app.init()
    app.replace("alembic.ini", "driver://user:pass@", "postgresql+other://user:pass@")
    app.revision("first", FIRST)
    assert "sqlalchemy.dialects:postgresql.other" in str(failure(workshop, app.migrations()))


def test_a_statement_that_fails_is_told_with_its_revision(workshop: Workshop, app: Application) -> None:
    app.init()
    app.revision("first", FIRST)
    script = app.revision("second", "x = 1\nop.execute('INSERT INTO item VALUES (1)')", "first")
    text = str(failure(workshop, app.migrations()))
    assert 'revision second (The second one): duplicate key value violates unique constraint "item_pkey"' in text
    assert f"{script}:15, in upgrade: op.execute('INSERT INTO item VALUES (1)')" in text
    assert "detail: Key (id)=(1) already exists." in text
    assert "statement: INSERT INTO item VALUES (1)" in text
    assert "site-packages" not in text


def test_with_an_asynchronous_driver_it_is_told_as_well(workshop: Workshop, app: Application) -> None:
    app.init("async")
    app.revision("first", FIRST + "    op.execute('SELECT nothing FROM item')")
    text = str(failure(workshop, app.migrations()))
    assert 'revision first (The first one): column "nothing" does not exist' in text
    assert "statement: SELECT nothing FROM item" in text


def test_what_fails_otherwise_is_told_too(workshop: Workshop, app: Application) -> None:
    app.init()
    app.revision("first", FIRST)
    text = str(failure(workshop, app.migrations(target="nowhere")))
    assert "CommandError: Can't locate revision identified by 'nowhere'" in text
    app.revision("second", "raise KeyError('mine')", "first")
    assert "revision second (The second one): KeyError: 'mine'" in str(failure(workshop, app.migrations()))
    app.replace("migrations/env.py", "target_metadata = None", "raise SystemExit(3)")
    assert "SystemExit: 3" in str(failure(workshop, app.migrations()))


def test_one_that_takes_too_long_is_ended(workshop: Workshop, app: Application) -> None:
    app.init()
    app.revision("first", "op.execute('SELECT pg_sleep(600)')")
    text = str(failure(workshop, app.migrations(), limit_s=4.0))
    assert "the schema was not built within 4 s" in text
    assert "alembic.ini, heads" in text


def test_an_env_py_that_goes_elsewhere_is_noticed(workshop: Workshop, app: Application, tmp_path: Path) -> None:
    app.init()
    app.revision("first", "op.execute('CREATE TABLE item (id int)')")
    app.replace(
        "migrations/env.py",
        "config = context.config\n",
        f"config = context.config\nconfig.set_main_option('sqlalchemy.url', 'sqlite:///{tmp_path}/other.db')\n",
    )
    error = failure(workshop, app.migrations())
    assert "and the new database is as empty as before" in str(error)
    assert 'let env.py take config.get_main_option("sqlalchemy.url"), or the environment variable' in str(error)


def test_a_project_without_revisions_makes_an_empty_database(workshop: Workshop, app: Application) -> None:
    app.init()
    name = workshop.ensure(app.migrations())
    assert workshop.rows(name, "SELECT to_regclass('item')") == [(None,)]


def test_what_is_not_there_is_told_before_anything_is_begun(app: Application) -> None:
    with pytest.raises(SchemaFailed, match=r"alembic\.ini does not exist"):
        app.migrations().fingerprint()
    (app.folder / "pyproject.toml").write_text("[project]\nname = 'mine'\n")
    with pytest.raises(SchemaFailed, match=r"pyproject\.toml has no script_location"):
        app.migrations("pyproject.toml").fingerprint()


def test_what_makes_its_template_stale(app: Application) -> None:
    app.init("pyproject")
    (app.folder / "models.py").write_text("X = 1\n")
    (app.folder / "other.py").write_text("X = 1\n")
    app.replace("migrations/env.py", "target_metadata = None", "import models")
    app.revision("first", FIRST)
    known = {app.migrations("pyproject.toml").fingerprint()}

    def changed() -> bool:
        found = app.migrations("pyproject.toml").fingerprint()
        is_new = found not in known
        known.add(found)
        return is_new

    assert not changed()
    (app.folder / "models.py").write_text("X = 2\n")
    assert changed()
    app.revision("first", FIRST + "    pass")
    assert changed()
    app.replace("pyproject.toml", "[tool.alembic]", "[tool.alembic]\ntimezone = 'UTC'")
    assert changed()
    app.replace("alembic.ini", "dbname", "shop")
    assert changed()
    app.replace("migrations/env.py", "import models", "import models  # again")
    assert changed()
    (app.folder / "pyproject.toml").write_text(
        "[tool.other]\nx = 1\n" + (app.folder / "pyproject.toml").read_text()
    )
    (app.folder / "other.py").write_text("X = 2\n")
    assert not changed()
    fingerprints = {
        app.migrations("pyproject.toml", target="first").fingerprint(),
        app.migrations("pyproject.toml", driver="asyncpg").fingerprint(),
        app.migrations("pyproject.toml", files=[app.folder / "other.py"]).fingerprint(),
    }
    assert len(fingerprints - known) == 3
    assert "alembic" not in {Path(entry).name for entry in sys.path}
