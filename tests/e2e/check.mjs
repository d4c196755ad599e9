// Holds the collection to the OpenAPI document: node check.mjs COLLECTION DOCUMENT
//
// Each request is an operation of the document (or means not to be one: it expects route-not-found or method-not-allowed),
// each status that it expects is documented for it, and each operation is asked for.
import { readFileSync } from "node:fs";

const [collection, document] = process.argv.slice(2).map((file) => JSON.parse(readFileSync(file, "utf8")));
// Served beside the operations, and not one of them.
const BESIDE = ["GET /openapi.json"];
const METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

// Variables in either notation are `{}`: a template's {userName}, and a request's {{user}}.
const shape = (method, path) => `${method.toUpperCase()} ${path.replace(/\{+\w+\}+/g, "{}")}`;

const operations = new Map();
const templates = [];
for (const [path, methods] of Object.entries(document.paths)) {
    for (const method of METHODS.filter((each) => methods[each])) {
        operations.set(shape(method, path), methods[method]);
        templates.push([method.toUpperCase(), path.split("/")]);
    }
}

// An operation that the request means with a literal in place of a variable, such as a stream id that is none.
const loosely = (method, path) => {
    const parts = path.split("/");
    const found = templates.find(([itsMethod, template]) =>
        itsMethod === method && template.length === parts.length
        && template.every((part, at) => part === parts[at] || part.startsWith("{")));
    return found && operations.get(shape(method, found[1].join("/")));
};

const requests = (items) => items.flatMap((item) => (item.item ? requests(item.item) : [item]));
const problems = [];
const missing = new Set(operations.keys());
let checked = 0;

for (const { name, request, event = [] } of requests(collection.item)) {
    const raw = request.url.raw;
    if (!raw.startsWith("{{baseUrl}}/")) problems.push(`"${name}" does not begin with {{baseUrl}}: ${raw}`);
    const path = raw.replace("{{baseUrl}}", "").split("?")[0];
    const key = shape(request.method, path);
    const operation = operations.get(key) ?? loosely(request.method, path);
    missing.delete(key);
    checked += 1;

    const script = event.filter((each) => each.listen === "test").flatMap((each) => each.script.exec).join("\n");
    const asserted = [
        ...[...script.matchAll(/have\.status\((\d+)\)/g)].map((match) => match[1]),
        ...[...script.matchAll(/response\.code\)\.to\.be\.oneOf\(\[([\d, ]+)\]/g)].flatMap((match) => match[1].split(/, */)),
    ];
    if (asserted.length === 0) problems.push(`"${name}" expects no status`);

    if (/"(route-not-found|method-not-allowed)"/.test(script)) {
        if (operation) problems.push(`"${name}" expects that there is no ${request.method} ${path}, which is an operation`);
    } else if (!operation) {
        if (!BESIDE.includes(key)) problems.push(`"${name}" is no operation of the document: ${request.method} ${path}`);
    } else {
        for (const status of asserted.filter((each) => !operation.responses[each]))
            problems.push(`"${name}" expects ${status}, which is not documented for ${request.method} ${path}`);
    }
}
for (const key of missing) problems.push(`no request for ${key} (${operations.get(key).operationId})`);

for (const problem of problems) console.error(`collection: ${problem}`);
if (problems.length > 0) process.exit(1);
console.log(`collection: ${checked} requests ask for all ${operations.size} operations of the document`);
