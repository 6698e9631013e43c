"""What gives access to a model store is in no message about it."""

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import example, given
from hypothesis import strategies as st

from murmura.runtime.errors import SetupError, VersionRefused
from murmura.runtime.release.store import ModelStore
from murmura.runtime.release.store_address import StoreAddress
from murmura.runtime.release.store_backends import ObjectStorage

CANARY = "hunter2hunter2"
SHAPES = (
    "s3://{}@bucket/models",
    "s3://KEY:{}@bucket/models",
    "s3://KEY:a/{}/b@bucket/models",
    "s3://KEY:a?{}@bucket/models",
    "s3://KEY:a#{}@bucket/models",
    "s3://KEY:a@{}@bucket/models",
    "s3://KEY:a%2F{}@bucket/models",
    "abfs://container/models?sas={}",
    "abfs://container/models?sv=1&sig={}&x=1",
    "abfs://container/models?sig=a@{}",
    "abfs://KEY:{}@container/models?sas={}",
    "https://host/models#{}",
    "simplecache::s3://KEY:{}@bucket/models",
    "nowhere://{}",
)


@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_the_address_that_is_shown_holds_no_secret(shape):
    assert CANARY not in StoreAddress(shape.replace("{}", CANARY)).shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/models", "s3://bucket/models"),
        ("s3://KEY:SECRET@bucket/models", "s3://bucket/models"),
        ("abfs://container/models?sas=abcdef", "abfs://container/models"),
        ("/srv/models", "/srv/models"),
        ("models@home", "models@home"),
    ],
)
def test_what_is_no_secret_is_shown(url, shown):
    assert StoreAddress(url).shown == shown


secrets = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=8).filter(
    lambda text: text.isprintable()
)


@given(secret=secrets)
@example(secret="000=/000")
def test_no_password_however_it_is_spelled_is_shown_or_stays_in_a_message(secret):
    url = f"s3://KEY:{secret}@bucket/models"
    address = StoreAddress(url)
    assert secret not in address.shown
    assert secret not in address.clean(f"cannot open {url}: 403 for key {secret}")


@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_an_error_that_quotes_the_address_is_cleaned(shape):
    class Refusing(MemoryFileSystem):
        def find(self, path, **more):
            raise OSError(f"403 for {url} with {CANARY}")

        def _open(self, path, mode="rb", **more):
            raise FileNotFoundError(2, "no such key", f"{path} at {url}")

    url = shape.replace("{}", CANARY)
    storage = ObjectStorage(Refusing(), "models", StoreAddress(url))
    with pytest.raises(VersionRefused) as refused:
        storage.versions("desk")
    assert CANARY not in str(refused.value)
    with pytest.raises(VersionRefused) as refused:
        storage.open("desk", 1, "manifest.json")
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("shape", ["nowhere://KEY:{}@host/models", "nowhere://KEY:a/{}@host", "nowhere://host?sas={}"])
def test_a_store_that_cannot_be_opened_is_named_without_its_secret(shape):
    with pytest.raises(SetupError, match="model store nowhere://") as refused:
        ModelStore(shape.replace("{}", CANARY))
    error = refused.value
    while error is not None:
        assert CANARY not in str(error)
        error = error.__cause__
