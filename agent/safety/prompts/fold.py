"""One spelling for what reads the same: width, case, accents, invisible characters, letters of look-alike scripts.

Disguises that change the reading of a whole word (digits for letters, letters set apart) are left in place;
spellings.py reads those.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

#: Characters that are not shown (Default_Ignorable_Code_Point of Unicode 16; Hangul fillers included).
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)

#: Accents and other marks over, under and through letters. Marks that make another letter (the voicing marks of
#: kana, vowel signs of Indic and Southeast Asian scripts) are in other blocks and stay.
ACCENTS = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")

#: The voicing marks of kana as characters of their own would be separated from their letter by a space; those of half
#: width are marks too, though Unicode has them among the letters.
VOICING = str.maketrans({"\u309b": "\u3099", "\u309c": "\u309a", "\uff9e": "\u3099", "\uff9f": "\u309a"})


def _letters(pairs: str) -> dict[int, str]:
    """ "øo þth" -> a table for str.translate."""
    return {ord(pair[0]): pair[1:] for pair in pairs.split()}


#: Latin letters that Unicode does not decompose, small capitals and letters of phonetics among them.
LATIN = (
    _letters(
        "ßss ẞSS "
        "øo ØO łl ŁL đd ĐD ðd ÐD þth ÞTH ħh ĦH ŧt ŦT ıi æae ÆAE œoe ŒOE ƒf ʟl ʀr ɴn ɢg ɪi ʏy ʙb ʜh ᴀa ᴄc ᴅd ᴇe ᴊj"
    )
    | _letters(
        "ᴋk ᴍm ᴏo ᴘp ᴛt ᴜu ᴠv ᴡw ᴢz ꜱs ꜰf ɑa ɡg ɩi ɾr ɛe ʋv ɯw ʐz ɓb ɗd ɠg ƙk ƥp ƭt ɦh ɱm ɳn ɲn ɵo ɨi ʉu ɫl ʂs ʈt"
    )
    # Letters in boxes and regional indicators, which are shown as letters where they make no flag.
    | {first + i: chr(97 + i) for first in (0x1F130, 0x1F150, 0x1F170, 0x1F1E6) for i in range(26)}
)

#: Letters of other scripts that look like a Latin one, by case: Greek "Η" is an H, "η" is read as an n.
LOOK_ALIKES = (
    _letters("аa вb сc ԁd еe ғf һh іi јj кk ӏl мm нh оo рp ԛq гr ѕs тt уy ѵv ԝw хx үy ьb пn")
    | _letters("АA ВB СC ԀD ЕE ҒF ҺH ІI ЈJ КK ӀI МM НH ОO РP ԚQ ЅS ТT УY ѴV ԜW ХX ҮY ЬB ПN ГR")
    | _letters("αa βb ϲc εe ηn ιi κk νv οo ρp τt υu χx γy ωw μu ϳj")
    | _letters("ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX ϹC ͿJ")
    | _letters("օo սu հh ոn ցg զq աw յj Օo Սu Ցg")
    | _letters("ᎪA ᏴB ᏟC ᎬE ᏀG ᎻH ᎫJ ᏦK ᏞL ᎷM ᏢP ᏚS ᎢT ᏙV ᎳW ᏃZ")
)
for _code, _latin in tuple(LOOK_ALIKES.items()):
    # One case looks like it: the other is used for it too, so that folding does not depend on case.
    for _other in {chr(_code).lower(), chr(_code).upper(), chr(_code).casefold()}:
        LOOK_ALIKES.setdefault(ord(_other), _latin)

#: What may be a row of marks, which are sorted within it by a method that takes the square of their number: a second
#: for 30,000. No script has more than these on one letter (Unicode's Stream-Safe Text Format, UAX 15, section 13).
MOST_MARKS = 30
MAYBE_MARKS = re.compile(rf"[^\w\x00-\x7f]{{{MOST_MARKS + 1},}}")

FOREIGN = re.compile("[\u0370-\u058f\u13a0-\u13ff\u1c80-\u1c8f\uab70-\uabbf]+")
WORD = re.compile(r"[^\W\d_]+")


def fold(text: str) -> str:
    """The text in the spelling that is compared. Folding twice is the same as folding once."""
    if text.isascii():
        return text.lower()
    text = _normalize("NFKD", text.translate(VOICING))
    text = ACCENTS.sub("", INVISIBLE.sub("", text)).translate(LATIN)
    text = _normalize("NFKD", _read_as_latin(text).casefold())
    return _normalize("NFC", ACCENTS.sub("", INVISIBLE.sub("", text)).translate(LATIN))


def _normalize(form: Literal["NFC", "NFKD"], text: str) -> str:
    return unicodedata.normalize(form, MAYBE_MARKS.sub(lambda row: _few_marks(row[0]), text))


def _few_marks(row: str) -> str:
    """Without the marks of one letter that are more than MOST_MARKS, which nobody could read."""
    kept, marks = [], 0
    for char in row:
        marks = marks + 1 if unicodedata.combining(unicodedata.normalize("NFKD", char)[0]) else 0
        if marks <= MOST_MARKS:
            kept.append(char)
    return "".join(kept)


def _read_as_latin(text: str) -> str:
    """Replace the letters that only look Latin.

    A text with Cyrillic or Greek letters that look like no Latin one is Russian or Greek in parts, and there only
    words that mix scripts are disguises. Elsewhere every such letter is one, if there is Latin text at all.
    """
    if not FOREIGN.search(text):
        return text
    foreign = "".join(FOREIGN.findall(text))
    is_real = any(char.isalpha() and ord(char) not in LOOK_ALIKES for char in foreign)
    if not is_real:
        return text.translate(LOOK_ALIKES) if _has_latin(text) else text
    return WORD.sub(lambda word: _read_word(word[0]), text)


def _read_word(word: str) -> str:
    latin = word.translate(LOOK_ALIKES)
    return latin if latin.isascii() and _has_latin(word) else word


def _has_latin(text: str) -> bool:
    return any(char.isascii() and char.isalpha() for char in text)
