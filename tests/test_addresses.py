"""Secrets in addresses and messages are hidden, tested with a table and with random passwords."""

from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from segline.addresses import hide, shown

TABLE = {
    "postgresql://me:tiger@db:5432/runs": "postgresql://me:...@db:5432/runs",
    "postgresql://me@db/runs?sslmode=require&sslpassword=tiger": (
        "postgresql://me@db/runs?sslmode=require&sslpassword=..."
    ),
    "postgresql:///runs?host=db&user=me&password=tiger": "postgresql:///runs?host=db&user=me&password=...",
    "postgresql://me:a@b/c?d@db/runs": "postgresql://me:...@db/runs",
    "https://tiger@host/": "https://...@host/",
    "https://ghp_tigertigertiger:x-oauth-basic@host/x": "https://...@host/x",
    "http://me:tiger@host:5000/x#access_token=tiger": "http://me:...@host:5000/x#...",
    "https://host/blob?sv=2026&sig=tiger": "https://host/blob?sv=...&sig=...",
    "mssql+pyodbc:///?odbc_connect=Server%3Ddb%3BPWD%3Dtiger": "mssql+pyodbc:///?odbc_connect=...",
    "host=db user=me password='a tiger'": "host=db user=me password=...",
    "ssh://me@host/data": "ssh://me@host/data",
    "s3://bucket/runs@2026": "s3://bucket/runs@2026",  # a user name without a password is not a secret
    "sqlite:////home/me@work/runs.db": "sqlite:////home/me@work/runs.db",
    "http://127.0.0.1:5000/#/experiments/1": "http://127.0.0.1:5000/#/experiments/1",
    "mlruns/studies/a.journal": "mlruns/studies/a.journal",
}


@pytest.mark.parametrize("address", TABLE)
def test_an_address_is_shown_without_its_secrets(address: str) -> None:
    assert shown(address) == TABLE[address]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zs"]), min_size=5, max_size=20))
@example("p@ss/w?rd#1")
@example("ti%67er")
def test_a_password_in_an_error_message_is_hidden(password: str) -> None:
    assume(not any(password in word for word in ("postgresql", "connection", "failed", "runs", "user")))
    encoded = quote(password, safe="")
    address = f"postgresql://me:{encoded}@db/runs"
    for quoted in (address, password, encoded):
        assert password not in hide(f"connection failed: {quoted}", address).replace("...", "")


@pytest.mark.parametrize("place", ["argument", "variable", "address"])
def test_secrets_of_arguments_variables_and_addresses_are_hidden(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    address = "postgresql://me:ti%40ger-73@db/runs"
    if place == "argument":
        monkeypatch.setattr("sys.argv", ["segline", "tune", "--join", address])
    elif place == "variable":
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", address)
    text = hide("no such host: 'ger-73@db', password ti@ger-73", *([address] if place == "address" else []))
    assert "ger-73" not in text


def test_passwords_in_environment_variables_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "tiger-73")
    monkeypatch.setenv("SOME_TOKEN", "1")  # a switch, not a secret
    assert hide("401: tiger-73 is wrong, try 1") == "401: ... is wrong, try 1"
