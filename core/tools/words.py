"""Refuses comments of Rust files that are wider than 100 columns, and doc summaries that are not a
noun phrase or a verb but a headless clause ("What is kept", "Whether it is").

    python3 core/tools/words.py FILE.rs...
"""

import re
import sys

WIDTH = 100
HEADLESS = re.compile(r"\s*//[/!] (What|Who|Whose|Whether|Where|Which|How|Why|When) ")
COMMENT = re.compile(r"\s*//")


def main():
    faults = 0
    for path in sys.argv[1:]:
        # A summary is the first line of a run of doc lines.
        in_docs = False
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                line = line.rstrip("\n")
                is_doc = re.match(r"\s*//[/!]", line) is not None
                if COMMENT.match(line) and len(line) > WIDTH:
                    print(f"{path}:{number}: the comment is {len(line)} columns wide, more than {WIDTH}")
                    faults += 1
                if is_doc and not in_docs and HEADLESS.match(line):
                    print(f"{path}:{number}: the summary is a headless clause: {line.strip()}")
                    faults += 1
                in_docs = is_doc
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
