"""What is measured was not learned by heart: the evaluation sets share nothing with training.

Run as a test. Checks that the files are what make_data.py makes, that no phrase, name or place of
the word lists is in both halves, and that no message of an evaluation set shares four words in a
row with any training message, nor any record with another set.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

N = 4
SITES = ["town", "clinic", "works"]


def messages(path):
    rows = [json.loads(line)["messages"] for line in path.read_text().splitlines()]
    return [next(m["content"] for m in row if m["role"] == "user") for row in rows]


def grams(text):
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {tuple(words[i:i + N]) for i in range(len(words) - N + 1)}


def phrases_of(half):
    """Every phrase and every list entry of one half, in lower case."""
    phrases, names = set(), set()
    for site in half.values():
        for key, value in site.items():
            if key == "lists":
                names |= {entry.lower() for entries in value.values() for entry in entries}
            elif isinstance(value, dict):
                phrases |= {p.lower() for kind in value.values() for p in kind}
            else:
                phrases |= {p.strip().lower() for p in value if p.strip()}
    return phrases, names


def main(folder):
    errors = []
    with tempfile.TemporaryDirectory() as made:
        subprocess.run([sys.executable, folder / "make_data.py", made], check=True)
        for path in sorted(pathlib.Path(made).iterdir()):
            if path.read_bytes() != (folder / path.name).read_bytes():
                errors.append(f"{path.name} is not what make_data.py makes: run it again")
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    import phrases
    for a, b in zip(phrases_of(phrases.TRAIN), phrases_of(phrases.TEST)):
        errors += [f"in training and in the test phrases: {text!r}" for text in sorted(a & b)]
    train = [m for site in SITES for m in messages(folder / f"{site}.jsonl")]
    seen = {g for m in train for g in grams(m)}
    taken = set(train)
    tests = [folder / "eval.jsonl"] + [folder / f"{site}.held.jsonl" for site in SITES]
    for path in tests:
        for m in messages(path):
            if m in taken:
                errors.append(f"{path.name}: {m!r} is in another file too")
            taken.add(m)
            for gram in sorted(grams(m) & seen):
                errors.append(f"{path.name}: {' '.join(gram)!r} of {m!r} is in training")
    size = sum((folder / f"{site}.jsonl").stat().st_size for site in SITES)
    if size >= 1_000_000:
        errors.append(f"the three training files have {size} bytes together, 1,000,000 or more")
    print("\n".join(errors) or f"{len(train)} training messages, {len(taken) - len(train)} others, "
          f"no {N} words in a row in common")
    return 1 if errors else 0


sys.exit(main(pathlib.Path(sys.argv[1])))
