"""Validates files of events, and the examples in docs/EVENTS.md: check_events.py FILE..."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

from cloudevents.core.formats.json import JSONFormat
from jsonschema import Draft202012Validator, FormatChecker

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/events.schema.json").read_text())

Draft202012Validator.check_schema(SCHEMA)
# Without an installed checker, jsonschema accepts every text, so check that the formats of the schema have one.
FORMATS = {"date-time", "uri-reference", "uuid"}
assert FORMATS <= set(FormatChecker.checkers), FormatChecker.checkers.keys()
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=FormatChecker())


def check(line, place):
    """Validates one event, and returns it."""
    event = json.loads(line)
    errors = [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(event)]
    assert not errors, f"{place}: {errors}\n{line}"
    # Raises an exception if an attribute violates the CloudEvents specification.
    parsed = JSONFormat().read(None, line)
    assert parsed.get_specversion() == "1.0" and parsed.get_data() == event["data"], place
    return event


def check_file(file):
    """Validates the lines of a file, and returns the events. The sequence of each instance must ascend."""
    events, last = [], {}
    for number, line in enumerate(Path(file).read_text().splitlines(), 1):
        if line:
            event = check(line, f"{file}:{number}")
            source, sequence = event["source"], event["sequence"]
            assert last.get(source, "") < sequence, f"{file}:{number}: the sequence does not ascend"
            last[source] = sequence
            events.append(event)
    return events


def check_examples():
    """The documentation has one valid example of each type."""
    document = (ROOT / "docs/EVENTS.md").read_text()
    blocks = re.findall(r"^```json\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    examples = Counter(check(block, "docs/EVENTS.md")["type"] for block in blocks)
    types = {variant["properties"]["type"]["const"] for variant in SCHEMA["oneOf"]}
    assert examples == Counter(types), f"docs/EVENTS.md: {examples}"


def main():
    check_examples()
    events = [event for file in sys.argv[1:] for event in check_file(file)]
    assert events, "the files have no events"
    repeated = [id for id, count in Counter(event["id"] for event in events).items() if count > 1]
    assert not repeated, f"repeated ids: {repeated}"
    for name, count in sorted(Counter(event["type"] for event in events).items()):
        print(f"{count:6} {name}")


if __name__ == "__main__":
    main()
