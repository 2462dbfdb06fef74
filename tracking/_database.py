"""Opening the study database: folders, tables, schema version, short transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, inspect, select, text, update
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from diffsift.common.reporting import LOGGER
from diffsift.errors import DiffsiftError, StudyError, without_passwords

from ._creation import create_whole, creating, require_whole
from ._migration import migrate
from ._retry import AT_START, retried
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
        StudyError: the URL cannot be understood, the database cannot be opened or written, it was cut short, or a newer
            diffsift made it.
    """
    try:
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))  # a server may cut what lies idle
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
        retried(lambda: _prepare(engine), LOGGER.warning, patience=AT_START)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _prepare(engine: Engine) -> None:
    try:
        require_whole(engine.url)
        if not _has_tables(engine):
            _create_tables(engine)
        _refuse_newer(engine)
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


def _has_tables(engine: Engine) -> bool:
    if _new_file(engine.url) is not None:
        return False  # to look would create it
    return Base.metadata.tables.keys() <= set(inspect(engine).get_table_names())


def _create_tables(engine: Engine) -> None:
    """Create what is missing; an SQLite file that is new appears with all its tables."""
    with creating(engine.url):
        new = _new_file(engine.url)
        if new is not None:
            create_whole(new, _create_file)
        else:
            _refuse_newer(engine)
            Base.metadata.create_all(engine)


def _new_file(url: URL) -> Path | None:
    """The SQLite file that a URL names, where it is to be made."""
    path = sqlite_file(url)
    return None if path is None or path.exists() or str(url.database).startswith("file:") else path


def _create_file(path: Path) -> None:
    engine = create_engine(URL.create("sqlite", database=str(path)))
    tune_sqlite(engine)
    try:
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add(VersionTable(schema=SCHEMA))
    finally:
        engine.dispose()


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


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One short transaction: committed on leaving, rolled back on an exception.

    Raises:
        IntegrityError: a unique key is there already; callers decide what that means.
        StudyError: any other failure of the database, or what is read from it is damaged.
    """
    with readable(engine.url):
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise StudyError(f"study database {problem(error, engine.url)}") from error


def require_sound(engine: Engine) -> None:
    """Have SQLite compare its pages and indexes with each other; other databases look after that themselves.

    Raises:
        StudyError: something is damaged.
    """
    if engine.dialect.name != "sqlite":
        return
    try:
        with engine.connect() as connection:
            found = connection.execute(text("PRAGMA integrity_check(1)")).scalar()
    except SQLAlchemyError as error:
        raise database_error(engine.url, error) from error
    if found != "ok":
        said = str(found).splitlines()[-1][:100]
        raise StudyError(f"study database {describe(engine.url)} is damaged ({said}): restore it from a copy.")


@contextmanager
def readable(url: URL) -> Iterator[None]:
    """Say that a database is damaged, where what is read from it cannot be understood.

    Args:
        url: of the database.

    Yields:
        Nothing.

    Raises:
        StudyError: a stored value is not of its type, such as text that is no JSON.
    """
    try:
        yield
    except DiffsiftError:
        raise
    except (ValueError, LookupError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        raise StudyError(f"study database {describe(url)} is damaged ({said}): restore it from a copy.") from error


def database_error(url: URL, error: BaseException) -> StudyError:
    """What a failure of a study database looks like to the user.

    Args:
        url: of the database.
        error: of SQLAlchemy or Optuna.

    Returns:
        The error to raise, which names the database without its password, and what to do where that is known.
    """
    return StudyError(f"study database {problem(error.__cause__ or error, url)}")
