"""Scores of public implementations on 200 pairs of texts, for the metrics of a text_similarity grader.

    python test/golden/similarity.py

Made with rapidfuzz 3.14.6, sacrebleu 2.6.0, nltk 3.10.4, rouge-score 0.1.2. Writes fixtures/similarity.json:
    [{input, reference, fuzzy_match, bleu, gleu, meteor, rouge_1 … rouge_5, rouge_l, rouge_1_ascii}]

Where a package leaves something open, or asks for what the product does not have:
    fuzzy_match is rapidfuzz.fuzz.ratio / 100; bleu is sacrebleu's sentence_bleu / 100, all defaults;
    gleu and meteor get the words of nltk's wordpunct_tokenize; meteor knows no synonyms (its WordNet is empty);
    rouge has words of every script (rouge-score's own keep a-z and 0-9 alone; rouge_1_ascii is by those).
The pairs are drawn with a fixed seed from sentences written here: edited, shuffled, cut, in several scripts, empty.
"""

import json
import random
import re
from pathlib import Path

from nltk.stem.porter import PorterStemmer
from nltk.tokenize import wordpunct_tokenize
from nltk.translate.gleu_score import sentence_gleu
from nltk.translate.meteor_score import single_meteor_score
from rapidfuzz import fuzz
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu

SENTENCES = [
    "The card was declined although there is enough money in the account.",
    "Please cancel my standing order for the rent before the first of March.",
    "I tried paying twice, and both payments are pending; the shop says it received nothing!",
    "How do I change the address that's printed on my statements?",
    "Transfers to accounts abroad usually arrive within three to five working days.",
    "She carefully compared the two contracts and found fourteen differences.",
    "The committee's relational databases were normalized, organized and finally abandoned.",
    "Conditional approvals are rationally weighed against operational hesitancy.",
    "Running, jumping and flying kites are happily enjoyed by the easily amused.",
    "Prices rose 3.5% to $1,234.56 in 2024-2025 (up from $1,192.81).",
    "An e-mail to support@example.com costs nothing & takes 2 minutes; \"really\"?",
    "It is a guide to action which ensures that the military always obeys the commands of the party.",
    "It is to insure the troops forever hearing the activity guidebook that party direct.",
    "He adopted the dying skies, lying about news and succeeding innings.",
    "The geologist's apologies were graciously accepted; sensibilities remained controlled and rolled.",
    "Die Überweisung wurde am Dienstag ausgeführt, kam aber erst Freitag an.",
    "La carte a été refusée à l'étranger, malgré un solde suffisant.",
    "Платёж ещё не поступил на счёт получателя.",
    "你好,我的银行卡在商店里被拒绝了。",
    "カードが店で使えませんでした。",
    "Το ποσό δεν εμφανίζεται στον λογαριασμό μου.",
    "😀 Thanks a lot!! 👍👍 all good now…",
    "the the the the the the the",
    "a",
    "",
    "   ",
    "...",
    "42",
    "Yes.",
    "no_underscore is here, snake_case_names are kept or cut",
]


class Words:
    """Runs of letters and digits of any script."""

    def tokenize(self, text):
        return re.findall(r"[^\W_]+", text.lower())


class NoSynonyms:
    def synsets(self, word):
        return []


ROUGES = ["rouge1", "rouge2", "rouge3", "rouge4", "rouge5", "rougeL"]
UNICODE = RougeScorer(ROUGES, tokenizer=Words())
ASCII = RougeScorer(["rouge1"])


def edited(text, draw):
    words = text.split()
    for _ in range(draw.randint(1, 4)):
        if not words:
            break
        at = draw.randrange(len(words))
        kind = draw.choice(["drop", "double", "swap", "upper", "typo", "insert"])
        if kind == "drop":
            del words[at]
        elif kind == "double":
            words.insert(at, words[at])
        elif kind == "swap":
            other = draw.randrange(len(words))
            words[at], words[other] = words[other], words[at]
        elif kind == "upper":
            words[at] = words[at].upper()
        elif kind == "typo" and len(words[at]) > 2:
            words[at] = words[at][1] + words[at][0] + words[at][2:]
        else:
            words.insert(at, draw.choice(["really", "cards", "compare", "dies", "12", "-"]))
    return " ".join(words)


def pairs(count=200):
    draw = random.Random(20)
    made = [(text, text) for text in SENTENCES]
    while len(made) < count:
        text = draw.choice(SENTENCES)
        kind = draw.choice(["edited", "edited", "other", "shuffled", "cut"])
        if kind == "edited":
            made.append((edited(text, draw), text))
        elif kind == "other":
            made.append((draw.choice(SENTENCES), text))
        elif kind == "cut":
            made.append((text[: draw.randint(0, len(text))], text))
        else:
            words = text.split()
            draw.shuffle(words)
            made.append((" ".join(words), text))
    return made


def scores(found, wanted):
    found_words, wanted_words = wordpunct_tokenize(found), wordpunct_tokenize(wanted)
    rouge = UNICODE.score(wanted, found)
    return {
        "input": found,
        "reference": wanted,
        "fuzzy_match": fuzz.ratio(found, wanted) / 100,
        "bleu": sentence_bleu(found, [wanted]).score / 100,
        "gleu": sentence_gleu([wanted_words], found_words),
        "meteor": single_meteor_score(wanted_words, found_words, stemmer=PorterStemmer(), wordnet=NoSynonyms()),
        **{name.replace("rouge", "rouge_").lower(): rouge[name].fmeasure for name in ROUGES},
        "rouge_1_ascii": ASCII.score(wanted, found)["rouge1"].fmeasure,
    }


STEMMED = """caresses ponies ties cats feed agreed plastered bled motoring sing conflated troubled sized hopping tanned
falling hissing fizzed failing filing happy sky enjoy spy relational conditional rational valency hesitancy digitizer
conformable radically differently vilely analogously vietnamization predication operator feudalism decisiveness
hopefulness callousness formality sensitivity sensibility triplicate formative formalize electricity electrical hopeful
goodness revival allowance inference airliner gyroscopic adjustable defensible irritant replacement adjustment dependent
adoption homologou communism activate angularity homologous effective bowdlerize probate rate cease controll roll dying
lying news innings howe proceed exceed died ties flies biology apology geology carefully fully syzygy yyyy oxen as be
queued queueing eyeing shyly gas bus this yes über straße"""


if __name__ == "__main__":
    folder = Path(__file__).parent / "fixtures"
    made = [scores(found, wanted) for found, wanted in pairs()]
    stems = {word: PorterStemmer().stem(word) for word in STEMMED.split()}
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in made)
    text = f'{{"stems": {json.dumps(stems, ensure_ascii=False)},\n"pairs": [\n{rows}\n]}}\n'
    (folder / "similarity.json").write_text(text)
