"""Token ids of Dure against the `tokenizers` library, and its chats against transformers' Jinja.

    python tokenizer_parity.py DURE_BINARY MODEL.gguf [--texts 10000] [--chats 2000] [--seed 1]

Both references are built from the vocabulary, merges and template inside the same GGUF. Texts mix
languages, emoji, digits, white space and random code points assigned in Unicode 14 (Python 3.11
carries exactly that version). Needs: pip install tokenizers transformers jinja2 gguf

The one known difference is not sampled and has a case of its own below: an answer that begins with
white space is encoded apart from its header (model/chat_template.h says why).
"""
import argparse
import json
import random
import subprocess
import sys
import unicodedata

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ("the The don't I'll we've you're it's he'd I'm 'S 't's O'Reilly naïve café Straße "
         "안녕하세요 개인정보 연합학습 모델을 서울특별시 훈민정음 ㄱㄴㄷ 漢字 東京 こんにちは カタカナ "
         "Привет мир γλώσσα שלום مرحبا नमस्ते ภาษาไทย 0 7 42 2024 1,234.56 ½ Ⅷ ² ① ٣٤ 한글2024년 "
         "foo_bar fooBar() x=y+1; </s> <|im_end|> <|endoftext|> {'a': [1, 2]} https://a.b/c?d=e#f "
         "😀 👩‍👩‍👧‍👦 🇰🇷 ❤️ 🏳️‍🌈 e\u0301 \u200b \ufeff \u00ad … — “q” #tag @me $5 100% \\n").split(" ")
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\t", " \n", "\r\n", "\u00a0", "\u3000", "\u2028",
          "\u0085", "\u1680", "\x0b", "\x1c", "", "    "]
ASSIGNED = [c for c in range(0x110000)
            if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]


def random_text(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return "".join(chr(rng.choice(ASSIGNED)) for _ in range(rng.randrange(0, 40)))
    if kind == 1:
        return "".join(chr(rng.randrange(0, 0x250)) for _ in range(rng.randrange(0, 60)))
    parts = []
    for _ in range(rng.randrange(0, 30)):
        parts.append(rng.choice(WORDS) if rng.random() < 0.8 else chr(rng.choice(ASSIGNED)))
        parts.append(rng.choice(SPACES) if rng.random() < 0.4 else " ")
    text = "".join(parts)
    return text * rng.randrange(2, 40) if kind == 2 and rng.random() < 0.05 else text


def reference(fields):
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    plain = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    plain.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    plain.decoder = decoders.ByteLevel()
    chat = Tokenizer.from_str(plain.to_str())
    chat.add_special_tokens([AddedToken(t, special=True, normalized=False)
                             for t, kind in zip(tokens, types) if kind == 3])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=chat)
    wrapped.chat_template = fields["tokenizer.chat_template"].contents()
    return plain, wrapped


def dure(binary, model, lines, *flags):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([binary, "data", "tokens", "--model", model, *flags], input=text.encode(),
                          stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(what, inputs, got, wanted):
    wrong = [(i, g, w) for i, g, w in zip(inputs, got, wanted) if g != w]
    print(f"{what}\t{len(inputs)} compared\t{sum(map(len, wanted))} tokens\t{len(wrong)} differ")
    for item, g, w in wrong[:5]:
        print(f"  {item!r}\n    dure      {g}\n    reference {w}", file=sys.stderr)
    return len(wrong) + abs(len(got) - len(wanted))


def random_chat(rng):
    def content(answer):
        text = random_text(rng)
        for special in ("<|im_end|>", "<|endoftext|>"):
            text = text.replace(special, "end")  # Jinja would turn them into special tokens
        return text.lstrip() if answer else text
    chat = [{"role": "system", "content": content(False)}] if rng.random() < 0.5 else []
    for _ in range(rng.randrange(1, 5)):
        chat += [{"role": "user", "content": content(False)},
                 {"role": "assistant", "content": content(True)}]
    return chat if rng.random() < 0.5 else chat[:-1]


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("binary")
    args.add_argument("model")
    args.add_argument("--texts", type=int, default=10000)
    args.add_argument("--chats", type=int, default=2000)
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()
    assert unicodedata.unidata_version == "14.0.0", "run it with Python 3.11"
    rng = random.Random(args.seed)
    plain, wrapped = reference(GGUFReader(args.model).fields)

    texts = [random_text(rng) for _ in range(args.texts)]
    texts += [" " * 5000, "a" * 20000, "\n" * 3000, "ab" * 9000 + "1" * 500, ""]
    wrong = compare("texts", texts, dure(args.binary, args.model, texts),
                    [plain.encode(t).ids for t in texts])

    chats = [random_chat(rng) for _ in range(args.chats)]
    records = [{"messages": chat} for chat in chats]
    for flags, opened in (((), False), (("--open-answer",), True)):
        wanted = [wrapped.apply_chat_template(c, add_generation_prompt=opened, tokenize=True,
                                              return_dict=False) for c in chats]
        wrong += compare("chats, answer opened" if opened else "chats", chats,
                         dure(args.binary, args.model, records, *flags), wanted)

    opened = dure(args.binary, args.model, [{"messages": chats[0][:1]}], "--open-answer")[0]
    answered = dure(args.binary, args.model,
                    [{"messages": chats[0][:1] + [{"role": "assistant", "content": "\n\n x"}]}])[0]
    if answered[:len(opened)] != opened:
        print("what a generation starts from is not a prefix of what is trained", file=sys.stderr)
        wrong += 1
    return 1 if wrong else 0


sys.exit(main())
