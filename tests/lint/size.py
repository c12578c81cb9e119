"""No .c file over 800 lines, no .h over 250, no function over 70 lines (tests' tables aside)."""
import pathlib
import re
import sys

FOLDERS = ("common crypto dp kernels proto model net ledger secagg federation registry client "
           "coordinator serve cli bench").split()


def functions(lines):
    """Yields (name, length) of every function whose braces open in the first column."""
    start = name = None
    for i, line in enumerate(lines):
        if line.startswith("{") and i and start is None:
            j = i - 1
            while j > 0 and lines[j][:1] in (" ", "\t"):
                j -= 1
            found = re.search(r"(\w+)\(", lines[j])
            start, name = j, found.group(1) if found else lines[j]
        elif line.startswith("}") and start is not None:
            yield name, i - start + 1
            start = None


def main(root):
    errors = []
    for folder in FOLDERS + ["tests"]:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".c", ".h", ".cu"):
                continue
            lines = path.read_text().split("\n")
            limit = 250 if path.suffix == ".h" else 800
            if len(lines) > limit:
                errors.append(f"{path.relative_to(root)}: {len(lines)} lines, at most {limit}")
            for name, n in functions(lines):
                if n > 70:
                    errors.append(f"{path.relative_to(root)}: {name} has {n} lines, at most 70")
    print("\n".join(errors) or "every file and function is within its limit")
    return 1 if errors else 0


sys.exit(main(pathlib.Path(sys.argv[1])))
