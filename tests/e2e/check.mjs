// Checks the Postman collection against the OpenAPI document: node check.mjs COLLECTION DOCUMENT
//
// - Each request calls an operation of the document, or expects `route-not-found` or `method-not-allowed`.
// - The document lists each expected status of an operation.
// - Each operation has at least one request.
import { readFileSync } from "node:fs";

const [collection, document] = process.argv.slice(2).map((file) => JSON.parse(readFileSync(file, "utf8")));
// Routes that are not in the document.
const UNDOCUMENTED = ["GET /openapi.json"];
const METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

// Replaces parameters in both notations, {userName} and {{user}}, with {}.
const keyOf = (method, path) => `${method.toUpperCase()} ${path.replace(/\{+\w+\}+/g, "{}")}`;

const operations = new Map();
const templates = [];
for (const [path, methods] of Object.entries(document.paths)) {
    for (const method of METHODS.filter((each) => methods[each])) {
        operations.set(keyOf(method, path), methods[method]);
        templates.push([method.toUpperCase(), path.split("/")]);
    }
}

// Finds the operation for a path that contains a value, such as a malformed stream id, where the document has a parameter.
const matchTemplate = (method, path) => {
    const segments = path.split("/");
    const found = templates.find(([templateMethod, template]) =>
        templateMethod === method && template.length === segments.length
        && template.every((segment, index) => segment === segments[index] || segment.startsWith("{")));
    return found && operations.get(keyOf(method, found[1].join("/")));
};

const requests = (items) => items.flatMap((item) => (item.item ? requests(item.item) : [item]));
const problems = [];
const untested = new Set(operations.keys());
let checked = 0;

for (const { name, request, event = [] } of requests(collection.item)) {
    const raw = request.url.raw;
    if (!raw.startsWith("{{baseUrl}}/")) problems.push(`"${name}" does not start with {{baseUrl}}: ${raw}`);
    const path = raw.replace("{{baseUrl}}", "").split("?")[0];
    const key = keyOf(request.method, path);
    const operation = operations.get(key) ?? matchTemplate(request.method, path);
    untested.delete(key);
    checked += 1;

    const script = event.filter((each) => each.listen === "test").flatMap((each) => each.script.exec).join("\n");
    const statuses = [
        ...[...script.matchAll(/have\.status\((\d+)\)/g)].map((match) => match[1]),
        ...[...script.matchAll(/response\.code\)\.to\.be\.oneOf\(\[([\d, ]+)\]/g)].flatMap((match) => match[1].split(/, */)),
    ];
    if (statuses.length === 0) problems.push(`"${name}" expects no status`);

    if (/"(route-not-found|method-not-allowed)"/.test(script)) {
        if (operation) problems.push(`"${name}" expects that ${request.method} ${path} does not exist, but it is an operation`);
    } else if (!operation) {
        if (!UNDOCUMENTED.includes(key)) problems.push(`"${name}" is not an operation of the document: ${request.method} ${path}`);
    } else {
        for (const status of statuses.filter((each) => !operation.responses[each]))
            problems.push(`"${name}" expects ${status}, which is not documented for ${request.method} ${path}`);
    }
}
for (const key of untested) problems.push(`no request for ${key} (${operations.get(key).operationId})`);

for (const problem of problems) console.error(`collection: ${problem}`);
if (problems.length > 0) process.exit(1);
console.log(`collection: ${checked} requests cover all ${operations.size} operations of the document`);
