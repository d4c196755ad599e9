// The public types of the package. `npm run types` checks them against the sources.

/** Global variable of the script build. */
export as namespace StreamManager;

/** One live stream, as the service returns it. */
export interface Stream {
  streamId: string;
  userName: string;
  deviceId?: string;
  deviceName?: string;
  contentId?: string;
  labels?: Record<string, string>;
  startedAt: string;
  expiresAt: string;
  expiresInSeconds: number;
  heartbeatIntervalSeconds: number;
  /** Only in responses to a start or heartbeat, and only if the service issues grants. */
  grant?: string;
  /** True in the response to a start that exceeds a limit in observe mode. The player plays as usual. */
  overLimit?: boolean;
}

/**
 * - `idle`: not started, or stopped.
 * - `starting`: the start request was sent and has no response yet. Play.
 * - `live`: the session holds a slot. Play.
 * - `unavailable`: no valid response, a temporary error (such as 429 or 503) or a rejected token. The session retries. Play.
 * - `failed`: the service rejected the request for another reason (see `error`), and the session retries. Play.
 * - `denied`: the limit is reached. Do not play.
 * - `ended`: the stream was evicted or replaced, or it had no lease for too long (`onUnavailable`, `onRefused`). Do not play.
 */
export type State = "idle" | "starting" | "live" | "unavailable" | "failed" | "denied" | "ended";

export interface Denial {
  limit: number | undefined;
  count: number | undefined;
  /** The live streams, oldest first. */
  streams: Stream[];
  /** Name of the rule that denied the start. Undefined if the user's own limit did. */
  rule: string | undefined;
  slotFreesInSeconds: number | undefined;
  /** Ends another stream. That stream's player stops at its next heartbeat. Resolves with false if the request failed. */
  stopOther(streamId: string): Promise<boolean>;
  /** Starts again, like `start()`. With `replaces`, the start takes the slots of these streams. */
  retry(options?: StartOptions): Promise<State>;
}

export interface StartOptions {
  /**
   * Ids of at most 10 streams of the same user. The service ends these streams when the new stream starts, for example in a
   * hand-over from a phone to a television. If the start is denied, these streams continue. Invalid ids are ignored. During a playback,
   * the ids have an effect only before the first lease.
   */
  replaces?: string[];
}

export interface Lease {
  streamId: string;
  stream: Stream;
}

export interface Problem {
  status: number | undefined;
  /**
   * The problem code of the service (docs/errors.md), `http-<status>` (a response without a problem code), `timeout`,
   * `no-answer` (the request or the token function failed) or `malformed-answer` (the response was not from the service).
   */
  code: string;
  detail: string | undefined;
}

/** Describes what plays, for the rules of the service: for example `{ quality: "uhd" }`. */
export type Labels = Record<string, string>;

/** A value, or a function that returns the current value. */
export type Dynamic<T> = T | (() => T | null | undefined);

export interface Events {
  started: Lease;
  renewed: Lease;
  /** The lease was lost, and the session started a new stream. No action is needed. */
  restarted: Lease & { previousStreamId: string | null; reason: string };
  denied: Denial;
  /** The labels changed during playback. A new stream with these labels replaced the former one. No action is needed. */
  relabeled: Lease & { previousStreamId: string; labels: Labels | undefined };
  /**
   * The service denied the new `labels`: by the rule `rule`, or by the user's own limit if `rule` is undefined. Playback continues
   * with `currentLabels`. Return to media that suits them, for example to a lower quality. `retry()` requests the new labels again.
   */
  labelsDenied: Omit<Denial, "retry"> & { labels: Labels | undefined; currentLabels: Labels | undefined; retry(): void };
  /** The service sent a new grant, in the response to a start or heartbeat. It is valid for at least `expiresInSeconds`. */
  grant: { grant: string; streamId: string; expiresInSeconds: number };
  ended: {
    /**
     * - `evicted`, `replaced`: ended by another stream or by the operator.
     * - `unavailable`: no lease because the service was unavailable (`onUnavailable: "stop"`).
     * - `refused`: no lease because the service rejected the requests (`onRefused`). `status` and `code` show why.
     */
    reason: "evicted" | "replaced" | "unavailable" | "refused" | (string & {});
    /** The stream whose start ended this stream. After an eviction, `message` is the text for the viewer, if any. */
    endedBy: { streamId?: string; deviceName?: string; message?: string } | undefined;
    status?: number;
    code?: string;
    detail?: string;
  };
  /** `leaseEndsInSeconds`: time until the lease expires. Without a lease: time left of `unansweredStartS`. */
  unavailable: Problem & { leaseEndsInSeconds: number };
  available: {};
  /**
   * A rejected request, or an exception in this library (code `exception`). The cause is a bug in the application, its
   * configuration or this library. Playback continues until `onRefused` applies. The code `<option>-failed`, for example
   * `content-id-failed`, means that the function of an option threw an exception, or that its value cannot be converted. The
   * request then does not contain this option; `labels` keep their latest value.
   */
  error: { status?: number; code: string; detail?: string; requestId?: string };
  state: { state: State; previous: State };
}

export type Event<T extends keyof Events> = Events[T] & { type: T };
export type Listener<T extends keyof Events> = (event: Event<T>) => unknown;

export interface Emitter {
  /** Returns a function that removes the listener. */
  on<T extends keyof Events>(type: T, listener: Listener<T>): () => void;
  off<T extends keyof Events>(type: T, listener: Listener<T>): void;
}

export interface SessionOptions {
  /** URL of the service without `/v1`: `"https://streams.example.com"`, or `""` for the page's own origin. */
  baseUrl: string;
  userName: string;
  /**
   * A bearer token, or a function that returns one. After a 401 or 403, the function is called again, with the rejected token
   * in `rejected`. If this call fails or does not finish within `requestTimeoutS`, the request still counts as rejected, so
   * `onRefused` applies. If the function fails before the first request, `onUnavailable` applies.
   */
  token?: string | ((about: { rejected: string | undefined }) => string | undefined | Promise<string | undefined>);
  /** Default: one id per tab, which survives reloads. Default without a page: one id per process. */
  deviceId?: string;
  /**
   * `deviceName`, `contentId`, `labels` and `replaces` may be functions. They are called at each start, and `contentId` and `labels` also
   * during playback (see `Session.update`). The session cuts texts to 1000 characters, and the service cuts them to 256 bytes.
   */
  deviceName?: Dynamic<string>;
  contentId?: Dynamic<string>;
  /**
   * If the labels change during playback, the session starts a stream with the new labels, which replaces the current one (events
   * `relabeled` and `labelsDenied`). Such a start never evicts another stream.
   */
  labels?: Dynamic<Labels>;
  /** Ids of the streams that each start replaces, unless a call of `start` or `retry` contains other ids. */
  replaces?: Dynamic<string[]>;
  /** At the limit, reject the start or evict the oldest stream of the user. Default: the server's setting. */
  atLimit?: "reject" | "evictOldest";
  /** Behaviour when the lease expires, or `unansweredStartS` ends, while the service is unavailable. Default `"continue"`. */
  onUnavailable?: "continue" | "stop";
  /**
   * Behaviour when the lease expires, or `unansweredStartS` ends, while the service rejects the requests. Default
   * `"stop"` for 401 and 403 (the token is wrong), `"continue"` for other statuses.
   */
  onRefused?: "continue" | "stop";
  /**
   * How many seconds to play without a lease before `onUnavailable` or `onRefused` applies. Default: the lease
   * duration of the service (90 before the first lease). All sessions of a user in a page share this time until one of them gets a
   * lease, a denial or an eviction.
   */
  unansweredStartS?: number;
  /** Timeout of each request in seconds. Default 10. */
  requestTimeoutS?: number;
  fetch?: (url: string, init: any) => Promise<any>;
  sendBeacon?: (url: string) => boolean;
  /** Clocks in milliseconds. `now` is monotonic, `wall` is the wall clock. */
  clock?: { now?: () => number; wall?: () => number };
  timers?: { setTimeout(call: () => void, delayMs: number): any; clearTimeout(timer: any): void };
  /** Returns a number from 0 (inclusive) to 1 (exclusive). */
  random?: () => number;
  /** The source of events for sleep, network changes and unload. `null` disables them. Default: the current page, if any. */
  page?: { window: any; document: any } | null;
}

export interface AttachOptions extends SessionOptions {
  /** How many seconds a paused player keeps its slot. Default 300. */
  stopAfterPauseS?: number;
}

export interface Session extends Emitter {
  /**
   * Starts a playback. Resolves with the state after the first response or failure, and never rejects. A call during a
   * playback returns the same promise.
   */
  start(options?: StartOptions): Promise<State>;
  /**
   * Stops the playback. Resolves when the slot is free, or after the last failed attempt.
   *
   * With `unload`, sends the stop at once and does not wait for the response. Call `stop` with `unload` in four `pagehide`
   * listeners, because Firefox may abort the first ones. If the page returns from the back/forward cache (`pageshow` with
   * `persisted`), call `start`. `attach` does all of this automatically.
   *
   * With `forGood`, later starts send nothing and resolve with `idle`. `detach` uses `forGood`.
   */
  stop(options?: { unload?: boolean; forGood?: boolean }): Promise<void>;
  /**
   * Starts again after `denied` or `ended`. While `unavailable` or `failed`, sends the next request now, but not before a
   * `Retry-After`.
   */
  retry(options?: StartOptions): Promise<State>;
  /**
   * Sends the next request now if the latest one failed or was sent too long ago. If there is no page, call this after sleep or
   * a network change. In browsers, the session does this automatically.
   */
  wake(): void;
  /**
   * Call this when content or labels change during playback. If `contentId` returns a new value, the session soon sends a
   * heartbeat with this value. If `labels` does, it soon sends a start. While they keep changing, these requests are up to 5 s
   * apart. `attach` calls `update` automatically.
   */
  update(): void;
  /** The same as `stopOther` of the `denied` event. */
  stopOther(streamId: string): Promise<boolean>;
  /**
   * Resolves with a grant that is valid now and for the current content. Waits for a start or heartbeat if necessary: without a
   * limit before a start and after a playback, and for at most `requestTimeoutS` during a playback, then resolves with the newest
   * grant. Resolves with null if the service issues no grants, or if the session can never start again (`forGood`).
   */
  freshGrant(): Promise<string | null>;
  /** The newest grant of this playback, even if it has expired. Null without one. */
  readonly grant: string | null;
  readonly state: State;
  readonly streamId: string | null;
  readonly deviceId: string | null;
  readonly leaseEndsInSeconds: number;
}

/** The part of HTMLMediaElement that `attach` uses. */
export interface MediaElement {
  readonly paused: boolean;
  readonly ended: boolean;
  readonly isConnected?: boolean;
  readonly ownerDocument?: any;
  play(): Promise<void> | void;
  pause(): void;
  addEventListener(type: string, listener: (event: any) => void): void;
  removeEventListener(type: string, listener: (event: any) => void): void;
}

export interface Attached extends Emitter {
  readonly session: Session;
  /** Removes all listeners and frees the slot. The session cannot start again. */
  detach(): Promise<void>;
}

/** Where a request carries the grant: in a query parameter, in `Authorization: Bearer`, or in a cookie. */
export type GrantPlace = "query" | "header" | "cookie";

export interface MediaGrantOptions {
  /** Origins of media servers and licence servers. Requests to other origins never carry the grant. */
  origins: string[];
  /** For media requests. Default `"query"`. */
  send?: GrantPlace;
  /** For licence requests. Default `"header"`. */
  license?: GrantPlace;
  /** Name of the query parameter and of the cookie. Default `"grant"`. */
  name?: string;
  /** The page and the media server must share the `domain`. Default: the page's own host, and the path `/`. */
  cookie?: { domain?: string; path?: string };
  /** The source of `document` and `location`. Default: the global object. */
  page?: { document?: any; location?: any };
}

export interface MediaGrants {
  /** Returns what a request for this URL must contain. For libraries that have no hook below. */
  request(url: string, send?: GrantPlace): Promise<{ url: string; headers: Record<string, string>; credentials: boolean }>;
  /** `xhrSetup` of hls.js. */
  hls(xhr: any, url: string): Promise<void>;
  /** `licenseXhrSetup` of hls.js. */
  hlsLicense(xhr: any, url: string): Promise<void>;
  /** For `registerRequestFilter` of Shaka Player, including licence requests. */
  shaka(type: number, request: any): Promise<void>;
  /** For `addRequestInterceptor` of dash.js. */
  dash(request: any): Promise<any>;
  /** For `registerLicenseRequestFilter` of dash.js. */
  dashLicense(request: any): Promise<void>;
  /** For `videojs.Vhs.xhr.onRequest`. video.js cannot wait, so set the source after `session.freshGrant()` resolved. */
  vhs(options: any): any;
  /** Removes its event listeners from the session. Needed only with cookies, which are set when the grant changes. */
  stop(): void;
}

export function createSession(options: SessionOptions): Session;
export function attach(video: MediaElement, options: AttachOptions): Attached;
/** Adds the session's grants to the requests of a player library. */
export function mediaGrants(session: Session, options: MediaGrantOptions): MediaGrants;
