"""Evaluates the metric filters of a template on log lines, for the subset of CloudWatch's filter syntax that the template uses."""

import json
import re

# `$.field = "text"` or `$.field > number`
CONDITION = re.compile(r'\$\.(\w+) (?:= "([^"\\*]*)"|> (\d+))')


def matches(pattern, fields):
    """Whether a JSON filter pattern matches: `{ condition }`, `{ (condition) && (condition) ... }`, or the same with `||`."""
    inner = re.fullmatch(r"\{ (.*) \}", pattern)[1]
    operator, combine = ("||", any) if "||" in inner else ("&&", all)
    conditions = [part.strip("()") for part in inner.split(f" {operator} ")]

    def holds(condition):
        field, text, number = CONDITION.fullmatch(condition).groups()
        value = fields.get(field)
        if text is not None:
            return value == text
        return isinstance(value, (int, float)) and value > int(number)

    return combine(holds(condition) for condition in conditions)


def metric_sum(resources, metric, lines):
    """Returns the sum of a metric over the data points that all filters publish for these log lines."""
    total = 0
    for resource in resources.values():
        if resource["Type"] != "AWS::Logs::MetricFilter":
            continue
        properties = resource["Properties"]
        [transformation] = properties["MetricTransformations"]
        if transformation["MetricName"] != metric:
            continue
        for fields in map(json.loads, lines):
            if matches(properties["FilterPattern"], fields):
                value = transformation["MetricValue"]
                total += fields[value.removeprefix("$.")] if value.startswith("$.") else float(value)
    return total
