"""In place of ssh: checks the words that it is given, and runs the command of the other end here. A
forwarded socket becomes a link. FAKE_SSH_SAYS is printed in place of all that, with exit code 255.
"""

from __future__ import annotations

import os
import sys


def main(words: list[str]) -> None:
    if says := os.environ.get("FAKE_SSH_SAYS"):
        print(says, file=sys.stderr)
        sys.exit(255)
    end = words.index("--")
    options, (destination, command) = words[:end], words[end + 1 :]
    assert options[0] == "-T"
    assert destination == os.environ.get("FAKE_SSH_EXPECTS", "me@board"), destination
    local, remote = options[options.index("-L") + 1].split(":")
    os.symlink(remote, local)
    os.execvp("sh", ["sh", "-c", command])


if __name__ == "__main__":
    main(sys.argv[1:])
