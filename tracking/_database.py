"""Opening the study database: folders, tables, schema version, short transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, inspect, select, update
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from diffsift.errors import StudyError, without_passwords

from ._migration import migrate
from ._sqlite import describe, problem, read_only_url, sqlite_file, tune_sqlite, writable
from ._tables import SCHEMA, Base, VersionTable


def open_database(url: str, *, reads_only: bool = False) -> Engine:
    """Open the study database at an SQLAlchemy URL, with the ledger's tables in it.

    An SQLite file is made together with its folder where it is missing, and gets a write-ahead log. Tables of others
    (Optuna's) in the same database are left alone.

    Args:
        url: for example ``sqlite:///.diffsift/studies.db`` or ``postgresql+psycopg://user@host/name``.
        reads_only: nothing will be written: an SQLite file of the present schema may then be read-only.

    Returns:
        SQLAlchemy's engine; the caller disposes of it.

    Raises:
        StudyError: the URL cannot be understood, the database cannot be opened or written, or a newer diffsift made it.
    """
    try:
        engine = create_engine(url)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise StudyError(
            f"study storage must be an SQLAlchemy URL of an installed driver, such as sqlite:///studies.db, "
            f"but got {without_passwords(url)[:100]!r} ({error}): install the driver, or name another database."
        ) from error
    path = sqlite_file(engine.url)
    if reads_only and path is not None and path.is_file() and not writable(path):
        engine.dispose()
        engine = create_engine(read_only_url(path))
        _refuse_other_schema(engine)
        return engine
    if path is not None and engine.url.database and not engine.url.database.startswith("file:"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(
                f"study database {path} cannot be made: {error.strerror or error}; "
                "make its folder writable, or name another database."
            ) from error
    tune_sqlite(engine)
    try:
        _prepare(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _prepare(engine: Engine) -> None:
    try:
        _refuse_newer(engine)
        _create_tables(engine)
        with transaction(engine) as session:
            # A write that changes nothing: a read-only database is refused now, not after the bank is built, and of
            # several processes that open an older database one migrates it while the others wait.
            session.execute(update(VersionTable).values(schema=VersionTable.schema))
            migrate(session)
    except IntegrityError:
        return  # another process wrote the same version row in this moment
    except SQLAlchemyError as error:
        raise StudyError(f"study database {problem(error, engine.url)}") from error


def _refuse_other_schema(engine: Engine) -> None:
    """Refuse a read-only database that cannot be brought up to the present schema.

    Raises:
        StudyError: an older or newer diffsift made it, or it cannot be read.
    """
    try:
        with Session(engine) as session:
            found = list(session.scalars(select(VersionTable.schema)))
    except SQLAlchemyError as error:
        raise StudyError(f"study database {problem(error, engine.url)}") from error
    if found != [SCHEMA]:
        raise StudyError(
            f"study database {describe(engine.url)} must have schema {SCHEMA} to be read where it cannot be written, "
            f"but has {found}: open it once with this diffsift in a folder that can be written."
        )


def _refuse_newer(engine: Engine) -> None:
    if not inspect(engine).has_table(VersionTable.__tablename__):
        return
    with Session(engine) as session:
        found = max(session.scalars(select(VersionTable.schema)), default=SCHEMA)
    if found > SCHEMA:
        raise StudyError(
            f"study database {describe(engine.url)} must have a schema of at most {SCHEMA}, but got schema {found}: "
            "a newer diffsift made it; upgrade diffsift, or name another database."
        )


def _create_tables(engine: Engine) -> None:
    """Create what is missing; once more when another process created the same tables between check and creation."""
    try:
        Base.metadata.create_all(engine)
    except DBAPIError as error:
        if "exist" not in str(error.orig):
            raise
        Base.metadata.create_all(engine)


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One short transaction: committed on leaving, rolled back on an exception.

    Raises:
        IntegrityError: a unique key is there already; callers decide what that means.
        StudyError: any other failure of the database.
    """
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        raise StudyError(f"study database {problem(error, engine.url)}") from error
