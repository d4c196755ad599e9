"""Reads the Dockerfile as far as the check needs it, and fails on whatever it does not understand."""

import json
import re
import shlex
from dataclasses import dataclass, field

# What the final stage may have: none of these runs anything or depends on what a base image brings.
FINAL = {"ARG", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "USER"}


@dataclass
class Stage:
    base: str
    name: str
    instructions: list = field(default_factory=list)

    def all(self, keyword):
        return [rest for word, rest in self.instructions if word == keyword]

    def only(self, keyword):
        found = self.all(keyword)
        assert len(found) == 1, f"{self.name or self.base}: {keyword} {len(found)} times"
        return found[0]


def read(path):
    """The stages, in order."""
    text = re.sub(r"^[ \t]*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n", " ", text)
    stages = []
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, rest = line.partition(" ")
        assert keyword == keyword.upper() and "<<" not in rest, f"not understood: {line}"
        if keyword == "FROM":
            match = re.fullmatch(r"(\S+)(?: AS (\S+))?", rest)
            assert match and not rest.startswith("--"), f"not understood: {line}"
            stages.append(Stage(match[1], match[2] or ""))
        else:
            assert stages, f"before the first stage: {line}"
            stages[-1].instructions.append((keyword, re.sub(r"\s+", " ", rest)))
    final = stages[-1]
    strange = {keyword for keyword, _ in final.instructions} - FINAL
    assert not strange, f"the final stage has {strange}"
    return stages


def copies(stage):
    """What its COPY lines take: (stage, folder) each, laid at the root."""
    found = []
    for rest in stage.all("COPY"):
        match = re.fullmatch(r"--from=(\S+) (/\S+)/ /", rest)
        assert match, f"not understood: COPY {rest}"
        found.append((match[1], match[2]))
    return found


def environment(stage):
    pairs = [part for rest in stage.all("ENV") for part in shlex.split(rest)]
    assert all("=" in pair and "$" not in pair for pair in pairs), pairs
    return dict(pair.split("=", 1) for pair in pairs)


def context(path):
    """What .dockerignore lets in: it must refuse everything first."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", f"{path} must begin with *"
    return [line[1:] for line in lines if line.startswith("!")]


def command(text):
    """An exec form; the shell's form is refused, since there is no shell."""
    words = json.loads(text)
    assert words and all(isinstance(word, str) for word in words), text
    return words
