"""Sentences, in the world's scripts."""

import re

_CLOSING, _OPENING = "\"'”’»«“」』）】)\\]", "\"'“‘„«»¿¡「『（【(\\["
_TERMINATORS = (
    "։؝؞؟۔܀܁܂߹࠷࠹࠽࠾।॥།༎၊။።፧፨᙮᜵᜶។៕᠃᠉᥄᥅᪨᪩᪪᪫᭎᭏᭚᭛᭞᭟᭽᭾᭿᰻᰼᱾᱿‼‽⁇⁈⁉⳹⳺⳻⸮⸼⹓⹔⹠⹡。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫︒︕︖﹒﹖﹗！．？｡"
    "𐩖𐩗𐽕𐽖𐽗𐽘𐽙𐾆𐾇𐾈𐾉𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑏔𑏕𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑥄𑥆𑩂𑩃𑪛𑪜𑱁𑱂𑻷𑻸𑽃𑽄𖩮𖩯𖫵𖬷𖬸𖭄𖵮𖵯𖺘𛲟𝪈"
)
"""The characters with Unicode's property Sentence_Terminal (version 17) beyond ASCII, and Tibetan's shad. Many need no space."""
_SENTENCE_END = re.compile(
    rf"[.!?]+[{_CLOSING}]*\s+(?=[{_OPENING}]*(?P<next>[^\W\d_]))|[{_TERMINATORS}]+[.!?]*[{_CLOSING}]*\s*(?!\d)|\n{{2,}}"
)


def sentences_of(text: str) -> list[str]:
    """Split a text of any script into sentences, with the spaces behind them. After a full stop, a small letter goes on.

    Example:
        >>> sentences_of("Run git revert, e.g. now. 元に戻す。終わり")
        ['Run git revert, e.g. now. ', '元に戻す。', '終わり']
    """
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        if not (end["next"] or "").islower():
            sentences.append(text[start : end.end()])
            start = end.end()
    return [*sentences, text[start:]]
