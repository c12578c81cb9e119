"""Dure's verifier and verify_ledger.py on the export of a real federation and on every tampered
copy of it: both must catch the copy and name the same entries, those that were touched.

    ledger_parity.py DURE DIR     DIR was written by test_cli_audit_copies --write
"""
import json
import pathlib
import subprocess
import sys


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, json.loads(done.stdout)


def both(dure, directory, file, extra):
    other = [sys.executable, str(pathlib.Path(__file__).with_name("verify_ledger.py"))]
    return (run([dure, "audit", "verify", str(directory / file), "--json"] + extra),
            run(other + [str(directory / file)] + extra))


def compare_good(dure, directory, root):
    extra = ["--root", root, "--checkpoint", str(directory / "checkpoint")]
    (status, first), (other_status, second) = both(dure, directory, "whole.dure", extra)
    assert status == other_status == 0, (first, second)
    assert first["entries"] == second["entries"]
    assert first["shown_entries"] == second["shown_entries"]
    assert first["shown_time"] == second["shown_time"] is not None
    ours = {s["name"]: s for s in first["sites"]}
    for s in second["sites"]:
        o = ours.pop(s["name"])
        assert o["steps"] == s["steps"] and abs(o["delta"] / s["delta"] - 1) < 1e-12, (o, s)
        assert abs(o["epsilon_rdp"] / s["epsilon_rdp"] - 1) < 1e-9, (o, s)
        assert 0 < o["epsilon"] <= 1.001 * s["epsilon_rdp"], (o, s)
        print("%-8s epsilon %.6f, by Renyi %.12f and %.12f" % (
            s["name"], o["epsilon"], o["epsilon_rdp"], s["epsilon_rdp"]))
    assert not ours, ours


def compare_site_ledger(directory):
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import verify_ledger
    data = (directory / "site-ledger").read_bytes()
    lines, states = verify_ledger.check_site_ledger(data)
    assert lines == data.count(b"\n") and list(states.values()) == ["spent"], states
    for at in range(0, len(data), 37):
        if data[at] == 10:
            continue
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        try:
            verify_ledger.check_site_ledger(changed)
        except verify_ledger.Wrong:
            continue
        raise AssertionError("a changed byte at %d was not noticed" % at)
    print("the site's ledger: %d lines, a changed byte is noticed" % lines)


def compare_copies(dure, directory, expected):
    wrong = 0
    for copy in expected["copies"]:
        extra = []
        if copy["with_checkpoint"]:
            extra += ["--checkpoint", str(directory / "checkpoint")]
        if copy["with_root"]:
            extra += ["--root", expected["root"]]
        named = []
        for status, found in both(dure, directory, copy["file"], extra):
            entry = -1 if found.get("entry") is None else found["entry"]
            last = -1 if found.get("last_entry") is None else found["last_entry"]
            named.append((status, entry, last, found.get("checkpoint") or 0))
        want = (1, copy["entry"], copy["last_entry"], copy["checkpoint"])
        if named != [want, want]:
            wrong += 1
            print("DIFFERENT %s: expected %s, dure %s, python %s" % (copy["name"], want, *named))
    print("%d copies, %d not named alike" % (len(expected["copies"]), wrong))
    assert not wrong and len(expected["copies"]) >= 40


def main(dure, directory):
    expected = json.loads((directory / "expected.json").read_text())
    compare_good(dure, directory, expected["root"])
    compare_site_ledger(directory)
    compare_copies(dure, directory, expected)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
