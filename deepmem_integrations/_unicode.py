"""Texts that UTF-8 cannot hold, because half of a surrogate pair stands in them: readers of PDF and escapes in JSON do so."""


def well_formed(text: str) -> str:
    r"""Return a text that UTF-8 can hold: halves of surrogate pairs are joined, and a lone half becomes U+FFFD.

    Example:
        >>> well_formed("half \ud83d, whole \ud83d\ude00")
        'half �, whole 😀'
    """
    return text if text.isprintable() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
