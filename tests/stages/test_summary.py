"""What people read in a terminal."""

import pytest

from ulcmod_dist.stages.summary import shown, size_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1260, "1,260"),
        (56981.4, "56,981"),
        (9577.2, "9,577"),
        (-1234.5, "-1,234"),
        (999.96, "1000"),
        (0.97619, "0.9762"),
        (True, "yes"),
        (None, "-"),
        ([], "none"),
        ([5, 0.25], "5, 0.25"),
        ("as it is", "as it is"),
    ],
)
def test_shown__has_few_digits_and_separates_thousands(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")],
)
def test_size_text__is_in_binary_units(count: int, text: str) -> None:
    assert size_text(count) == text
