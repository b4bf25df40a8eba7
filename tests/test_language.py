import pytest

from deepmem_integrations._language import language_of


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "What is the share of revenue that was paid in 2019?"),
        ("de", "Wie hoch ist der Anteil und warum wird er nicht gezahlt?"),
        ("fr", "Quelle est la part des ventes dans le total et pourquoi ?"),
        ("es", "¿Cuál es el plazo para la entrega y cómo se paga por adelantado?"),
        ("it", "Come si fa il pagamento della fattura e quando è dovuto?"),
        ("pt", "Qual é o prazo para o pagamento e como não pagar uma multa?"),
        ("nl", "Wat is het percentage van de omzet en waarom wordt het niet betaald?"),
        ("pl", "Jaki jest termin płatności i czy można go zmienić dla firmy?"),
        ("sv", "Hur lång är garantin och vad är det som inte ingår i den?"),
        ("tr", "Garanti süresi ne kadar ve bunun için hangi belge gerekli?"),
        ("ru", "Какой срок гарантии и что для этого нужно?"),
        ("uk", "Який термін гарантії та що для цього треба?"),
        ("el", "Ποια είναι η διάρκεια της εγγύησης;"),
        ("ja", "保証期間はどのくらいですか"),
        ("zh", "保修期是多长时间"),
        ("ko", "보증 기간은 얼마나 되나요"),
        ("ar", "ما هي مدة الضمان"),
        (None, "EBITDA 2019 Q3"),
        (None, "heat pump warranty"),
        (None, "2019 2018 %"),
        (None, ""),
    ],
)
def test_a_language_is_named_on_evidence_alone(code, text):
    assert language_of(text) == code
