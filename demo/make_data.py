#!/usr/bin/env python3
"""Makes the data of `dure demo`: python3 demo/make_data.py [FOLDER].

Three houses get short messages about what is broken, and file each as a small JSON record with a
topic and an urgency. Writes FOLDER/{town,clinic,works}.jsonl (one site's training records each),
FOLDER/eval.jsonl (the federation's shared evaluation set) and FOLDER/{town,clinic,works}.held.jsonl
(what a site measures on, in its own process). The same bytes every time; nobody's real data.
"""
import json
import pathlib
import random
import re
import sys

import phrases

SYSTEM = '{"topic":"heating|water|power|access|noise|waste","urgency":"low|normal|high"}'
SIZES = {"town": 1050, "clinic": 1000, "works": 950}
HELD = 32          # records a site keeps for itself
SHARED = 64        # records of the shared set
MAX_WORDS = 20     # longer messages are drawn again: short records train faster
CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")


def expand(rng, text, lists):
    """Replaces choices and slots until none is left."""
    while True:
        text, choices = CHOICE.subn(lambda m: rng.choice(m.group(1).split("|")), text)
        text, slots = SLOT.subn(lambda m: rng.choice(lists[m.group(1)]), text)
        if not choices and not slots:
            return text


def misspell(rng, text):
    """One slip of the keyboard in a longer word, as in one message of nine."""
    words = text.split(" ")
    long = [i for i, w in enumerate(words) if len(w) > 5 and w.isalpha() and w.islower()]
    if not long or rng.random() > 1 / 9:
        return text
    i = rng.choice(long)
    word, at = words[i], rng.randrange(1, len(words[i]) - 2)
    words[i] = rng.choice([word[:at] + word[at + 1] + word[at] + word[at + 2:],
                           word[:at] + word[at + 1:], word[:at] + word[at] + word[at:]])
    return " ".join(words)


def sentence(rng, text, starts):
    """Most people begin a sentence with a capital."""
    return text[0].upper() + text[1:] if starts and rng.random() < 0.7 else text


def message(rng, site, topic, urgency):
    """One message whose topic and urgency a reader can tell, and the phrase it is made from."""
    kinds = {"high": ["severe", "severe", "plain"], "normal": ["plain"], "low": ["plain", "minor"]}
    kind = rng.choice(kinds[urgency])
    closings = {"severe": ["", ""] + site["high"] + site["urgent"], "minor": ["", ""] + site["low"],
                "plain": site["urgent"] if urgency == "high" else site[urgency]}
    opening, phrase = rng.choice(site["open"]), rng.choice(site[topic][kind])
    body = expand(rng, opening, site["lists"])
    body += sentence(rng, expand(rng, phrase, site["lists"]), not body or body[-2] in "!.")
    body = sentence(rng, body, True)
    closing = expand(rng, rng.choice(closings[kind]), site["lists"])
    end = rng.choice([".", ".", ".", "", "!" if urgency == "high" else "."])
    text = body + (end or ".") + " " + closing if closing else body + end
    sign = expand(rng, rng.choice(site["sign"]), site["lists"])
    if sign and text[-1] not in ".!?":
        text += "."
    return misspell(rng, text) + sign.replace("..", "."), phrase


def grams(text):
    """Every four words in a row."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {tuple(words[i:i + 4]) for i in range(len(words) - 3)}


def records(rng, site, n, mix, taken, learned=None):
    """n different messages in the site's mix of labels. With `learned`, the four-word runs of all
    that is trained on, they are for measuring: each shares none of them, and no phrase comes
    twice, so that each record counts for itself."""
    out, used = [], set()
    for _ in range(200 * n):
        topic = rng.choices(phrases.TOPICS, mix["topics"])[0]
        urgency = rng.choices(["high", "normal", "low"], mix["urgency"])[0]
        text, phrase = message(rng, site, topic, urgency)
        if text in taken or len(text.split()) > MAX_WORDS or (
                learned and (phrase in used or grams(text) & learned)):
            continue
        taken.add(text)
        used.add(phrase)
        out.append((text, {"topic": topic, "urgency": urgency}))
        if len(out) == n:
            return out
    raise SystemExit("the phrases do not make enough different messages")


def line(text, answer):
    reply = json.dumps(answer, separators=(",", ":"))
    conversation = [("system", SYSTEM), ("user", text), ("assistant", reply)]
    return json.dumps({"messages": [{"role": r, "content": c} for r, c in conversation]},
                      separators=(",", ":"), ensure_ascii=False) + "\n"


def main(folder):
    rng = random.Random("dure demo")
    taken, shared = set(), []
    for name, size in SIZES.items():
        rows = records(rng, phrases.TRAIN[name], size, phrases.MIX[name], taken)
        (folder / f"{name}.jsonl").write_text("".join(line(*r) for r in rows))
    learned = set().union(*map(grams, taken))
    for name in SIZES:
        test = phrases.TEST[name]
        rows = records(rng, test, HELD, phrases.MIX[name], taken, learned)
        (folder / f"{name}.held.jsonl").write_text("".join(line(*r) for r in rows))
        even = {"topics": [1] * 6, "urgency": [1] * 3}
        shared += records(rng, test, SHARED // 3 + 1, even, taken, learned)
    rng.shuffle(shared)
    (folder / "eval.jsonl").write_text("".join(line(*r) for r in shared[:SHARED]))


main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
