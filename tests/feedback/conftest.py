"""A place for a log: a file, and a database of a real Postgres server."""

import pytest

from deepmem_integrations.feedback import FeedbackLog


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def place(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "feedback.db")
    import sqlalchemy

    url = request.getfixturevalue("postgres").replace("postgresql://", "postgresql+psycopg://")
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        for table in ("queries", "shown", "events"):
            connection.exec_driver_sql(f"drop table if exists deepmem_{table}")
    engine.dispose()
    return url


@pytest.fixture
def log(place):
    with FeedbackLog(place) as log:
        yield log
