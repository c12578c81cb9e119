"""Every test that docs/attacks.md names is there, in the program that it names."""
import pathlib
import re
import sys


def programs(root):
    """Maps the name of each dure_test() to the text of its sources."""
    found = {}
    for cmake in (root / "tests").rglob("CMakeLists.txt"):
        for name, rest in re.findall(r"dure_test\((\S+)\s+SOURCES\s+([^)]*)\)", cmake.read_text()):
            files = [cmake.parent / word for word in rest.split() if word.endswith(".c")]
            found[name] = "".join(file.read_text() for file in files if file.exists())
    return found


def main(root):
    errors, known, n = [], programs(root), 0
    for line in (root / "docs" / "attacks.md").read_text().split("\n"):
        cells = line.strip("|").split("|") if line.startswith("|") else []
        if len(cells) < 4 or "test" == cells[-1].strip() or "---" in cells[-1]:
            continue
        for part in cells[-1].split(";"):
            program, _, names = part.strip().partition(": ")
            for name in re.findall(r"\w+", names):
                n += 1
                if f"void {name}(" not in known.get(program, ""):
                    errors.append(f"docs/attacks.md: {program} has no {name}")
    if n < 50:
        errors.append(f"docs/attacks.md: only {n} tests are named; is the table in its old form?")
    print("\n".join(errors) or f"all {n} tests of the table are there")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
