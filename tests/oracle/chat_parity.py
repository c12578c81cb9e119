"""Conversations as Dure renders them against transformers' apply_chat_template.

    python chat_parity.py DURE_BINARY MODEL.gguf [more.gguf ...] [--chats 2000] [--seed 1]

Used are ggml-vocab-llama-bpe.gguf and ggml-vocab-qwen2.gguf of llama.cpp's sources, and a Gemma 3
and a SmolLM2. The templates are those of tests/vectors/chat_templates: each is put into a copy of
the vocabulary, so that Dure has to recognise it. Compared are the text, the token ids, and that Dure refuses what Jinja raises on.

Known differences, each with a count below and a test of its own in test_chat_template.c:
an answer that begins with white space is encoded apart from its header; Llama's date is the
template's own, never today's.
Needs: pip install tokenizers transformers jinja2 gguf
"""
import argparse
import functools
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import unicodedata

from gguf import GGUFReader, GGUFValueType, GGUFWriter
from jinja2.exceptions import TemplateError
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast
from random_text import WORDS, check_version, random_text
from tokenizer_parity import MARKERS, compare, dure, reference

TEMPLATES = pathlib.Path(__file__).parent.parent / "vectors" / "chat_templates"
FAMILIES = {"chatml": "qwen2", "qwen2": "qwen2", "qwen2.5": "qwen2", "qwen3": "qwen2",
            "qwen3.later": "qwen2", "llama3": "llama-bpe", "llama3.1": "llama-bpe",
            "llama3.2": "llama-bpe", "gemma2": "gemma3", "gemma3": "gemma3", "smollm2": "SmolLM2"}
DATE = "26 Jul 2024"
CONTROL = 3


def vocabulary(models, name):
    return next((path for path in models if name in path.name), None)


def with_template(source, template, path):
    """A copy of the metadata with this chat template, without the tensors."""
    fields = GGUFReader(source).fields
    writer = GGUFWriter(path, fields["general.architecture"].contents())
    for key, field in fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "tokenizer.chat_template"):
            continue
        of = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=of)
    writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def piece_table(fields):
    """The bytes of each token."""
    printable = [b for b in range(256) if 33 <= b <= 126 or (b >= 161 and b != 173)]
    codes = {chr(b): b for b in printable}
    codes.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in printable)})
    byte_level = fields["tokenizer.ggml.model"].contents() == "gpt2"
    table = []
    for text, kind in zip(fields["tokenizer.ggml.tokens"].contents(),
                          fields["tokenizer.ggml.token_type"].contents()):
        if kind == 6:
            table.append(bytes([int(text[3:5], 16)]))
        elif kind != 1:
            table.append(text.encode())
        elif byte_level:
            table.append(bytes(codes[c] for c in text))
        else:
            table.append(text.replace("▁", " ").encode())
    return table


def as_encoded(text, fields, table):
    """The bytes of a text that its tokens can give back: a vocabulary may compose, lack bytes
    (SmolLM2 lacks some control characters), or take U+2581 for a space (SPM)."""
    if fields["tokenizer.ggml.model"].contents() == "llama":
        return text.replace("▁", " ").encode()
    if fields["tokenizer.ggml.pre"].contents() == "qwen2":
        text = unicodedata.normalize("NFC", text)
    single = {piece[0] for piece in table if len(piece) == 1}
    return bytes(b for b in text.encode() if b in single)


@functools.cache
def of_vocabulary(source):
    fields = GGUFReader(source).fields
    return fields, reference(fields)[0], piece_table(fields)


def wrapped(fields, made, template):
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    control = [t for t, kind in zip(tokens, types) if kind == CONTROL or t in MARKERS]
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    bos = tokens[fields["tokenizer.ggml.bos_token_id"].contents()]
    chat = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos)
    chat.chat_template = template
    return chat, control


def random_content(rng, control):
    if rng.random() < 0.1:
        return rng.choice(["", " ", "\n", "\n\n x", "x \n", "\u3000x\x1c", "\\n", "{{ x }}"])
    text = random_text(rng)
    if rng.random() < 0.15:
        text = rng.choice(["", "<think>\n", "y<think>"]) + text + rng.choice(
            ["</think>", "\n</think>\n\n", "\n</think>z</think>\n"]) + random_text(rng)
    if rng.random() < 0.05:
        text = "<tool_response>" + text + "</tool_response>"
    for special in control:  # Jinja's text would turn them into special tokens
        text = text.replace(special, "end")
    return text


def random_chat(rng, control):
    if rng.random() < 0.6:
        roles = ["system"] * (rng.random() < 0.5) + ["user", "assistant"] * rng.randrange(1, 4)
        roles = roles if rng.random() < 0.7 else roles[:-1]
    else:
        roles = [rng.choice(["system", "user", "assistant"]) for _ in range(rng.randrange(1, 6))]
    return [{"role": role, "content": random_content(rng, control)} for role in roles]


def render(chat, talk, opened):
    try:
        return chat.apply_chat_template(talk, tokenize=False, add_generation_prompt=opened,
                                        date_string=DATE)
    except TemplateError:
        return None


def refuses(binary, model, talk):
    line = json.dumps({"messages": talk}).encode()
    done = subprocess.run([binary, "data", "tokens", "--model", model], input=line,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return done.returncode == 1 and b"the chat template" in done.stderr


def check(name, args, source, model):
    rng = random.Random(args.seed)
    template = (TEMPLATES / f"{name}.jinja").read_text()
    fields, made, table = of_vocabulary(source)
    chat, every = wrapped(fields, made, template)
    control = [t for t in every if t in WORDS]
    wrong, apart, raised = 0, 0, []
    for opened in (False, True):
        talks, texts = [], []
        while len(talks) < args.chats:
            talk = random_chat(rng, control)
            text = render(chat, talk, opened)
            if text is None:
                raised.append(talk)
                continue
            talks.append(talk)
            texts.append(text)
        flags = ["--open-answer"] if opened else []
        got = dure(args.binary, model, [{"messages": talk} for talk in talks], *flags)
        wrong += compare(f"{name} text", talks, [b"".join(table[i] for i in ids) for ids in got],
                         [as_encoded(text, fields, table) for text in texts])
        joined = [i for i, t in enumerate(texts)
                  if not re.search(r"<\|im_start\|>assistant\n(?=\s)", t)]
        apart += len(texts) - len(joined)
        wrong += compare(f"{name} ids", [talks[i] for i in joined], [got[i] for i in joined],
                         [chat(texts[i], add_special_tokens=False).input_ids for i in joined])
    print(f"  {apart} have an answer that begins with white space; Jinja refused {len(raised)}")
    return wrong + sum(not refuses(args.binary, model, talk) for talk in raised[:20])


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("binary")
    args.add_argument("models", nargs="+", type=pathlib.Path)
    args.add_argument("--chats", type=int, default=2000)
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()
    check_version()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, vocab in FAMILIES.items():
            source = vocabulary(args.models, vocab)
            if not source:
                print(f"{name}\tSKIPPED: no {vocab} vocabulary is given")
                continue
            model = str(pathlib.Path(folder) / f"{name}.gguf")
            with_template(source, (TEMPLATES / f"{name}.jinja").read_text(), model)
            wrong += check(name, args, source, model)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
