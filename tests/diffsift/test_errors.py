"""Messages hold no passwords and are of bounded length, whatever is put into them."""

from __future__ import annotations

import pytest

from diffsift.errors import DiffsiftError, StudyError, without_passwords


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://me:s3cret@host/studies",
        "https://me:s3cret@mlflow.example:5000/path",
        "postgresql://me:s3cret/with@sign:s3cret@host/studies",
        "postgresql://:s3cret@host/studies",
        "mysql+pymysql://me@host/studies?ssl_key=a&password=s3cret&charset=utf8",
        "postgresql://host/studies?user=me&sslpassword=s3cret",
    ],
)
def test_passwords_are_left_out_of_messages(address: str) -> None:
    for text in (address, f"cannot reach '{address}' (no route)", f"{address}: refused, {address} twice"):
        assert "s3cret" not in str(StudyError(text))
        assert "host" in str(StudyError(text)) or "mlflow.example" in str(StudyError(text))


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me:you@work/studies.db",
        "postgresql+psycopg://me@host:5432/studies",
        "http://127.0.0.1:5000 failed: mail me@example.com",
        "a/b@50 + 0.5 c:d@50",
        "",
    ],
)
def test_what_is_no_password_stays(text: str) -> None:
    assert without_passwords(text) == text


def test_messages_are_bounded() -> None:
    said = str(DiffsiftError("must be short, but got " + "x" * 100_000))
    assert len(said) < 2000
    assert said.endswith("more characters)")
