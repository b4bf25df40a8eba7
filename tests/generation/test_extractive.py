import pytest

from deepmem_integrations.generation import Extractive, Filters, QueryGenerator
from deepmem_integrations.generation.sources import Source

GUIDE = """\
# Setting up the pump

The pump is set up in an hour. Its owner needs a wrench and a level.

## Before the first use

Fill the tank with water. Then open the valve by half a turn! Does it leak? Tighten the two screws at the bottom."""
CODE = 'def pump(speed):\n    """Run the pump at a speed, in litres a minute.\n\n    Args: speed."""\n    return start(speed)'
REST = """\
Heating systems
===============

A heat pump takes heat from the outside air."""


def written(source, count, **options):
    generator = QueryGenerator(Extractive(), count, progress=False, **options)
    return [(query.kind, query.text) for query in generator.generate([source]).queries]


def test_the_best_comes_first():
    queries = written(Source("d", GUIDE, "Pump guide"), 6)
    assert queries[:4] == [
        ("title", "Pump guide"),
        ("heading", "Setting up the pump"),
        ("heading", "Before the first use"),
        ("first sentence", "The pump is set up in an hour."),
    ]
    rest = {"Its owner needs a wrench and a level.", "Fill the tank with water.", "Then open the valve by half a turn!"}
    rest |= {"Tighten the two screws at the bottom."}
    assert [kind for kind, _ in queries[4:]] == ["sentence", "sentence"]
    assert {text for _, text in queries[4:]} <= rest


def test_docstrings_and_underlined_headings():
    assert written(Source("d", CODE), 1) == [("summary", "Run the pump at a speed, in litres a minute.")]
    assert written(Source("d", REST), 2) == [
        ("heading", "Heating systems"),
        ("first sentence", "A heat pump takes heat from the outside air."),
    ]


def test_names_keep_their_underscores():
    text = "The _loop_ comes from `asyncio.get_event_loop` in __every__ thread."
    assert written(Source("d", text), 1) == [("first sentence", "The loop comes from asyncio.get_event_loop in every thread.")]


def test_the_seed_fixes_the_sentences():
    long = " ".join(f"Sentence number {row} says something of its own." for row in range(30))
    draws = [
        [q.text for q in QueryGenerator(Extractive(seed), 4, progress=False).generate([("d", long)]).queries]
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_it_has_the_same_interface_and_filters():
    labels = QueryGenerator(Extractive(), 2, progress=False)([("d", GUIDE), ("e", REST), ("f", "too short")])
    assert labels.labels == ((("d", 1.0),), (("d", 1.0),), (("e", 1.0),), (("e", 1.0),))
    assert labels.generated == (True,) * 4
    assert labels.left_out == {"document: too short": 1}
    copies = QueryGenerator(Extractive(), 6, progress=False, filters=Filters(copy=True)).generate([("d", GUIDE)])
    assert {one.filter for one in copies.rejected} == {"copy"}


@pytest.mark.parametrize(
    "sentences",
    [
        [
            "¿Cómo se deshace un cambio en git?",
            "Se usa el comando revert.",
            "¡Cuidado con la rama principal!",
            "«Nada se pierde aquí».",
        ],
        ["यह पंप एक घंटे में लगाया जाता है।", "इसके मालिक को एक रिंच चाहिए।", "टंकी को पानी से भरें!", "फिर वाल्व को आधा घुमाएँ।"],
        [
            "暖房用のポンプは一時間ほどで設置できます。",
            "「まずタンクに水を入れてください」。",
            "それからバルブを半分だけ開けてください！",
        ],
        ["يتم تركيب المضخة في غضون ساعة.", "هل يتسرب الماء من الخزان؟", "املأ الخزان بالماء أولا."],
        ["پمپ ایک گھنٹے میں لگایا جاتا ہے۔", "پہلے ٹینک کو پانی سے بھریں۔"],
        ["ፓምፑ በአንድ ሰዓት ውስጥ ይጫናል ማለት ነው።", "መጀመሪያ ታንኩን በውሃ መሙላት አለብህ።"],
        ["ပန့်ကို တစ်နာရီအတွင်း တပ်ဆင်နိုင်ပါသည်။", "ပထမဦးစွာ ကန်ကို ရေဖြည့်ပါ အားလုံး။"],
        ["Պոմպը տեղադրվում է մեկ ժամում։", "Նախ ջրով լցրեք բաքը։"],
        ["Насос ставят за час, т. е. быстро и без мастера.", "«Сначала налейте воду»!", "Затем откройте кран."],
        ['She said "Fill the tank first."', "Then she opened the valve (by half a turn).", "Élan vital is no word for it."],
    ],
    ids=["Spanish", "Hindi", "Japanese", "Arabic", "Urdu", "Amharic", "Burmese", "Armenian", "Russian", "English"],
)
def test_sentences_of_many_scripts(sentences):
    space = "" if "。" in sentences[0] else " "
    filters = Filters(language=False)
    queries = written(Source("d", space.join(sentences)), len(sentences), filters=filters)
    assert sorted(text for _, text in queries) == sorted(sentences)


def test_numbers_and_bullets_of_headings_and_lists_stay_out():
    text = (
        "## 1. Install the pump\n\n"
        + "2) Fill the tank with clean water.\n\n"
        + "• Open the valve by half a turn.\n\n3.11 brings faster loops to everybody."
    )
    assert {query for _, query in written(Source("d", text), 4)} == {
        "Install the pump",
        "Fill the tank with clean water.",
        "Open the valve by half a turn.",
        "3.11 brings faster loops to everybody.",
    }
