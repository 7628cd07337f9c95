"""The language of an answer by its script, its letters and its commonest words; words in any script. Pure; light.

A judge must know whether it can read an answer before it says what it is. The packages for this
(lingua, langdetect, py3langid) guess among 55 to 97 languages and always name one: "I can't." is Catalan or Latin to
them as often as English, models of 1 to 100 MB decide it, and why is not to be seen. Answers here are one or more
sentences in a handful of languages, and the question is narrower: one of those that a judge covers, surely another, or
too little to tell. Common words answer that, and anybody can read and mend the lists.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

NOTHING = ""
"""Too little to tell by: a number, a name, code, a list of names"""
UNKNOWN = "und"
"""Prose in none of the languages that are known here (ISO 639's code for undetermined)"""

_SEEN = 4_000
"""Characters looked at; more tell nothing new"""
_PROSE = 8
"""Words in a sentence from which on a language must show in them"""
_SPACELESS = (  # Han, kana, Thai, Lao, Burmese, Khmer: scripts that put no space between words
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9f\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_MARKS = "\u0300-\u036f\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
"""Vowel signs and accents within a word, which ``\\w`` does not match"""
_WORD = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])(?:[^\W_]|[{_MARKS}]))+")

_OF_SCRIPT = {
    "hangul": "ko",
    **{"greek": "el", "hebrew": "he", "thai": "th", "bengali": "bn", "tamil": "ta", "telugu": "te"},
    **{"gujarati": "gu", "gurmukhi": "pa", "kannada": "kn", "malayalam": "ml", "georgian": "ka", "armenian": "hy"},
    **{"ethiopic": "am", "khmer": "km", "lao": "lo", "myanmar": "my", "sinhala": "si"},
}
_MARKED = {  # letters or words that tell a language from the usual one of its script, which comes first
    "cyrillic": (
        "ru",
        {
            "uk": r"[іїєґ]|\b(?:вибачте|але|що|це|цим|допомогти)\b",
            "bg": r"\b(?:съм|това|ще|не мога)\b",
            **{"sr": "[јљњђћџ]", "be": "ў", "kk": "[әғқңөұүһ]"},
        },
    ),
    "arabic": ("ar", {"ur": "[ٹڈڑںےہ]", "fa": "[پچژگی]"}),
    "devanagari": (
        "hi",
        {
            "mr": r"(?<!\S)(?:आहे|नाही|आणि|मला|मी)(?=[\s।.,!?]|$)",
            "ne": r"(?<!\S)(?:छ|छैन|गर्न|सक्दिन|हुन्छ)(?=[\s।.,!?]|$)",
        },
    ),
}  # fmt: skip
_COMMON = {
    "en": "the of and to a in is it you that he was for on are with as i his they be at this have from or had by "
    "not but what all were we when your can said there use an each which she do how their if will up about "
    "out many then them these so some her would make like him into has more no could my than been who its am "
    "i'm can't don't won't it's you're that's isn't cannot sorry please here",
    "de": "der die das und ist nicht ich sie es ein eine einen einem einer zu mit den dem des auf für von im wir "
    "kann auch sich bei oder wie aber als wenn nur noch nach aus um werden wird sind haben hat dass diese "
    "dieser dieses mein ihr ihnen dir du man keine kein leider helfen dabei zum zur am über hier bitte",
    "fr": "le la les et est pas je vous il elle un une des du de à en que qui dans pour sur avec ce cette ces ne au "
    "aux nous sont mais ou où comme plus par votre vos mon leur être avoir si tout faire peux peut suis "
    "désolé c'est j'ai n'est d'un d'une qu'il voici a comment contre cela ça",
    "es": "el la los las y es no un una de del en que por para con se su lo al como más pero sus le ya o este esta "
    "esto eso ese sí porque muy sin sobre también me hasta hay donde quien desde nos yo puedo puede lo siento "
    "usted son está tu mi aquí a voy va nadie algo todo todos esa cuando te ni ser hacer contra desde hacia "
    "ningún ninguna",
    "pt": "o a os as e é não um uma de do da dos das em no na que por para com se seu sua ao como mais mas ou isso "
    "isto esse este esta eu você foi ele ela são está muito também já nos posso pode lamento desculpe sem "
    "sobre até à aqui pelo pela vou vai ninguém contra algo tudo todos essa quando te ser fazer",
    "it": "il lo la gli le e è non un una di del della dei delle in che per con si su al come più ma anche o questo "
    "questa sono mi ti ci vi io posso può alla nel nella dal dalla ho hai mio suo tuo ecco dispiace a nessuno "
    "quando essere",
    "nl": "de het een en is niet ik je van in op te dat die met voor zijn er aan om ook als maar bij of uit dit "
    "naar kan wij ze hij heb heeft geen u deze door over nog wel mijn kunnen worden wordt helpen spijt",
    "sv": "och är inte jag det att en ett som på för med den till av har kan du om men vi de så från eller var hur "
    "min din ska mig dig här också",
    "da": "og er ikke jeg det at en et som på for med den til af har kan du om men vi de så fra eller var hvordan "
    "min din skal mig dig her også beklager hjælpe hjelpe av deg meg",
    "pl": "i w nie na się jest to z do że jak ale o co po tak za od przez czy dla ten ta być mogę może są ja ty "
    "przepraszam pomóc mi tym lub oraz",
    "cs": "a v na se je to že s z do o ale jak by si ve pro jsem tak nebo jako co po ne od není mohu můžu omlouvám "
    "vám nemohu pomoci být která který",
    "ro": "și în de la nu este o un pe cu că să a din pentru care mai sunt ce eu dar ca se al nu pot îmi pare rău "
    "acest această sau te vă",
    "hu": "a az és nem hogy egy is ez van de meg csak már ha mint ezt vagy de sajnálom tudok segíteni ami aki azt "
    "én lehet kell ebben",
    "fi": "ja on ei että se en hän oli ovat mutta kun niin kuin voi voin myös tai jos tämä minä sinä mitä olen ole "
    "anteeksi auttaa siitä pahoillani",
    "tr": "ve bir bu da de için ile ben sen ne çok ama gibi daha değil var yok mi olarak olan size bu üzgünüm "
    "yardımcı olamam kadar sonra her veya ya ki",
    "vi": "và là của có không tôi bạn một các cho được trong người này với để những đã khi như thể xin lỗi nhưng "
    "giúp điều về đó",
    "id": "dan yang di ini itu dengan untuk tidak dari dalam adalah saya anda akan ke pada bisa ada juga atau "
    "karena oleh dapat kami maaf membantu sebagai lebih hal tersebut",
    "ca": "el la els les i és no un una de del en que per amb se al com més però puc aquest aquesta això ho em "
    "sento ajudar són hi",
    "sw": "na ya wa ni kwa katika za la si hii hiyo kama lakini siwezi samahani yako wewe mimi kuwa cha vya hilo "
    "kukusaidia",
    "tl": "ang ng sa na mga ay at hindi ako ka ko mo ito para kung po ngunit may si maaari makakatulong pasensya",
}
_COMMON_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
_LETTERS = {  # of Latin scripts, each worth a common word
    **{"de": "ß", "es": "ñ¿¡", "pt": "ãõ", "pl": "łąężźśćń", "tr": "ışğ", "cs": "řůěčšž", "ro": "țșăţş", "hu": "őű"},
    **{"vi": "ơưđạảấầậắằặẹẻếềệọốồộớờợụủứừựỳ", "sv": "åäö", "da": "øæå", "fr": "êèœçù", "fi": "äö", "ca": "·"},
}
_LATIN_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The words of a text in any script, in its order; a character each in a script without spaces.

    Accents are composed (NFC), so that the same letter is the same word however it was typed.
    """
    return _WORD.findall(text if text.isascii() else unicodedata.normalize("NFC", text))


def language(text: str) -> str:
    """ISO 639 code of the language of `text`, `UNKNOWN` for prose in another than those above, `NOTHING`."""
    seen = text[:_SEEN]
    scripts = _scripts(seen)
    if not scripts:
        return NOTHING
    script = scripts.most_common(1)[0][0]
    if script == "latin":
        return _latin(seen)
    if script in ("cjk", "hiragana", "katakana"):
        kana, han = scripts["hiragana"] + scripts["katakana"], scripts["cjk"]
        return "ja" if kana > 0.1 * (kana + han) else "zh"
    if script in _MARKED:
        usual, others = _MARKED[script]
        found = {code: len(re.findall(marks, seen.lower())) for code, marks in others.items()}
        best = max(found, key=lambda code: found[code])
        # a borrowed name brings a strange letter or two; a language's own come in every sentence
        return best if found[best] >= max(2, len(seen) / 60) else usual
    return _OF_SCRIPT.get(script, UNKNOWN)


def _scripts(text: str) -> Counter[str]:
    """Letters by script; one that is a syllable or a word counts as three."""
    found: Counter[str] = Counter()
    for letter, times in Counter(filter(str.isalpha, text)).items():
        script = "latin" if letter.isascii() else unicodedata.name(letter, "unknown").split()[0].lower()
        script = {"fullwidth": "latin", "halfwidth": "katakana", "ideographic": "cjk", "feminine": "latin"}.get(
            script, script
        )
        found[script] += times * (3 if script in ("cjk", "hiragana", "katakana", "hangul") else 1)
    return found


def _latin(text: str) -> str:
    low = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    said = _LATIN_WORD.findall(low)
    score = {language: sum(word in common for word in said) for language, common in _COMMON_WORDS.items()}
    for code, letters in _LETTERS.items():
        score[code] += sum(low.count(letter) for letter in letters)
    best = max(score, key=lambda code: score[code])  # English first where two are equal
    if not any(len(word) > 1 and word in _COMMON_WORDS[best] for word in said):  # a, b, c and d are no Portuguese
        score[best] = min(score[best], 1)
    if score[best] >= 2 and score[best] >= 0.1 * len(said):
        return best
    prose = sum(n for part in re.split(r"[^\w\s'’-]|\n", low) if (n := len(_LATIN_WORD.findall(part))) > 4)
    return UNKNOWN if prose >= _PROSE and score["en"] < 0.06 * len(said) else (best if score[best] >= 2 else NOTHING)
