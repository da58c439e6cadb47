"""Languages that a text recognizer supports, by its character set."""

from __future__ import annotations

from collections.abc import Collection

from rkzoo.spelling import unknown

_OLD_KANA = "ゐゑヰヱヮゎヵヶヴ"
_KANA = "".join(
    sign
    for sign in map(chr, (*range(0x3041, 0x3094), *range(0x30A1, 0x30F5)))
    if sign not in _OLD_KANA
)
_TONES = "àáãạảăắằẳẵặâấầẩẫậđèéẹẻẽêềếểễệìíĩịỉòóõọỏôốồổỗộơớờởỡợùúũụủưứừửữựỳýỵỷỹ"

# Letters of each language besides A to Z, or a sample of its characters; no punctuation.
LETTERS: dict[str, str] = {
    "af": "áéèêëíîïóôöúûü",
    "ar": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "be": "абвгдеёжзійклмнопрстуўфхцчшыьэюя",
    "bg": "абвгдежзийклмнопрстуфхцчшщъьюя",
    "ca": "àçèéíïòóúü",
    "cs": "áčďéěíňóřšťúůýž",
    "cy": "âêîôûŵŷ",
    "da": "æøåé",
    "de": "äöüßÄÖÜ",
    "el": "αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώ",
    "en": "",
    "es": "áéíñóúü",
    "et": "äõöüšž",
    "eu": "ñ",
    "fa": "ابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهی",
    "fi": "äöå",
    "fr": "àâæçéèêëîïôœùûüÿ",
    "ga": "áéíóú",
    "gl": "áéíñóúü",
    "he": "אבגדהוזחטיכלמנסעפצקרשת",
    "hi": "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसहािीुूेैोौ्",
    "hr": "čćđšž",
    "hu": "áéíóöőúüű",
    "id": "",
    "is": "áðéíóúýþæö",
    "it": "àèéìíòóùú",
    "ja": _KANA + "日本語漢字東京学生",
    "ka": "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ",
    "ko": "가나다라마바사아자차카타파하한국어",
    "lt": "ąčęėįšųūž",
    "lv": "āčēģīķļņšūž",
    "ms": "",
    "mt": "ċġħż",
    "nl": "éëïöü",
    "no": "æøåéòô",
    "pl": "ąćęłńóśźż",
    "pt": "ãáâàçéêíõóôúü",
    "ro": "ăâîșț",
    "ru": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
    "sk": "áäčďéíĺľňóôŕšťúýž",
    "sl": "čšž",
    "sq": "çë",
    "sv": "åäöé",
    "sw": "",
    "ta": "அஆஇஈஉஊஎஏஐஒஓகஙசஞடணதநபமயரலவழளறன",
    "th": "กขคงจฉชซญดตถทนบปผฝพฟภมยรลวศสหอฮ",
    "tl": "ñ",
    "tr": "çğıİöşü",
    "uk": "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя",
    "vi": _TONES,
    "zh": "的一是不了人在有我他这中大来上国个到说们",
    "zh-hant": "這來國個說們時會學對發經點後裡無",
}


def missing(language: str, characters: Collection[str]) -> str:
    """Return the letters of a language that are not in `characters`; "" where all are.

    Args:
        language: code such as de or zh-hant.
        characters: character set of a recognizer.

    Raises:
        RkzooError: unknown language code.
    """
    code = language.lower().replace("_", "-")
    if code not in LETTERS:
        raise unknown(
            f"The language {language!r} is not known for reading text.",
            f"Known are {', '.join(LETTERS)}.",
            language,
            LETTERS,
            "Give one of these codes.",
        )
    ascii_letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    needed = LETTERS[code] + ascii_letters
    return "".join(letter for letter in needed if letter not in characters)


def readable(characters: Collection[str]) -> tuple[str, ...]:
    """Return the languages whose letters are all in `characters`."""
    known = frozenset(characters)
    return tuple(code for code in LETTERS if not missing(code, known))
