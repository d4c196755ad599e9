// Runs a whole session with the types of openapi-typescript and the client openapi-fetch. Uses the variables BASE_URL, TOKEN and
// USER_NAME.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./stream-manager.js";

type Schemas = components["schemas"];

const { BASE_URL, TOKEN, USER_NAME } = process.env;
const headers = TOKEN ? { Authorization: `Bearer ${TOKEN}` } : {};
const client = createClient<paths>({ baseUrl: BASE_URL ?? "", headers });
const userName = USER_NAME ?? "";
const user = { params: { path: { userName } } };
const stream = (streamId: string) => ({ params: { path: { userName, streamId } } });

/** Returns the body of a successful response. */
function success<T>({ data, response }: { data?: T; response: Response }, status: number): T {
    assert.equal(response.status, status);
    assert.match(response.headers.get("X-Request-Id") ?? "", /^[0-9a-f-]{36}$/);
    assert(data !== undefined);
    return data;
}

/** Returns the body of a problem response. */
function problem<E extends Schemas["Problem"]>({ error, response }: { error?: E; response: Response }, status: number): E {
    assert.equal(response.status, status);
    assert(error !== undefined);
    assert.equal(error.status, status);
    return error;
}

const limit = success(await client.PUT("/v1/users/{userName}/limit", { ...user, body: { limit: 1 } }), 200);
assert.deepEqual([limit.limit, limit.source satisfies Schemas["LimitSource"]], [1, "user"]);

const first = success(await client.POST("/v1/users/{userName}/streams", user), 201);
assert.deepEqual([first.userName, first.limit, first.ended], [userName, 1, []]);

const body: Schemas["StartRequest"] = { deviceName: "TV", atLimit: "reject" };
const denial = problem(await client.POST("/v1/users/{userName}/streams", { ...user, body }), 409);
assert("slotFreesInSeconds" in denial);
const reached: Schemas["StreamLimitReachedProblem"] = denial;
assert.equal(reached.code satisfies Schemas["ProblemCode"], "stream-limit-reached");
assert.deepEqual([reached.limit, reached.count], [1, 1]);
assert.deepEqual(reached.streams.map(({ streamId }) => streamId), [first.streamId]);

const heartbeat = "/v1/users/{userName}/streams/{streamId}/heartbeat";
assert.equal(success(await client.POST(heartbeat, stream(first.streamId)), 200).streamId, first.streamId);
success(await client.POST(heartbeat, { ...stream(first.streamId), body: { contentId: "movie-8" } }), 200);
success(await client.GET("/v1/users/{userName}/streams/{streamId}", stream(first.streamId)), 200);

const listed = success(await client.GET("/v1/users/{userName}/streams", user), 200);
assert.deepEqual([listed.count, listed.remaining, listed.streams[0]?.streamId], [1, 0, first.streamId]);
assert.equal(success(await client.GET("/v1/users/{userName}/streams/count", user), 200).count, 1);
const { source } = success(await client.GET("/v1/users/{userName}/limit", user), 200);
assert.equal(source satisfies Schemas["LimitSource"], "user");

const eviction = { streamIds: [first.streamId], message: "Good night" };
const evicted = await client.POST("/v1/users/{userName}/evictions", { ...user, body: eviction });
assert.deepEqual(success(evicted, 200).ended, [first.streamId]);
const ended = problem(await client.POST(heartbeat, stream(first.streamId)), 410);
assert("reason" in ended);
assert.deepEqual([ended.code, ended.reason, ended.restart], ["stream-ended", "evicted", "user"]);
assert.equal(ended.endedBy?.message, "Good night");

const key = randomUUID();
const start = (deviceId: string) => client.POST("/v1/users/{userName}/streams", {
    params: { path: { userName }, header: { "Idempotency-Key": key } },
    body: { deviceId },
});
const second = success(await start("tv-42"), 201);
assert.equal(second.deviceId, "tv-42");
const replayed = await start("tv-42");
assert.equal(success(replayed, 200).streamId, second.streamId);
assert.equal(replayed.response.headers.get("Idempotency-Replayed"), "true");
assert.equal(problem(await start("phone"), 422).code, "idempotency-key-reused");
const invalid = problem(await start("tv\n"), 400);
assert("errors" in invalid);
assert.equal(invalid.errors?.[0]?.field, "deviceId");

const one = "/v1/users/{userName}/streams/{streamId}";
const { path } = stream(second.streamId).params;
assert.equal((await client.DELETE(one, { params: { path, query: { evict: true } } })).response.status, 204);
const evictedLater = problem(await client.GET(one, stream(second.streamId)), 410);
assert("reason" in evictedLater);
assert.equal(evictedLater.reason satisfies Schemas["StreamEndReason"], "evicted");

const { streamId } = success(await client.POST("/v1/users/{userName}/streams", user), 201);
assert.equal((await client.DELETE(one, stream(streamId))).response.status, 204);
const stopped = await client.POST("/v1/users/{userName}/streams/{streamId}/stop", stream(streamId));
assert.equal(stopped.response.status, 204);
const missing = problem(await client.POST(heartbeat, stream(streamId)), 404);
assert("restart" in missing);
assert.equal(missing.restart satisfies Schemas["Restart"], "auto");
assert.equal((await client.DELETE("/v1/users/{userName}", user)).response.status, 204);
