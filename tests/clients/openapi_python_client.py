"""Runs a whole session with the client that openapi-python-client generates. Uses the variables BASE_URL, TOKEN and USER_NAME."""

import os
import uuid

from stream_manager_client import AuthenticatedClient, Client
from stream_manager_client.api.limits import get_limit, set_limit
from stream_manager_client.api.player import send_heartbeat, start_stream, stop_stream, stop_stream_by_post
from stream_manager_client.api.streams import count_streams, evict_streams, get_stream, list_streams
from stream_manager_client.api.users import erase_user
from stream_manager_client.models import (
    AtLimit,
    EvictionRequest,
    HeartbeatRequest,
    InvalidRequestProblem,
    LimitRequest,
    LimitSource,
    Problem,
    ProblemCode,
    Restart,
    StartedStream,
    StartRequest,
    Stream,
    StreamEndedProblem,
    StreamEndReason,
    StreamLimitReachedProblem,
    StreamNotFoundProblem,
)

BASE_URL = os.environ["BASE_URL"]
TOKEN = os.environ.get("TOKEN")
USER = os.environ["USER_NAME"]


def expect(response, status, model):
    assert response.status_code == status, response
    assert type(response.parsed) is model, response
    uuid.UUID(response.headers["X-Request-Id"])
    return response.parsed


client = AuthenticatedClient(base_url=BASE_URL, token=TOKEN) if TOKEN else Client(base_url=BASE_URL)
with client:
    limit = set_limit.sync_detailed(USER, client=client, body=LimitRequest(limit=1))
    assert limit.parsed.limit == 1 and limit.parsed.source is LimitSource.USER, limit

    first = expect(start_stream.sync_detailed(USER, client=client), 201, StartedStream)
    assert (first.user_name, first.limit, first.ended) == (USER, 1, []), first
    assert first.expires_at > first.started_at, first

    denied = start_stream.sync_detailed(USER, client=client, body=StartRequest(device_name="TV", at_limit=AtLimit.REJECT))
    denial = expect(denied, 409, StreamLimitReachedProblem)
    assert denial.code is ProblemCode.STREAM_LIMIT_REACHED, denial
    assert (denial.limit, denial.count) == (1, 1), denial
    assert [stream.stream_id for stream in denial.streams] == [first.stream_id], denial
    assert 0 < denial.slot_frees_in_seconds == int(denied.headers["Retry-After"]), denial

    renewed = expect(send_heartbeat.sync_detailed(USER, first.stream_id, client=client), 200, Stream)
    assert renewed.stream_id == first.stream_id, renewed
    body = HeartbeatRequest(content_id="movie-8")
    expect(send_heartbeat.sync_detailed(USER, first.stream_id, client=client, body=body), 200, Stream)
    expect(get_stream.sync_detailed(USER, first.stream_id, client=client), 200, Stream)

    streams = list_streams.sync(USER, client=client)
    assert (streams.count, streams.remaining) == (1, 0), streams
    assert [stream.stream_id for stream in streams.streams] == [first.stream_id], streams
    assert count_streams.sync(USER, client=client).count == 1
    assert get_limit.sync(USER, client=client).source is LimitSource.USER

    body = EvictionRequest(stream_ids=[first.stream_id], message="Good night")
    assert evict_streams.sync(USER, client=client, body=body).ended == [first.stream_id]
    ended = expect(send_heartbeat.sync_detailed(USER, first.stream_id, client=client), 410, StreamEndedProblem)
    assert ended.reason is StreamEndReason.EVICTED and ended.restart is Restart.USER, ended
    assert ended.ended_by.message == "Good night", ended

    body = StartRequest(device_id="tv-42", content_id="movie-7")
    start = {"client": client, "body": body, "idempotency_key": str(uuid.uuid4())}
    second = expect(start_stream.sync_detailed(USER, **start), 201, StartedStream)
    assert (second.device_id, second.content_id) == ("tv-42", "movie-7"), second
    replayed = start_stream.sync_detailed(USER, **start)
    assert expect(replayed, 200, StartedStream).stream_id == second.stream_id, replayed
    assert replayed.headers["Idempotency-Replayed"] == "true", replayed
    reused = start_stream.sync_detailed(USER, **{**start, "body": StartRequest(device_id="phone")})
    assert expect(reused, 422, Problem).code is ProblemCode.IDEMPOTENCY_KEY_REUSED, reused

    assert stop_stream.sync_detailed(USER, second.stream_id, client=client, evict=True).status_code == 204
    evicted = expect(get_stream.sync_detailed(USER, second.stream_id, client=client), 410, StreamEndedProblem)
    assert evicted.reason is StreamEndReason.EVICTED, evicted
    third = expect(start_stream.sync_detailed(USER, client=client), 201, StartedStream)

    invalid = start_stream.sync_detailed(USER, client=client, body=StartRequest(device_id="tv\n"))
    assert expect(invalid, 400, InvalidRequestProblem).errors[0].field == "deviceId", invalid

    assert stop_stream.sync_detailed(USER, third.stream_id, client=client).status_code == 204
    assert stop_stream_by_post.sync_detailed(USER, third.stream_id, client=client).status_code == 204
    missing = expect(send_heartbeat.sync_detailed(USER, third.stream_id, client=client), 404, StreamNotFoundProblem)
    assert missing.restart is Restart.AUTO, missing
    assert erase_user.sync_detailed(USER, client=client).status_code == 204
