"""The table of close codes: one meaning each, and ranges that say whether to come back."""

import pytest

from innkeeper import close_codes
from innkeeper.close_codes import TABLE, CloseCode


@pytest.mark.parametrize("code", TABLE, ids=lambda code: str(code.code))
def test_ranges_agree_with_retry(code: CloseCode) -> None:
    """4000-4499 are final and 4500-4999 are retried: a client needs no table to decide."""
    if code.code >= 4000:
        assert code.code < 5000
        assert code.retry == (code.code >= 4500)
    else:
        assert 1000 <= code.code <= 1014
        assert code.code not in (1004, 1005, 1006)


@pytest.mark.parametrize("code", TABLE, ids=lambda code: str(code.code))
def test_texts(code: CloseCode) -> None:
    """Reasons fit a close frame, and every code has a meaning for the docs."""
    assert len(code.reason.encode()) <= 123
    assert code.reason.isascii()
    assert code.meaning


def test_the_table_holds_every_code_once() -> None:
    """No code is missing in the table, none stands in it twice, and it is sorted."""
    named = {value for value in vars(close_codes).values() if isinstance(value, CloseCode)}
    assert set(TABLE) == named
    assert [code.code for code in TABLE] == sorted({code.code for code in TABLE})


def test_the_codes_of_the_design() -> None:
    """The numbers clients were told stay what they are."""
    assert {code.code for code in TABLE} >= {1007, 1012, 1013, 4403, 4404, 4508, 4512}
