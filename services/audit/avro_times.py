"""Numbers as Avro writes them, and times, of which ours, from 1970 to 2039, have six bytes each."""

from __future__ import annotations

from typing import Final

_FROM_MS: Final = 1 << 34
_TO_MS: Final = 1 << 41
_SIZE: Final = 6
_MORE: Final = 0x80
_TWO_BYTES: Final = 1 << 14
_THREE_BYTES: Final = 1 << 21
_ONE: Final = [bytes((number,)) for number in range(_MORE)]
_LAST_AND_SIGN: Final = 0x808080808081
_SIX_AND_NOT_NEGATIVE: Final = 0x008080808080


def six_bytes(at_ms: int) -> bytes | None:
    """Encode a time; None: not one that has six bytes."""
    if not _FROM_MS <= at_ms < _TO_MS:
        return None
    return bytes(
        (
            at_ms << 1 & 0x7F | 0x80,
            at_ms >> 6 & 0x7F | 0x80,
            at_ms >> 13 & 0x7F | 0x80,
            at_ms >> 20 & 0x7F | 0x80,
            at_ms >> 27 & 0x7F | 0x80,
            at_ms >> 34,
        )
    )


def is_six_bytes(data: bytes) -> bool:
    """Tell whether these are one number, not below 0, with no byte too many and none missing."""
    return len(data) == _SIZE and int.from_bytes(data, "little") & _LAST_AND_SIGN == _SIX_AND_NOT_NEGATIVE


def milliseconds_of(data: bytes) -> int:
    """Decode a time of six bytes."""
    one, two, three, four, five, six = data
    return (
        (one & 0x7F) >> 1
        | (two & 0x7F) << 6
        | (three & 0x7F) << 13
        | (four & 0x7F) << 20
        | (five & 0x7F) << 27
        | six << 34
    )


def avro_long(number: int) -> bytes:
    """Encode a number that is not below 0."""
    left = number << 1
    if left < _THREE_BYTES:
        if left < _TWO_BYTES:
            return _ONE[left] if left < _MORE else bytes((left & 0x7F | 0x80, left >> 7))
        return bytes((left & 0x7F | 0x80, left >> 7 & 0x7F | 0x80, left >> 14))
    encoded = bytearray()
    while left >= _MORE:
        encoded.append(left & 0x7F | 0x80)
        left >>= 7
    encoded.append(left)
    return bytes(encoded)
