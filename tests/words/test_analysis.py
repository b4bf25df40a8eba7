import copy
import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations.errors import MissingExtraError, StoreError
from deepmem_integrations.words import Analysis
from deepmem_integrations.words import analysis as module
from deepmem_integrations.words.analysis import MAX_TERM, STEMMERS, recognise

ENGLISH = Analysis("en")

IDENTIFIERS = [
    ("ORA-00942", {"ora-00942", "ora", "00942"}),
    ("E_NOT_FOUND", {"e_not_found", "not", "found"}),
    ("foo.bar_baz()", {"foo.bar_baz", "foo", "bar_baz", "bar", "baz"}),
    ("v1.2.3", {"v1.2.3", "1.2.3"}),
    ("10,000", {"10,000", "10000", "10", "000"}),
    ("1.234.567", {"1.234.567", "1234567"}),
    ("3.14", {"3.14", "3", "14"}),
    ("C++", {"c++"}),
    ("C#", {"c#"}),
    (".NET", {".net", "net"}),
    ("std::vector", {"std::vector", "std", "vector"}),
    ("getUserName", {"get", "user", "name"}),
    ("HTTPServer", {"http", "server"}),
    ("AB12-X9/7", {"ab12-x9/7", "ab12-x9", "ab12", "x9", "7"}),
    ("/etc/nginx/nginx.conf", {"etc/nginx/nginx.conf", "nginx.conf", "nginx", "conf"}),
    (r"C:\Windows\win.ini", {"win.ini"}),
    ("jane.doe@example.org", {"jane.doe@example.org", "example.org", "jane", "doe"}),
    ("COVID-19", {"covid-19", "covid", "19"}),
    ("covid19", {"covid19", "covid", "19"}),
    ("U.S.A.", {"u.s.a", "usa"}),
    ("AT&T", {"at&t"}),
    ("192.168.0.1", {"192.168.0.1", "192"}),
    ("__init__", {"__init__", "init"}),
    ("p53", {"p53"}),
    ("0x80070057", {"0x80070057"}),
    ("CVE-2021-44228", {"cve-2021-44228", "2021", "44228"}),
]


@pytest.mark.parametrize("text, expected", IDENTIFIERS, ids=[text for text, _ in IDENTIFIERS])
@pytest.mark.parametrize("language", ["en", "de", None])
def test_identifiers_survive_whole_and_by_their_parts(text, expected, language):
    analysis = Analysis(language)
    for sentence in (text, f"Why ({text})?", f"see {text}, please.", f"日本{text} 한국"):
        assert expected <= set(analysis.terms(sentence)), sentence
        assert expected - {"not"} <= set(analysis.query_terms(sentence))


def test_identifiers_are_not_stemmed():
    assert "running-shoes2" in ENGLISH.terms("running-shoes2")
    assert ENGLISH.terms("running_shoes") == ["running_shoes", "running", "run", "shoes", "shoe"], "prose finds the parts, too"
    assert ENGLISH.terms("running-shoes") == ["running-shoes", "run", "shoe"], "hyphens join ordinary words"
    assert "addresses4" in ENGLISH.terms("Addresses4")


@pytest.mark.parametrize(
    "language, one, other",
    [
        ("en", "Routers were restarting", "router restarts"),
        ("de", "Die Häuser der Straße", "HÄUSERN STRASSEN"),
        ("fr", "L’eau des rivières chantait", "eau rivière chanter"),
        ("es", "las canciones rápidas", "canción rápida"),
        ("it", "le canzoni dell'opera", "canzone opera"),
        ("pt", "os livros rápidos", "livro rápido"),
        ("nl", "de rode boeken", "boek"),
        ("sv", "de snabba bilarna", "snabb bil"),
        ("ru", "быстрые машины", "быстрая машина"),
        ("fi", "taloissa", "talo"),
        ("tr", "İSTANBUL'DA KIŞLAR", "istanbul kış"),
        ("ar", "كِتَابٌ", "كتاب"),
        ("hu", "házakban", "házak"),
        ("el", "ΒΙΒΛΊΑ", "βιβλία"),
        ("zh", "我在东京大学研究经济", "东京大学"),
        ("ja", "日本語のテキストを検索する", "テキスト検索"),
        ("ko", "한국어를 검색합니다", "한국어 검색"),
        ("th", "ภาษาไทยไม่มีช่องว่าง", "ภาษาไทย"),
        ("hi", "हिन्दी में खोज", "हिन्दी खोज"),
        ("he", "שָׁלוֹם עוֹלָם", "שלום עולם"),
        ("vi", "tiếng Việt", "TIẾNG VIỆT"),
        ("uk", "м'яч і книга", "М’ЯЧ КНИГА"),
    ],
)
def test_words_of_a_language_meet(language, one, other):
    analysis = Analysis(language)
    terms, asked = set(analysis.terms(one)), set(analysis.query_terms(other))
    if language in ("zh", "ja", "ko", "th"):
        assert len(terms & asked) >= len(asked) / 2
    else:
        assert asked <= terms


def test_scripts_without_spaces_give_pairs():
    assert ENGLISH.terms("東京大学") == ["東京", "京大", "大学", "東", "京", "大", "学"]
    assert ENGLISH.terms("テキスト") == ["テキ", "キス", "スト"]
    assert ENGLISH.terms("ครับ") == ["ครั", "รับ"], "marks stay with their letter"
    assert ENGLISH.terms("猫") == ["猫"]
    assert ENGLISH.terms("ト กี") == ["ト", "กี"], "a single character is a word"
    assert ENGLISH.terms("iPhone手机") == [*ENGLISH.terms("iPhone"), "手机", "手", "机"]


def test_unicode_forms_meet():
    assert ENGLISH.terms("ﬁle Ｆｉｌｅ file") == ["file"] * 3
    assert ENGLISH.terms("cafe\u0301") == ENGLISH.terms("café") == ENGLISH.terms("CAFÉ")
    assert ENGLISH.terms("hy\u00adphen") == ENGLISH.terms("hyphen")
    assert ENGLISH.terms("Foo™ and\u200bbar") == ["foo", "and", "bar"]
    assert ENGLISH.terms("co\u2011op") == ENGLISH.terms("co-op")
    assert Analysis("de").terms("STRASSE") == Analysis("de").terms("Straße")


def test_stop_words_leave_a_query_that_says_more():
    assert ENGLISH.query_terms("What is the router?") == ["router"]
    assert ENGLISH.query_terms("to be or not to be") == ["to", "be", "or", "not", "to", "be"]
    assert ENGLISH.query_terms("Does the WHO know IT?") == ["who", "know", "it"], "capitals name something"
    assert "it" in ENGLISH.query_terms("IT 部门")
    assert ENGLISH.query_terms("the __") == ["the"]
    assert ENGLISH.query_terms("WHAT IS THE ROUTER") == ["router"], "a shouted query has no names"
    assert ENGLISH.terms("the router") == ["the", "router"], "documents keep stop words"
    assert ENGLISH.query_terms("E_NOT_FOUND") == ENGLISH.terms("E_NOT_FOUND")
    assert Analysis("de").query_terms("Was ist der Router?") == Analysis("de").terms("Router")
    assert Analysis(None).query_terms("what is the router") == ["what", "is", "the", "router"]
    assert Analysis("nb").query_terms("hva er en ruter") == Analysis("no").query_terms("ruter")


TEXTS = (
    st.text()
    | st.text("aZ09_-./:,+#'’ é日ท한ß")
    | st.from_regex(r"[A-Za-z0-9]{1,4}([._\-/:][A-Za-z0-9]{1,4}){0,4}", fullmatch=True)
)


@given(TEXTS, st.sampled_from(["en", "de", "tr", "ja", "ar", None]))
def test_any_text_has_terms_that_can_be_kept(text, language):
    analysis = Analysis(language)
    terms = analysis.terms(text)
    assert all(term and len(term) <= MAX_TERM and not any(map(str.isspace, term)) for term in terms)
    assert terms == Analysis(language).terms(text), "nothing depends on what came before"
    assert set(analysis.query_terms(text)) <= set(terms)
    assert bool(analysis.query_terms(text)) == bool(terms)
    if language is None or language == "ja":
        assert all(term == unicodedata.normalize("NFKC", term) for term in terms)


@given(TEXTS)
def test_a_text_finds_itself_in_capitals_and_in_other_company(text):
    terms = ENGLISH.terms(text)
    assert set(terms) <= set(ENGLISH.terms(f"{text} and {text}"))
    if text.isascii():
        inner = set(ENGLISH.terms(text.lower()))
        assert inner <= set(terms), "only camel case adds parts"


@given(st.from_regex(r"[A-Z]{2,5}-?[0-9]{1,5}(\.[0-9]{1,3}){0,2}", fullmatch=True))
def test_codes_are_terms(code):
    for language in ("en", "fr", None):
        assert code.lower() in Analysis(language).terms(f"Fehler {code}: see")


def test_a_very_long_word_is_cut_the_same_everywhere():
    word = "x1" * 10_000
    assert ENGLISH.terms(word) == [word[:MAX_TERM]]
    assert max(map(len, ENGLISH.terms("ab" * 5_000))) == MAX_TERM
    assert len(ENGLISH.terms("word " * 100_000)) == 100_000


def test_odd_characters_do_no_harm():
    for text in ("\ud800", "a\x00b", "\u202eabc", "👩‍👩‍👧", "\ufeff", "-", "_", "...", "++", "#", "_-_", "e\u0301" * 500):
        ENGLISH.terms(text)
        ENGLISH.query_terms(text)
    assert ENGLISH.terms("-- __ ++ ...") == []


def test_languages_are_recognised_by_most_texts():
    german = ["Der Bericht ist nicht für die Kunden.", "Wie wird das Gerät von den Nutzern gestartet?"]
    english = ["The report is not for the customers.", "How is the device started by the users of it?"]
    assert recognise(german) == "de"
    assert recognise([*english, *english, german[0]]) == "en"
    assert recognise([*english, *german]) is None
    assert recognise(["ORA-00942"]) is None
    assert recognise([]) is None
    assert recognise(["東京は日本の首都です"]) == "ja"


def test_unknown_languages_are_refused():
    with pytest.raises(StoreError, match="does not know the language 'english'. Give an ISO 639-1 code"):
        Analysis("english")


def test_without_pystemmer_the_error_says_what_to_install(monkeypatch):
    def missing(package, extra):
        raise MissingExtraError(package, extra)

    monkeypatch.setattr(module, "require", missing)
    with pytest.raises(MissingExtraError, match=r"deepmem-integrations\[words\]"):
        Analysis("en")
    assert Analysis("ja").terms("検索") == ["検索", "検", "索"], "what needs no stemmer needs no package"


def test_every_stemmer_is_used_where_pystemmer_has_it():
    import Stemmer

    for language, name in STEMMERS.items():
        analysis = Analysis(language)
        assert (Stemmer.version() in analysis.signature) == (name in Stemmer.algorithms())
        analysis.terms("abcdef ΑΒΓ где هذا")


def test_threads_share_an_analysis():
    analysis, words = Analysis("en"), [f"restart{chr(97 + i % 26)}ing" for i in range(2_000)]
    expected, failures = Analysis("en").terms(" ".join(words)), []

    def work():
        for _ in range(5):
            if copy.copy(analysis.terms(" ".join(words))) != expected:
                failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_cache_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_CACHED_WORDS", 10)
    analysis = Analysis("en")
    text = " ".join(f"word{number}" for number in range(100))
    assert analysis.terms(text) == ENGLISH.terms(text)
    assert len(analysis._cache) <= 10
