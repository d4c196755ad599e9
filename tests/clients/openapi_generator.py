"""Runs a whole session with the client that openapi-generator generates. Uses the variables BASE_URL, TOKEN and USER_NAME."""

import os
import uuid

import openapi_generator_client as sm

USER = os.environ["USER_NAME"]


def problem(call, status, model):
    """Returns the body of the problem that the call raises."""
    try:
        call()
    except sm.ApiException as error:
        assert error.status == status, error
        assert type(error.data) is model, error
        uuid.UUID(error.headers["X-Request-Id"])
        return error.data
    raise AssertionError(f"no exception, but {status} was expected")


configuration = sm.Configuration(host=os.environ["BASE_URL"], access_token=os.environ.get("TOKEN"))
with sm.ApiClient(configuration) as client:
    player, streams, limits, users = (
        sm.PlayerApi(client), sm.StreamsApi(client), sm.LimitsApi(client), sm.UsersApi(client)
    )
    limit = limits.set_limit(USER, sm.LimitRequest(limit=1))
    assert limit.limit == 1 and limit.source is sm.LimitSource.USER, limit

    first = player.start_stream(USER)
    assert (first.user_name, first.limit, first.ended) == (USER, 1, []), first
    assert first.expires_at > first.started_at, first

    request = sm.StartRequest(device_name="TV", at_limit=sm.AtLimit.REJECT)
    denial = problem(lambda: player.start_stream(USER, start_request=request), 409, sm.StreamLimitReachedProblem)
    assert denial.code is sm.ProblemCode.STREAM_MINUS_LIMIT_MINUS_REACHED, denial
    assert (denial.limit, denial.count) == (1, 1), denial
    assert [stream.stream_id for stream in denial.streams] == [first.stream_id], denial
    assert denial.slot_frees_in_seconds > 0, denial

    assert player.send_heartbeat(USER, first.stream_id).stream_id == first.stream_id
    player.send_heartbeat(USER, first.stream_id, sm.HeartbeatRequest(content_id="movie-8"))
    assert streams.get_stream(USER, first.stream_id).stream_id == first.stream_id

    listed = streams.list_streams(USER)
    assert (listed.count, listed.remaining) == (1, 0), listed
    assert [stream.stream_id for stream in listed.streams] == [first.stream_id], listed
    assert streams.count_streams(USER).count == 1
    assert limits.get_limit(USER).source is sm.LimitSource.USER

    request = sm.EvictionRequest(stream_ids=[first.stream_id], message="Good night")
    assert streams.evict_streams(USER, request).ended == [first.stream_id]
    ended = problem(lambda: player.send_heartbeat(USER, first.stream_id), 410, sm.StreamEndedProblem)
    assert ended.reason is sm.StreamEndReason.EVICTED and ended.restart is sm.Restart.USER, ended
    assert ended.ended_by.message == "Good night", ended

    key = str(uuid.uuid4())
    request = sm.StartRequest(device_id="tv-42", content_id="movie-7")
    started = player.start_stream_with_http_info(USER, idempotency_key=key, start_request=request)
    second = started.data
    assert started.status_code == 201, started
    assert (second.device_id, second.content_id) == ("tv-42", "movie-7"), second
    replayed = player.start_stream_with_http_info(USER, idempotency_key=key, start_request=request)
    assert (replayed.status_code, replayed.data.stream_id) == (200, second.stream_id), replayed
    other = sm.StartRequest(device_id="phone")
    reused = problem(lambda: player.start_stream(USER, idempotency_key=key, start_request=other), 422, sm.Problem)
    assert reused.code is sm.ProblemCode.IDEMPOTENCY_MINUS_KEY_MINUS_REUSED, reused

    player.stop_stream(USER, second.stream_id, evict=True)
    evicted = problem(lambda: streams.get_stream(USER, second.stream_id), 410, sm.StreamEndedProblem)
    assert evicted.reason is sm.StreamEndReason.EVICTED, evicted
    third = player.start_stream(USER)

    player.stop_stream(USER, third.stream_id)
    player.stop_stream_by_post(USER, third.stream_id)
    missing = problem(lambda: player.send_heartbeat(USER, third.stream_id), 404, sm.StreamNotFoundProblem)
    assert missing.restart is sm.Restart.AUTO, missing
    users.erase_user(USER)
