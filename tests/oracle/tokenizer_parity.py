"""Token ids of Dure against the `tokenizers` library, for each vocabulary named.

    python tokenizer_parity.py DURE_BINARY MODEL.gguf [more.gguf ...] [--texts 10000] [--seed 1]

The reference is built from the vocabulary, merges, scores and token types inside the same GGUF.
Needs: pip install tokenizers gguf
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import unicodedata

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from random_text import ASSIGNED, check_version, random_text

NORMAL, USER = 1, 4
# Control tokens to Dure whatever their type says: model/tokenizer_vocab.c.
MARKERS = {"<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|begin_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<start_of_turn>",
           "<end_of_turn>", "<|endoftext|>"}
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def splitter(name):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if name in ("llama-bpe", "qwen2"):
        rule = LLAMA3 if name == "llama-bpe" else LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
        return [pre_tokenizers.Split(Regex(rule), "isolated"), byte_level]
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return [gpt2] if name == "gpt-2" else [pre_tokenizers.Digits(individual_digits=True), gpt2]


def byte_level(fields, vocab):
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    name = fields["tokenizer.ggml.pre"].contents()
    made = Tokenizer(models.BPE(vocab, merges, ignore_merges=name == "llama-bpe"))
    made.pre_tokenizer = pre_tokenizers.Sequence(splitter(name))
    if name in ("qwen2", "command-r"):
        made.normalizer = normalizers.NFC()
    return made


def merges_of(vocab, scores):
    """As transformers turns a SentencePiece model into merges: every cut of every token."""
    found = []
    for token, score in scores.items():
        cuts = [(token[:i], token[i:]) for i in range(1, len(token))
                if token[:i] in scores and token[i:] in scores]
        cuts.sort(key=lambda cut: (vocab[cut[0]], vocab[cut[1]]))
        found += [(score, cut) for cut in cuts]
    found.sort(key=lambda f: (f[0], len(f[1][0]), len(f[1][1])), reverse=True)
    return [cut for _, cut in found]


def sentence_piece(fields, vocab, types):
    tokens = fields["tokenizer.ggml.tokens"].contents()
    every = fields["tokenizer.ggml.scores"].contents()
    scores = {t: s for t, s, kind in zip(tokens, every, types) if kind == NORMAL}
    made = Tokenizer(models.BPE(vocab, merges_of(vocab, scores), unk_token="<unk>", fuse_unk=True,
                                byte_fallback=True))
    prefix = "tokenizer.ggml.add_space_prefix"
    steps = [normalizers.Replace(" ", "▁")]
    if prefix not in fields or fields[prefix].contents():
        steps.insert(0, normalizers.Prepend("▁"))
    made.normalizer = normalizers.Sequence(steps)
    return made


def reference(fields):
    """The tokenizer, and the user-defined tokens that it finds in texts."""
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    vocab = {t: i for i, t in enumerate(tokens)}
    made = (byte_level(fields, vocab) if fields["tokenizer.ggml.model"].contents() == "gpt2"
            else sentence_piece(fields, vocab, types))
    user = [t for t, kind in zip(tokens, types) if kind == USER and t not in MARKERS]
    made.add_tokens([AddedToken(t, normalized=False) for t in user])
    return made, user


def expected(made, texts):
    """Ids of the reference. Its table for NFC is of Unicode 9: where that orders the marks of a
    later one differently, the text is composed by Unicode 14 first."""
    nfc, ids, later = made.normalizer, [], 0
    plain = Tokenizer.from_str(made.to_str())
    plain.normalizer = None
    for text in texts:
        ours = unicodedata.normalize("NFC", text)
        old = isinstance(nfc, normalizers.NFC) and nfc.normalize_str(text) != ours
        later += old
        ids.append((plain.encode(ours) if old else made.encode(text)).ids)
    if later:
        print(f"  {later} texts have marks that are newer than the reference's table for NFC")
    return ids


def dure(binary, model, lines, *flags):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([binary, "data", "tokens", "--model", model, *flags], input=text.encode(),
                          stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(what, inputs, got, wanted):
    assert len(got) == len(wanted) == len(inputs)
    wrong = [(i, g, w) for i, g, w in zip(inputs, got, wanted) if g != w]
    print(f"{what}\t{len(inputs)} compared\t{sum(map(len, wanted))} long\t{len(wrong)} differ",
          flush=True)
    for item, g, w in wrong[:5]:
        print(f"  {item!r}\n    dure      {g}\n    reference {w}", file=sys.stderr)
    return len(wrong)


def texts_for(rng, n, user):
    texts = [random_text(rng) for _ in range(n)]
    for i in range(0, n if user else 0, 10):
        cut = rng.randrange(len(texts[i]) + 1)
        texts[i] = texts[i][:cut] + rng.choice(user) + texts[i][cut:]
    texts += [" " * 5000, "a" * 20000, "\n" * 3000, "ab" * 9000 + "1" * 500, "한" * 9000, ""]
    texts += ["a'" + chr(c) + "b" for c in ASSIGNED]  # which letters end a contraction
    return texts


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("binary")
    args.add_argument("models", nargs="+")
    args.add_argument("--texts", type=int, default=10000)
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()
    check_version()
    wrong = 0
    for model in args.models:
        rng = random.Random(args.seed)
        made, user = reference(GGUFReader(model).fields)
        texts = texts_for(rng, args.texts, user)
        wrong += compare(pathlib.Path(model).name, texts, dure(args.binary, model, texts),
                         expected(made, texts))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
