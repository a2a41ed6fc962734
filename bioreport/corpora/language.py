"""In which language a report is written: German, English or Swedish, as in PTB-XL, by its commonest words."""

import re

_WORDS = {
    "de": """
        sinusrhythmus linkstyp rechtstyp steiltyp indifferenztyp lagetyp überdrehter normales normale nicht
        und mit bei ohne oder der die das ist nachweisbar hinweis verdacht auf unauffällig linksschenkelblock
        rechtsschenkelblock schenkelblock vorhofflimmern vorhofflattern infarkt vorderwandinfarkt
        hinterwandinfarkt linkshypertrophie extrasystolen kammerextrasystolen niederspannung periphere
        pathologisch pathologisches erregungsrückbildung unspezifisch unspezifische veränderungen alter
        unbestätigter bericht schrittmacher
    """,
    "en": """
        sinus rhythm normal ecg ekg axis left right with and or the is of no not deviation bundle branch block
        atrial fibrillation flutter infarct infarction probable possible consider nonspecific non specific
        abnormal abnormality hypertrophy ventricular premature beats contractions prolonged interval waves
        changes low voltage otherwise unconfirmed report inferior anterior lateral old age undetermined
    """,
    "sv": """
        sinusrytm normalt vänster höger och med utan eller ej är den det förmaksflimmer förmaksfladder
        skänkelblock grenblock sannolikt möjlig misstänkt avvikande elaxel vänsterställd högerställd ospecifik
        ospecifika förändringar infarkt framväggsinfarkt diafragmal hypertrofi kammarkomplex t-vågor
        patologiskt patologisk hjärtfrekvens
    """,
}
_KNOWN = {code: frozenset(words.split()) for code, words in _WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def language_of(text: str) -> str | None:
    """``"de"``, ``"en"`` or ``"sv"``; None where no word, or as many words of two, say so."""
    words = _WORD.findall(text.lower())
    hits = sorted(((sum(w in known for w in words), code) for code, known in _KNOWN.items()), reverse=True)
    return hits[0][1] if hits[0][0] > hits[1][0] else None
