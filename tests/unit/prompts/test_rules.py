"""Which texts hold a term, through disguises, and which only look so."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.safety.prompts.fold import fold
from agent.safety.prompts.rules import TermRules
from agent.safety.prompts.terms import EXAMPLES, load_terms, read_terms
from tests.unit.prompts.rules import found, rules_of

TERMS = [
    "gun",
    "kill",
    "ass",
    "rape",
    "rapist",
    "cock",
    "weapon*",
    "car bomb",
    "ak-47",
    "炸弹",
    "枪",
    "!水枪",
    "ナイフ",
]
TERMS += ["爆弾", "!爆弾低気圧", "🔫", "ปืน", "총", "бомба", "!hot kill"]


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> TermRules:
    return rules_of(tmp_path_factory.mktemp("terms"), *TERMS)


@pytest.mark.parametrize(
    ("text", "term"),
    [
        # as it stands
        ("a gun on a table", "gun"),
        ("GUN!", "gun"),
        ("the gun's barrel", "gun"),
        ("holding_gun", "gun"),
        ("gun2 and more", "gun"),
        ("a car, bomb", "car bomb"),
        ("car-bomb", "car bomb"),
        ("AK 47", "ak-47"),
        ("AK47", "ak-47"),
        ("weaponry", "weapon*"),
        ("большая бомба", "бомба"),
        # prompts' own signs
        ("(gun:1.3)", "gun"),
        ("((gun))", "gun"),
        ("[gun|rose]", "gun"),
        ("{gun|rose}", "gun"),
        ("gun::2 rose::1", "gun"),
        ("embedding:gun", "gun"),
        ("<lora:gun:0.8>", "gun"),
        # width, accents, invisible characters, look-alikes
        ("ＧＵＮ", "gun"),
        ("g\u200bu\u2060n", "gun"),
        ("g\u00adun", "gun"),
        ("gún", "gun"),
        ("g\u0336u\u0336n\u0336", "gun"),
        ("𝓰𝓾𝓷", "gun"),
        ("ⓖⓤⓝ", "gun"),
        ("🅶🆄🅽", "gun"),
        ("🇬🇺🇳", "gun"),
        ("ɢᴜɴ", "gun"),
        ("кill", "kill"),
        ("сосk", "cock"),
        ("g\u03c5n", "gun"),
        # signs for letters
        ("k1ll", "kill"),
        ("k!ll!!", "kill"),
        ("ki11", "kill"),
        ("9un", "gun"),
        ("@ss", "ass"),
        ("c@r b0mb", "car bomb"),
        ("we4p0nry", "weapon*"),
        # set apart, cut up, stretched
        ("g u n", "gun"),
        ("a g u n", "gun"),
        ("g.u.n", "gun"),
        ("g_u_n", "gun"),
        ("g - u - n", "gun"),
        ("g*u*n", "gun"),
        ("9 . u . n", "gun"),
        ("k i l l   h i m", "kill"),
        ("k.i.l.l h.i.m", "kill"),
        ("c a r  b o m b", "car bomb"),
        ("c a r b o m b", "car bomb"),
        ("(gu)n", "gun"),
        ("gu(n:1.1)", "gun"),
        ("we.apon", "weapon*"),
        ("guuuun", "gun"),
        ("kiiilllll", "kill"),
        ("g u u u u n", "gun"),
        # scripts without spaces
        ("一把枪在桌上", "枪"),
        ("炸 弹", "炸弹"),
        ("炸\u200b弹", "炸弹"),
        ("炸-弹", "炸弹"),
        ("炸,弹", "炸弹"),
        ("水枪和枪", "枪"),
        ("彼はナイフを持つ", "ナイフ"),
        ("ﾅｲﾌ", "ナイフ"),
        ("ないふを持つ", "ナイフ"),
        ("武gun器", "gun"),
        ("มีปืนอยู่", "ปืน"),
        ("총을 든", "총"),
        ("a 🔫\ufe0f here", "🔫"),
    ],
)
def test_term_is_found(rules: TermRules, text: str, term: str) -> None:
    assert term in found(rules, text)


@pytest.mark.parametrize(
    "text",
    [
        "gunner",
        "begun",
        "assassin, classic assessment of a grass assembly",
        "a bunch of grapes",
        "a therapist, scraping drapes",
        "Scunthorpe",
        "cocktail, peacock, shuttlecock",
        "skill, killer whale",
        "a s s e t",
        "g r a p e s",
        "c l a s s",
        "th3r4pist",
        "cl4ss, gr4pe",
        "Samsung A55",
        "455",
        "4k, 8k, 35mm, f1.8, 1girl",
        "Gunn",
        "aaas",
        "car, a bombast",
        "水枪",
        "快炸。弹琴的人",
        "爆弾低気圧が来る",
        "しないふたり",
        "a hot kill",
        "an e.g. or i.e. or U.S.A. flag",
        "",
        " ,.:;()[]{}",
    ],
)
def test_innocent_text_passes(rules: TermRules, text: str) -> None:
    assert found(rules, text) == []


def test_term_of_several_words_is_no_innocent_word(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, "the rapist")
    assert found(rules, "the rapist") == ["the rapist"]
    assert found(rules, "the therapist") == []


def test_category_is_the_name_of_the_file(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, "gun", category="weapons.en")
    assert [match.category for match in rules.find("gun")] == ["weapons"]


def test_lists_of_the_agent_can_be_read_and_find_their_own_terms() -> None:
    terms = load_terms([EXAMPLES])
    rules = TermRules(terms)
    banned = [term for term in terms if not term.is_exception]
    assert {term.category for term in banned} == {"weapons", "violence"}
    for term in banned:
        assert rules.find(term.line.removesuffix("*")), term


#: The same ones each time, however busy the machine is.
SAMPLE = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

ANY_TEXT = st.text(max_size=80) | st.text("gunкСаɢＧ\u0301\u200bがか\u3099゛ガｶﾞ ΗΟTжЖ🇬ŁßİK", max_size=20)


@SAMPLE
@given(ANY_TEXT)
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@SAMPLE
@given(ANY_TEXT)
def test_any_text_can_be_looked_at(text: str) -> None:
    RULES.find(text)


LETTERS = st.text(string.ascii_lowercase, min_size=4, max_size=9)
WORDS = st.lists(st.text(string.ascii_lowercase, min_size=2, max_size=9), max_size=12)
GAPS = st.sampled_from([" ", ", ", ". ", "\n", " (", ") ", " - ", "  "])


def _rules(*lines: str) -> TermRules:
    from agent.safety.prompts.terms import parse_term  # noqa: PLC0415

    return TermRules([parse_term(line, "list", "test") for line in lines])


RULES = _rules(*TERMS)


@SAMPLE
@given(term=LETTERS, before=WORDS, after=WORDS, gap=GAPS)
def test_term_among_any_words_is_always_found(
    term: str, before: list[str], after: list[str], gap: str
) -> None:
    text = gap.join([*before, term, *after])
    assert found(_rules(term), text) == [term]


def _apart(word: str) -> str:
    return " ".join(word)


DISGUISES = [
    str.upper,
    _apart,
    ".".join,
    "\u200b".join,
    lambda word: "".join(chr(ord(char) + 0xFEE0) for char in word),
    lambda word: "".join(char + "\u0301" for char in word),
    lambda word: (
        word.replace("o", "0").replace("e", "3").replace("a", "4")
        if len(set(word) - set("oea")) > 0
        else word
    ),
    lambda word: f"({word}:1.2)",
]


@SAMPLE
@given(term=LETTERS, before=WORDS, after=WORDS, disguise=st.sampled_from(DISGUISES))
def test_disguised_term_among_any_words_is_always_found(
    term: str, before: list[str], after: list[str], disguise: object
) -> None:
    assert callable(disguise)
    # Words of one letter beside letters that stand apart could be any of them, so there are none.
    assert term in found(_rules(term), ", ".join([*before, disguise(term), *after]))


ORDINARY = re.findall(
    r"\w+",
    "a portrait of an old fisherman in the morning light with a blue boat and two white dogs beside the harbour "
    "wall photograph soft focus highly detailed skin texture grass classic bass passage assemble cockpit peacock "
    "scrape drape grapefruit therapy begun gunwale raccoon skilful skillet weaver bombastic carbon therapist "
    "35mm 4k 8k f2 1girl masterpiece best quality",
)


@SAMPLE
@given(words=st.lists(st.sampled_from(ORDINARY), max_size=30), gap=GAPS)
def test_ordinary_words_are_never_found(words: list[str], gap: str) -> None:
    assert found(RULES, gap.join(words)) == []


@pytest.mark.parametrize(
    "unit", [":", "1", "ab", "a", "a.", "!", "(", "枪 ", "g ", ":1", "\u0301", "水枪", "a!", "𝓰"]
)
def test_long_text_of_one_kind_takes_time_by_its_length(unit: str) -> None:
    RULES.find(
        unit * (200_000 // len(unit))
    )  # within the time that any test has; a square of it would not be


def test_bad_list_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.txt"
    file.write_bytes(b"gun\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line 2: this is not UTF-8"):
        read_terms(file)
    file.write_text("gun\n\n# fine\n...\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line 4: there is neither a letter"):
        read_terms(file)
    with pytest.raises(ValueError, match=r"nowhere\.txt"):
        load_terms([str(tmp_path / "nowhere.txt")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no file in it"):
        load_terms([str(tmp_path / "empty")])
    file.write_text("!only an exception\n")
    with pytest.raises(ValueError, match="there is no term"):
        load_terms([str(file)])


@pytest.mark.parametrize("marks", ["\u093c\u094d", "\u094d\u200d\u093c", "\uff9e\u0348\u05b0"])
def test_heap_of_marks_is_cut_down_before_it_is_sorted(marks: str) -> None:
    """As many as here took Unicode's normalization minutes, with the whole process standing still."""
    folded = fold("g" + marks * 100_000 + "un")
    assert len(folded) < 40
    assert (folded[0], folded[-2:]) == ("g", "un")
    assert fold(folded) == folded


def test_marks_that_a_letter_can_have_all_stay() -> None:
    word = "\u0915" + "\u093c\u094d" * 15
    assert len(fold(word)) >= 31
