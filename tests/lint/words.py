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
    (r"\b(TODO|FIXME|XXX|HACK)\b", LAYERS + ["cli", "bench", "tests"], {"tests/lint/words.py"}, "unfinished work"),
]


def main(root):
    errors = []
    for pattern, folders, exempt, why in BANS:
        expression = re.compile(pattern)
        for folder in folders:
            for path in sorted((root / folder).rglob("*")):
                name = str(path.relative_to(root))
                if path.suffix not in (".c", ".h", ".cu", ".py", ".sh") or name in exempt:
                    continue
                for number, line in enumerate(path.read_text().split("\n"), 1):
                    code = line.split("/*")[0]
                    if expression.search(code) and not line.lstrip().startswith("*"):
                        errors.append(f"{name}:{number}: {why}: {line.strip()[:80]}")
    print("\n".join(errors) or "no banned call or word")
    return 1 if errors else 0


sys.exit(main(pathlib.Path(sys.argv[1])))
