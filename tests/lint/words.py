"""Calls that have no place in a layer, and words that mark unfinished work."""
import pathlib
import re
import sys

LAYERS = ("common crypto dp kernels proto model net ledger secagg federation registry client "
          "coordinator serve").split()
# (pattern, folders it is banned in, files that are exempt, why)
BANS = [
    (r"\b(exit|abort|_exit)\s*\(", LAYERS, {"common/err.c"}, "only cli/ ends the process"),
    (r"\b(printf|puts|putchar|perror)\s*\(", LAYERS, set(), "only cli/ prints"),
    (r"\bfprintf\s*\(\s*std(out|err)", LAYERS, {"common/err.c"}, "only cli/ prints"),
    (r"\b(strcpy|strcat|sprintf|gets|strtok|atoi|atof)\s*\(", LAYERS + ["cli"], set(), "unbounded or unchecked"),
    (r"\b(rand|srand|random|drand48)\s*\(\s*\)", LAYERS + ["cli"], set(), "not a generator to rely on"),
    (r"\bmemcmp\s*\(", ["crypto", "secagg", "net", "ledger", "federation"], set(), "use dure_ct_equal"),
]
# The same for any line, comments and pages among them.
WORDS = [
    (r"\b(TODO|FIXME|XXX|HACK)\b", "unfinished work"),
    (r"\b[Dd]ecision \d", "no page here numbers decisions: give the reason"),
]


def lines_of(root, folders, suffixes, exempt=()):
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            name = str(path.relative_to(root))
            if path.suffix in suffixes and name not in exempt:
                for number, line in enumerate(path.read_text().split("\n"), 1):
                    yield f"{name}:{number}", line


def main(root):
    errors = []
    code_suffixes = (".c", ".h", ".cu", ".py", ".sh")
    for pattern, folders, exempt, why in BANS:
        expression = re.compile(pattern)
        for where, line in lines_of(root, folders, code_suffixes, exempt):
            if expression.search(line.split("/*")[0]) and not line.lstrip().startswith("*"):
                errors.append(f"{where}: {why}: {line.strip()[:80]}")
    everywhere = LAYERS + ["cli", "bench", "tests", "docs"]
    for where, line in lines_of(root, everywhere, code_suffixes + (".md",), {"tests/lint/words.py"}):
        for pattern, why in WORDS:
            if re.search(pattern, line):
                errors.append(f"{where}: {why}: {line.strip()[:80]}")
    print("\n".join(errors) or "no banned call or word")
    return 1 if errors else 0


sys.exit(main(pathlib.Path(sys.argv[1])))
