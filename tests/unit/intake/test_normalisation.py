"""One spelling for each way to reach a person; where a shortcut is taken, it says what the library says."""

from __future__ import annotations

import phonenumbers
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from services.intake.normalisation import ContactError, email, phone, plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(602) 200-0001", "+16022000001"),
        ("602.200.0001", "+16022000001"),
        ("1 602 200 0001", "+16022000001"),
        ("+1-602-200-0001", "+16022000001"),
        ("  6022000001 ", "+16022000001"),
        ("+49 30 901820", "+4930901820"),
        ("+39 06 698 12345", "+390669812345"),
    ],
)
def test_writes_phones_as_e164(text: str, expected: str) -> None:
    assert phone(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "canary",
        "12",
        "000-000-0000",
        "(602) 100-0001",
        "+1 602 200 00011",
        "911",
        "602-200-0001 x5",
        "1" * 41,
    ],
)
def test_refuses_what_is_no_phone_without_quoting_it(text: str) -> None:
    with pytest.raises(ContactError) as raised:
        phone(text)
    assert "602" not in str(raised.value)
    assert raised.value.__cause__ is None


_SEPARATOR = st.sampled_from(["", " ", "-", ".", ") ", "  ", "/"])


@given(
    st.tuples(
        st.sampled_from(["", "+1", "1", "+1 ", "1-", "+", "01", "001"]),
        st.sampled_from(["", "("]),
        st.from_regex(r"[0-9]{2,4}", fullmatch=True),
        _SEPARATOR,
        st.from_regex(r"[0-9]{3}", fullmatch=True),
        _SEPARATOR,
        st.from_regex(r"[0-9]{3,5}", fullmatch=True),
        st.sampled_from(["", " ", "x1", ";ext=5", "a"]),
    ).map("".join)
)
@example("+16022000001")
@example("(876) 200-0001")
@example("(800) 234-5678")
def test_phone_is_what_the_library_says(text: str) -> None:
    try:
        number = phonenumbers.parse(text, "US")
        is_valid = phonenumbers.is_valid_number(number) and not number.extension
    except phonenumbers.NumberParseException:
        is_valid = False
    if is_valid:
        assert phone(text) == phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    else:
        with pytest.raises(ContactError):
            phone(text)


@pytest.mark.parametrize("exchange", ["200", "234", "555", "911", "100"])
def test_phone_is_what_the_library_says_in_every_area(exchange: str) -> None:
    for area in range(1_000):
        number = phonenumbers.PhoneNumber(country_code=1, national_number=int(f"{area:03d}{exchange}0142"))
        text = f"({area:03d}) {exchange}-0142"
        if area >= 100 and phonenumbers.is_valid_number(number):
            assert phone(text) == f"+1{area}{exchange}0142"
        else:
            with pytest.raises(ContactError):
                phone(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ana.Silva+solar@GMAIL.com", "Ana.Silva+solar@gmail.com"),
        ("ana@bücher.example", "ana@bücher.example"),
        ('"ana silva"@mail.example', None),
    ],
)
def test_normalises_the_domain_and_leaves_the_mailbox(text: str, expected: str | None) -> None:
    if expected is not None:
        assert email(text) == expected
    else:
        with pytest.raises(ContactError):
            email(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "canary",
        "@mail.example",
        "canary@",
        "canary@localhost",
        "a@b@mail.example",
        "canary@mail..example",
    ],
)
def test_refuses_what_is_no_address_without_quoting_it(text: str) -> None:
    with pytest.raises(ContactError) as raised:
        email(text)
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


@given(
    st.text("abcXYZ019.+-_ @\"'é\u0301<>", max_size=70),
    st.text("abcXYZ019.-_é ", max_size=70),
)
@example("a" * 64, ("b" * 61 + ".") * 3 + "example")
@example("a" * 300, "mail.example")
@example("canary", "mail.example.")
@example("canary", "\uff4dail.example")
@example("canary", "[127.0.0.1]")
@example("canary\u0301", "mail.example")
def test_address_is_what_the_library_says(local: str, domain: str) -> None:
    text = f"{local}@{domain}"
    try:
        expected = validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError:
        with pytest.raises(ContactError):
            email(text)
    else:
        assert email(text) == expected


def test_plain_text_is_trimmed_to_single_spaces() -> None:
    assert plain("  12\t Main \n Street ") == "12 Main Street"


@pytest.mark.parametrize("text", ["x" * 201, "a\x00b", "a\x1bb"])
def test_refuses_plain_text_that_is_too_long_or_none(text: str) -> None:
    with pytest.raises(ContactError):
        plain(text)
