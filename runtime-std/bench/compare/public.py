#!/usr/bin/env python3
"""Lists public items of core that nothing outside of it names: functions, types, constants, modules.

    python3 public.py [REPOSITORY]

Reads words, not meaning: an item counts as used where a file outside of `core/src` has its name as a
word in code (comments are left out), so a name that two items share is used if one is. Says for each
item its file, line, kind and name, and who names it all the same: an exported macro of core (behind
`$crate`), core's own tests, benches, or nobody. `pub(crate)` items and what lies in `mod tests` are
not public. An item of a private module that nothing passes on is not public either; this does not
see that and lists it: it can be `pub(crate)`.
"""

import pathlib
import re
import sys

ITEM = re.compile(
    r"^\s*pub (?:const )?(?:unsafe )?(?:extern \"C\" )?(fn|struct|enum|union|trait|type|const|static|mod)\s+(?:mut )?([A-Za-z_]\w*)"
)
MACRO = re.compile(r"^\s*macro_rules!\s+(\w+)")


def code(path):
    """A file's lines without comments."""
    return [re.sub(r"//.*", "", line) for line in path.read_text().splitlines()]


def words(paths):
    return {word for path in paths for line in code(path) for word in re.findall(r"\w+", line)}


def items(path):
    """Line, kind and name of each public item before the file's tests."""
    lines = code(path)
    for number, line in enumerate(lines, 1):
        if line.startswith("mod tests"):
            return
        found = ITEM.match(line)
        if found:
            yield number, found[1], found[2]
        found = MACRO.match(line)
        if found and any("macro_export" in before for before in lines[max(0, number - 4) : number]):
            yield number, "macro", found[1]


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    sources = sorted((root / "core" / "src").rglob("*.rs"))
    if not sources:
        sys.exit(f"{root} has no core/src")
    rest = [path for path in root.rglob("*.rs") if "target" not in path.relative_to(root).parts and path not in set(sources)]
    own = [path for path in rest if path.relative_to(root).parts[0] == "core"]
    bench = [path for path in rest if path.relative_to(root).parts[:2] == ("runtime-std", "bench")]
    used = words(set(rest) - set(own) - set(bench))
    tests, benches = words(own), words(bench)
    macros = {word for path in sources for line in code(path) for part in line.split("$crate")[1:] for word in re.findall(r"\w+", part)}
    total, unused = 0, 0
    for path in sources:
        for number, kind, name in items(path):
            total += 1
            if name in used:
                continue
            unused += 1
            namers = (("a macro", macros), ("core's tests", tests), ("benches", benches))
            by = [label for label, names in namers if name in names]
            print(f"{path.relative_to(root)}:{number} {kind} {name}: {' and '.join(by) or 'nobody'}")
    print(f"{total} public items, {unused} of which no other crate names")


if __name__ == "__main__":
    main()
