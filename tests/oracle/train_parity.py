"""`dure train` without privacy beside PEFT: the same start, the same records in the same order.

    train_parity.py MODEL.gguf DURE

A PEFT adapter on every matrix (LoRA, then DoRA; v has a rank of its own), with A and B drawn at
random, is trained for 20 steps with AdamW by both, from the folder that PEFT saved (`--init`). Dure runs in float32 and as the CPU likes best.
Prints every step's loss, and how far apart the adapters end: in float32 what is left is rounding;
in bfloat16 it is set beside how far 20 steps have moved them. Then TensorBoard reads Dure's event
files, one of which belongs to a run that was killed.
"""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gguf_model import load

RECORDS, BATCH, STEPS, RATE, SEED, RANK = 16, 4, 20, 1e-3, 7, 8
FLOAT32 = os.environ | {"DURE_MAX_CPU_ISA": "AVX2"}
MASK = (1 << 64) - 1


WORDS = ("apple river stone cloud garden window letter candle bridge winter market silver thunder "
         "pocket meadow harbor ribbon lantern copper velvet orchard puzzle island feather").split()


def records():
    """Answers of words drawn at random: no adapter learns them in 20 steps, so that the loss stays
    where a relative difference says something. One instruction and one raw text in eight."""
    draw = random.Random(5)
    out = []
    for i in range(RECORDS):
        words = " ".join(draw.choices(WORDS, k=16))
        if i % 8 == 6:
            out.append({"text": f"List {i}: {words}."})
        elif i % 8 == 7:
            out.append({"instruction": "Read out the list.", "input": f"number {i}", "output": words})
        else:
            out.append({"prompt": f"What is on list {i}?", "response": f"It has {words}."})
    return out


def conversation(record):
    if "instruction" in record:
        record = {"prompt": f"{record['instruction']}\n\n{record['input']}",
                  "response": record["output"]}
    return [{"role": "user", "content": record["prompt"]},
            {"role": "assistant", "content": record["response"]}]


def ids(dure, model, values, *flags):
    done = subprocess.run([dure, "data", "tokens", "--model", model, *flags], check=True, text=True,
                          input="".join(json.dumps(v) + "\n" for v in values), stdout=subprocess.PIPE)
    return [json.loads(line) for line in done.stdout.splitlines()]


def tokens_and_labels(dure, model, wanted):
    """What is learned: of a text all but its first token; of a conversation the answer and its end."""
    talks = [conversation(r) for r in wanted if "text" not in r]
    whole = iter(ids(dure, model, [{"messages": t} for t in talks]))
    heads = iter(ids(dure, model, [{"messages": t[:1]} for t in talks], "--open-answer"))
    answers = iter(ids(dure, model, [t[1]["content"] for t in talks]))
    texts = iter(ids(dure, model, [r["text"] for r in wanted if "text" in r]))
    out = []
    for record in wanted:
        if "text" in record:
            tokens = next(texts) + [0]
            out.append((tokens, [-100] + tokens[1:]))
            continue
        tokens, head, answer = next(whole), next(heads), next(answers)
        end = len(head) + len(answer) + 1  # with the token that closes the answer
        assert tokens[:end - 1] == head + answer
        out.append((tokens, [-100] * len(head) + tokens[len(head):end] + [-100] * (len(tokens) - end)))
    return out


def next_word(state):
    state = (state + 0x9E3779B97F4A7C15) & MASK
    z = state
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return state, z ^ z >> 31


def order(seed, epoch, n):
    """The order of an epoch, as client/trainer.c shuffles it."""
    state, word = next_word(seed)
    state = word ^ epoch
    out = list(range(n))
    for i in range(n, 1, -1):
        state, word = next_word(state)
        j = word * i >> 64
        out[i - 1], out[j] = out[j], out[i - 1]
    return out


def make_start(path, folder, dora):
    """Random A and small random B, so that every factor has a gradient from the first step on."""
    model, _ = load(path)
    peft = get_peft_model(model, LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
        use_dora=dora, rank_pattern={"v_proj": 2 * RANK},
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
    torch.manual_seed(3)
    for name, p in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.01)
    peft.save_pretrained(folder)


def train_with_peft(path, start, data, out):
    model = PeftModel.from_pretrained(load(path)[0], start, is_trainable=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    losses, batches = [], []
    for step in range(STEPS):
        at = range(step * BATCH, (step + 1) * BATCH)
        batches.append([order(SEED, i // RECORDS, RECORDS)[i % RECORDS] for i in at])
    for batch in batches:
        labels = sum(sum(v != -100 for v in data[i][1]) for i in batch)
        total = 0.0
        for i in batch:
            logits = model(torch.tensor([data[i][0]])).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(data[i][1][1:]),
                                                     ignore_index=-100, reduction="sum")
            (loss / labels).backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total / labels)
        print(f"\rPEFT: step {len(losses)} of {STEPS}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    model.save_pretrained(out)
    return losses


def train_with_dure(dure, path, start, data, out, env):
    done = subprocess.run(
        [dure, "train", "--model", path, "--data", data, "--init", start, "--no-dp", "--batch",
         str(BATCH), "--steps", str(STEPS), "--learning-rate", str(RATE), "--seed", str(SEED),
         "--out", out, "--json"], check=True, text=True, stdout=subprocess.PIPE, env=env)
    return [json.loads(line)["loss"] for line in done.stdout.splitlines()[:STEPS]]


def vector(folder):
    parts = load_file(f"{folder}/adapter_model.safetensors")
    return np.concatenate([parts[k].double().numpy().ravel() for k in sorted(parts)])


def compare_training(dure, path, work, kind):
    wanted = records()
    data = tokens_and_labels(dure, path, wanted)
    file = f"{work}/data.jsonl"
    pathlib.Path(file).write_text("".join(json.dumps(r) + "\n" for r in wanted))
    begin, end = f"{work}/start-{kind}", f"{work}/peft-{kind}"
    make_start(path, begin, kind == "DoRA")
    theirs = train_with_peft(path, begin, data, end)
    start, end = vector(begin), vector(end)
    good = True
    for name, env, most in (("float32", FLOAT32, 1e-3), ("the CPU's own", dict(os.environ), 1e-2)):
        out = f"{work}/{kind}-{name.split()[-1]}"
        ours = train_with_dure(dure, path, begin, file, out, env)
        apart = max(abs(a - b) / b for a, b in zip(ours, theirs))
        drift = np.linalg.norm(vector(out) - end) / np.linalg.norm(end - start)
        print(f"{kind}, {name}: {STEPS} steps, {RECORDS} records; loss {theirs[0]:.4f} to {theirs[-1]:.4f} "
              f"(PEFT), {ours[0]:.4f} to {ours[-1]:.4f} (Dure); largest difference {apart:.2e}; "
              f"adapters apart {drift:.2e} of the way they moved", flush=True)
        print("  step\tPEFT\tDure\n" + "".join(f"  {i + 1}\t{a:.6f}\t{b:.6f}\n"
                                               for i, (a, b) in enumerate(zip(theirs, ours))), end="")
        good &= apart < most
    return good


def compare_tensorboard(dure, path, work):
    """A run that is killed and taken up again: one curve, every step once."""
    steps = 12
    command = [dure, "train", "--model", path, "--data", f"{work}/data.jsonl", "--no-dp", "--steps",
               str(steps), "--batch", "2", "--eval", f"{work}/data.jsonl", "--eval-every", "4",
               "--sample-prompt", "What is 1 plus 1?", "--sample-tokens", "8", "--save-every", "2",
               "--tensorboard", f"{work}/board", "--log", f"{work}/log", "--out", f"{work}/a", "--json"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for _ in range(5):
        first.stdout.readline()
    first.kill()
    first.wait()
    time.sleep(1.1)  # the files are named by the second
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    events = EventAccumulator(f"{work}/board")
    events.Reload()
    log = [json.loads(line) for line in open(f"{work}/log")][1:]
    want = {"train/loss": {r["step"]: r["loss"] for r in log},
            "train/learning_rate": {r["step"]: r["learning_rate"] for r in log},
            "train/gradient_norm": {r["step"]: r["gradient_norm"] for r in log},
            "eval/loss": {r["step"]: r["eval_loss"] for r in log if "eval_loss" in r}}
    good = [r["step"] for r in log] == list(range(1, steps + 1))
    for tag, values in want.items():
        scalars = events.Scalars(tag)
        good &= [s.step for s in scalars] == sorted(values)
        good &= all(abs(s.value - values[s.step]) <= 1e-6 * abs(values[s.step]) for s in scalars)
    samples = [(t.step, t.tensor_proto.string_val[0].decode()) for t in events.Tensors("sample")]
    good &= samples == [(r["step"], r["sample"]) for r in log if "sample" in r]
    print(f"TensorBoard reads {sum(map(len, want.values()))} scalars and {len(samples)} samples of a "
          f"run that was killed once: {'as logged' if good else 'NOT as logged'}")
    return good


def main():
    path, dure = sys.argv[1:3]
    work = tempfile.mkdtemp()
    try:
        good = compare_training(dure, path, work, "LoRA")
        good &= compare_training(dure, path, work, "DoRA")
        good &= compare_tensorboard(dure, path, work)
    finally:
        shutil.rmtree(work)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
