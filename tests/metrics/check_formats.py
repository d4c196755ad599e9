"""Parses the metrics of a running service in both text formats: check_formats.py URL FILE

Writes the Prometheus text format to FILE. scripts/check-metrics runs this file.
"""

import sys
import urllib.request

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# The `Accept` header that Prometheus 3 sends by default.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PREFERS_TEXT = "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"


def scrape(url, accept):
    headers = {} if accept is None else {"Accept": accept}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
        return response.headers["Content-Type"], response.read().decode()


def families(parsed):
    """Returns the type, help text and sample names of each metric family."""
    return {family.name: (family.type, family.documentation, {sample.name for sample in family.samples})
            for family in parsed}


def check(url, file):
    texts = {}
    for accept, expected in [
        (None, TEXT), ("*/*", TEXT), (PREFERS_TEXT, TEXT), (PROMETHEUS, OPENMETRICS), (OPENMETRICS, OPENMETRICS),
    ]:
        content_type, texts[expected] = scrape(url, accept)
        assert content_type == expected, f"Accept: {accept}: {content_type}"
    plain = families(parser.text_string_to_metric_families(texts[TEXT]))
    strict = families(openmetrics_parser.text_string_to_metric_families(texts[OPENMETRICS]))
    # The Prometheus text format has no type `info`. In this format, the metric is a gauge whose name contains the suffix `_info`.
    type_, help_text, samples = strict.pop("stream_manager_build")
    assert type_ == "info", type_
    strict["stream_manager_build_info"] = ("gauge", help_text, samples)
    assert plain == strict, f"the formats differ: {sorted(set(plain) ^ set(strict))}"
    untyped = [name for name, (type_, help_text, _) in plain.items() if type_ == "unknown" or not help_text]
    assert not untyped, f"without a type or a help text: {untyped}"
    with open(file, "w") as output:
        output.write(texts[TEXT])
    print(f"both parsers read {len(plain)} metrics")


check(*sys.argv[1:])
