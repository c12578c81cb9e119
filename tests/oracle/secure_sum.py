"""secure_sum.py PROGRAMS [peers]: bench/peers/secure_sum runs, with what is built in PROGRAMS.

Skipped where the kernel does not let a process' peak of memory be reset.

Without `peers` Dure's half alone. With it Flower's and NVFLARE's too, from a Python environment
inside DURE_ORACLE_VENV (made when missing): skipped, with the reason, where that is not named or
Flower cannot be installed. What the peers compute is checked by their programs; here, that the table is
whole and its ratios are those of its figures.
"""
import os
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "bench" / "peers" / "secure_sum"
SITES, ELEMENTS = 10, 150000
OURS = ["site seconds", "site seconds masking", "site bytes sent", "site bytes an element",
        "server seconds", "server seconds closing", "server mb"]


def table(programs, peers):
    """The head's columns, and the cells of each figure."""
    command = [SCRIPT, "--programs", programs, "--sites", str(SITES), "--dropped", "0", "--elements",
               str(ELEMENTS), "--rounds", "1", "--peers", *peers]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines() if not line.startswith("#")]
    return rows[0], {row[2]: row for row in rows[1:]}


def check(head, rows, peers):
    ours = head.index("dure")
    for figure in OURS:
        assert float(rows[figure][ours]) > 0, figure
    assert 3 <= float(rows["site bytes an element"][ours]) < 3.2
    for at, name in enumerate(head):
        if name not in peers:
            continue
        for figure in set(OURS) - {"site seconds masking", "server seconds closing"}:
            value, times = float(rows[figure][at]), float(rows[figure][at + 1])
            want = value / float(rows[figure][ours])
            assert abs(times - want) <= 0.006 + 0.001 * want, figure
        assert float(rows["site bytes an element"][at]) >= 8


def main():
    programs, peers = sys.argv[1], sys.argv[2:] and ["flower", "nvflare"]
    if not os.access("/proc/self/clear_refs", os.W_OK):
        print("SKIPPED: /proc/self/clear_refs cannot be written, so no peak of memory is measured")
        return 77
    if peers:
        if not os.environ.get("DURE_ORACLE_VENV"):
            print("SKIPPED: set DURE_ORACLE_VENV=FOLDER to run Flower and NVFLARE from there")
            return 77
        # Of their own: their packages ask for other versions than the other oracles'.
        os.environ["DURE_PEERS_VENV"] = os.environ["DURE_ORACLE_VENV"] + "/sums"
    head, rows = table(programs, peers)
    if peers and "flower" not in head:
        print("SKIPPED: flwr cannot be installed into DURE_ORACLE_VENV")
        return 77
    check(head, rows, peers)
    print(f"{len(rows)} figures of {' and '.join(name for name in head[4:] if name != 'times')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
