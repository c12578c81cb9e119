"""The `openai` Python package, as it is, against `dure serve`.

    python openai_client.py DURE_BINARY MODEL.gguf

Starts a server on a free port with an API key and asks it what an application would: a chat, the
same chat streamed, log-probabilities, stop strings, errors as exception classes, several clients at
once, and what lm-evaluation-harness's local-completions sends. Needs: pip install openai
"""
import concurrent.futures
import json
import math
import os
import signal
import subprocess
import sys
import tempfile

import openai

KEY = "sk-oracle-0123456789abcdef"
QUESTION = [{"role": "user", "content": "Name the capital of France in one short sentence."}]


def start(dure, model, folder):
    keys = os.path.join(folder, "keys")
    with open(os.open(keys, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
        f.write(KEY + "\n")
    server = subprocess.Popen([dure, "serve", "--model", model, "--name", "base", "--listen",
                               "127.0.0.1:0", "--api-key-file", keys, "--json", "--slots", "3"],
                              stdout=subprocess.PIPE, text=True)
    url = json.loads(server.stdout.readline())["url"]
    return server, url


def check(name, condition):
    print(("ok      " if condition else "FAILED  ") + name)
    if not condition:
        raise SystemExit(1)


def raises(kind, code, call):
    try:
        call()
    except kind as error:
        return error.code == code
    return False


def chat(client, **more):
    options = dict(model="base", messages=QUESTION, temperature=0, max_tokens=32)
    options.update(more)
    return client.chat.completions.create(**options)


def check_chat(client):
    whole = chat(client)
    text = whole.choices[0].message.content
    print("        " + text)
    check("a chat names Paris", "Paris" in text)
    check("finish_reason", whole.choices[0].finish_reason in ("stop", "length"))
    usage = whole.usage
    check("usage adds up", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    joined = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check("the stream says the same", joined == text)
    check("the stream's usage is the same", chunks[-1].usage == usage)
    check("only the last chunk but one finishes",
          [c.choices[0].finish_reason for c in chunks if c.choices and
           c.choices[0].finish_reason] == [whole.choices[0].finish_reason])
    stop = text[len(text) // 2:len(text) // 2 + 3]
    cut = chat(client, stop=stop).choices[0]
    check("a stop string cuts", cut.message.content == text[:text.index(stop)] and
          cut.finish_reason == "stop")
    told = chat(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    check("log-probabilities of the answer",
          all(t.logprob <= 0 and len(t.top_logprobs) == 3 and
              abs(t.logprob - t.top_logprobs[0].logprob) < 1e-6 for t in told))
    korean = chat(client, temperature=1.2, seed=7, max_tokens=24, stream=True,
                  messages=[{"role": "user", "content": "한국어로 인사하세요. 😀"}])
    check("multi-byte characters arrive whole",
          all("\ufffd" not in (c.choices[0].delta.content or "") for c in list(korean)[:-2]
              if c.choices))


def check_errors(client, url):
    check("an unknown model", raises(openai.NotFoundError, "model_not_found",
                                     lambda: chat(client, model="gpt")))
    check("a full context", raises(openai.BadRequestError, "context_length_exceeded",
                                   lambda: chat(client, max_tokens=10**6)))
    check("n = 2", raises(openai.BadRequestError, None, lambda: chat(client, n=2)))
    stranger = openai.OpenAI(base_url=url + "/v1", api_key="sk-wrong", max_retries=0)
    check("a wrong key", raises(openai.AuthenticationError, "invalid_api_key",
                                stranger.models.list))


def check_scoring(client):
    """As lm_eval/models/openai_completions.py asks and reads (loglikelihood)."""
    text = "The capital of France is Paris"
    answer = client.completions.create(model="base", prompt=text, echo=True, logprobs=1,
                                       max_tokens=1, temperature=0, seed=1234)
    told = answer.choices[0].logprobs
    check("echo gives one log-probability a token", told.token_logprobs[0] is None and
          all(p <= 0 for p in told.token_logprobs[1:]))
    check("the text is echoed", answer.choices[0].text.startswith(text))
    check("offsets point into the text",
          all(answer.choices[0].text[o:].startswith(t)
              for o, t in zip(told.text_offset, told.tokens)))
    check("the likeliest is in front",
          all(max(top.values()) >= p - 1e-6
              for p, top in zip(told.token_logprobs[1:], told.top_logprobs[1:])))
    score = {}
    for city in ("Paris", "Madrid", "banana"):
        one = client.completions.create(model="base", prompt="The capital of France is " + city,
                                        echo=True, logprobs=1, max_tokens=0).choices[0].logprobs
        at = [o for o in one.text_offset if o >= len("The capital of France is")]
        score[city] = sum(one.token_logprobs[-len(at):])
    check("Paris is likelier than Madrid and banana",
          score["Paris"] > score["Madrid"] > score["banana"])
    two = client.completions.create(model="base", prompt=[[504, 3575], [504, 3575, 282]],
                                    max_tokens=2, temperature=0)
    check("a list of token lists", [c.index for c in two.choices] == [0, 1])
    check("values are finite", all(math.isfinite(v) for v in score.values()))


def check_many(client):
    alone = chat(client).choices[0].message.content
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        all_at_once = list(pool.map(lambda _: chat(client).choices[0].message.content, range(6)))
    check("six clients at once get what one gets", all(t == alone for t in all_at_once))


def main(dure, model):
    print(f"openai {openai.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        server, url = start(dure, model, folder)
        try:
            client = openai.OpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0, timeout=300)
            check("the list of models", [m.id for m in client.models.list()] == ["base"])
            check_chat(client)
            check_errors(client, url)
            check_scoring(client)
            check_many(client)
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(60)
        check("SIGTERM ends it with status 0", status == 0)
    return 0


sys.exit(main(sys.argv[1], sys.argv[2]))
