from typing import Any

import pytest

from ulcmod_dist.runtime.credentials import REDACTED, has_credentials, iter_texts, redact


@pytest.mark.parametrize(
    "text",
    [
        "https://acct.blob.core.windows.net/c/x?sv=2022&sig=X",
        "https://h/x?api_key=X",
        "https://h/x?a=b;apikey=X",
        "https://h/x?%73ig=X",
        "https://h/x?Key=X",
        "https://h/x?auth=X",
        "https://h/x?pwd=X",
        "https://h/x?passwd=X",
        "https://h/x?password=X",
        "https://h/x?client_secret=X",
        "https://h/x?X-Amz-Credential=X",
        "https://h/x?X-Goog-Signature=X",
        "https://h/x?AWSAccessKeyId=X",
        "https://h/x#access_token=X",
        "s3://AKIA:PLAN/TED@bucket",
        "s3://AKIA:PLAN?TED@bucket/x",
        "s3://AKIA:PLAN#TED@bucket/x",
        "s3://AKIA:PLAN::TED@bucket/x",
        "s3://AKIA:12/TED@bucket",
        "S3://AKIA:X@b",
        "simplecache::https://u:X@h/x",
        "simplecache::https://h/x?sig=X",
        "zip://x.csv::s3://AKIA:X@b/x.zip",
        "http://u:X@[::1]:80/x",
        # A port, or as well the beginning of a password.
        "http://[::1]:9000/x@y",
        "https://X@h/x",
        "a https://u:X@h/x",
    ],
)
def test_credentials__are_seen(text: str) -> None:
    assert has_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "runs/mine",
        "user@host:/data",
        "registry:5000/image@sha256:0",
        "s3://bucket/a@b",
        "s3://bucket/2026-01-01T00:00/a@b",
        "hf://datasets/somebody/some@main/x.parquet",
        "http://minio:9000/bucket/x.parquet",
        "http://minio:9000/x?contact=a@b",
        "https://h/x?region=eu&keyword=heron",
        "simplecache::https://h/x",
        "tcp://10.0.0.1:8786",
        "abfss://activations@account.dfs.core.windows.net/runs/mine",
    ],
)
def test_credentials__are_not_seen_where_there_are_none(text: str) -> None:
    assert not has_credentials(text)


def test_texts__come_with_their_keys_and_once() -> None:
    again: list[Any] = ["x"]
    again.append(again)
    value = {"a": again, "b": {"c": (b"y", 3, None)}}
    found = [(key, text) for key, text in iter_texts(value) if text in ("x", "y")]
    assert found == [("a", "x"), ("b.c", "y")]


def test_shown__hides_what_carries_credentials() -> None:
    assert redact("many") == "'many'"
    assert redact(["x", "s3://AKIA:X@b"]) == REDACTED
