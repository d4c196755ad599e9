"""Parses the subset of Dockerfile syntax that this repository uses, and rejects everything else."""

import json
import re
import shlex
from dataclasses import dataclass, field

# The final stage may use only instructions that run no command, because it starts from scratch and has no shell.
FINAL_STAGE_KEYWORDS = {"ARG", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "USER"}


@dataclass
class Stage:
    base: str
    name: str
    instructions: list = field(default_factory=list)

    def all(self, keyword):
        return [arguments for word, arguments in self.instructions if word == keyword]

    def only(self, keyword):
        found = self.all(keyword)
        assert len(found) == 1, f"{self.name or self.base}: {len(found)} {keyword} instructions, expected 1"
        return found[0]


def read(path):
    """Returns the stages in order."""
    text = re.sub(r"^[ \t]*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n", " ", text)
    stages = []
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, arguments = line.partition(" ")
        assert keyword == keyword.upper() and "<<" not in arguments, f"unsupported instruction: {line}"
        if keyword == "FROM":
            match = re.fullmatch(r"(\S+)(?: AS (\S+))?", arguments)
            assert match and not arguments.startswith("--"), f"unsupported instruction: {line}"
            stages.append(Stage(match[1], match[2] or ""))
        else:
            assert stages, f"instruction before the first stage: {line}"
            stages[-1].instructions.append((keyword, re.sub(r"\s+", " ", arguments)))
    unexpected = {keyword for keyword, _ in stages[-1].instructions} - FINAL_STAGE_KEYWORDS
    assert not unexpected, f"unexpected instructions in the final stage: {unexpected}"
    return stages


def copies(stage):
    """Returns (stage, folder) for each COPY instruction. Each must copy a folder of another stage to the root."""
    found = []
    for arguments in stage.all("COPY"):
        match = re.fullmatch(r"--from=(\S+) (/\S+)/ /", arguments)
        assert match, f"unsupported instruction: COPY {arguments}"
        found.append((match[1], match[2]))
    return found


def environment(stage):
    pairs = [part for arguments in stage.all("ENV") for part in shlex.split(arguments)]
    assert all("=" in pair and "$" not in pair for pair in pairs), pairs
    return dict(pair.split("=", 1) for pair in pairs)


def build_context(path):
    """Returns the paths that .dockerignore includes. The file must exclude everything first."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", f"{path} must begin with *"
    return [line[1:] for line in lines if line.startswith("!")]


def exec_form(text):
    """Parses a command in exec form. The shell form is rejected, because the image has no shell."""
    words = json.loads(text)
    assert words and all(isinstance(word, str) for word in words), text
    return words
