"""English number words."""

from __future__ import annotations

_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen"""
_ROUND = "zero ten twenty thirty forty fifty sixty seventy eighty ninety"
_ONES, _TENS = _SMALL.split(), _ROUND.split()
_GROUPS = ("", "thousand", "million", "billion", "trillion")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_LARGEST = 10 ** (3 * len(_GROUPS)) - 1


def cardinal(number: int) -> str:
    """Spell a non-negative integer in words; digit by digit above the trillions."""
    if number > _LARGEST:
        return digits(str(number))
    if number < 1000:
        return _below_thousand(number)
    words = []
    for index, group in enumerate(_GROUPS):
        part = number // 1000**index % 1000
        if part:
            words.append(f"{_below_thousand(part)} {group}".strip())
    return " ".join(reversed(words))


def cardinal_of(text: str) -> str:
    """As `cardinal`, of decimal digits, however many: Python makes no integer of 5000."""
    text = text.lstrip("0") or "0"
    return cardinal(int(text)) if len(text) <= len(str(_LARGEST)) else digits(text)


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [_ONES[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        words.append(_TENS[rest // 10])
        rest %= 10
        if rest:
            words.append(_ONES[rest])
    elif rest or not hundreds:
        words.append(_ONES[rest])
    return " ".join(words)


def ordinal(number: int) -> str:
    """Spell an ordinal number."""
    *words, last = cardinal(number).split()
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return " ".join([*words, last])


def digits(text: str) -> str:
    """Spell each digit."""
    return " ".join(_ONES[int(digit)] for digit in text)


def year(number: int) -> str:
    """Spell 1000 to 9999 as a year: nineteen ninety five, two thousand nine."""
    century, rest = divmod(number, 100)
    if number % 1000 < 10:
        return cardinal(number)
    if not rest:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def spell_numbers(text: str) -> str:
    """Spell a written number (digits, with commas between groups or a decimal point). Four digits
    that look like a year are read as one; a leading zero means digit by digit.
    """
    whole, _, fraction = text.replace(",", "").partition(".")
    if fraction:
        return f"{cardinal_of(whole)} point {digits(fraction)}"
    if len(whole) > 1 and whole[0] == "0":
        return digits(whole)
    if (
        text == whole
        and len(whole) == 4
        and (1100 <= int(whole) < 2000 or 2010 <= int(whole) < 2100)
    ):
        return year(int(whole))
    return cardinal_of(whole)
